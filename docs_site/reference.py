"""Write the reference of all endpoints and objects from docs/openapi.json during the build."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PLACE = "<!-- operations -->"
Schema = dict[str, Any]
_BOUNDS = {
    "minimum": "≥ {}",
    "maximum": "≤ {}",
    "maxLength": "≤ {} characters",
    "maxItems": "≤ {} items",
    "default": "default `{}`",
}


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    if PLACE not in markdown:
        return markdown
    document = json.loads((Path(config.docs_dir) / "openapi.json").read_text(encoding="utf-8"))
    return markdown.replace(PLACE, "\n".join(reference(document)))


def reference(document: Schema) -> Iterator[str]:
    document = document | {"paths": resolved(document["paths"], document["components"])}
    yield "## Endpoints\n"
    for path in sorted(document["paths"], key=_place):
        for method, operation in document["paths"][path].items():
            yield from _operation(method.upper(), path, operation)
    yield "## Objects\n"
    for name, schema in document["components"]["schemas"].items():
        yield from _object(name, schema)


def resolved(value: Any, components: Schema) -> Any:
    """Replace references to shared parameters and responses, and keep those to objects."""
    if isinstance(value, list):
        return [resolved(item, components) for item in value]
    if not isinstance(value, dict):
        return value
    kind, _, name = value.get("$ref", "").removeprefix("#/components/").partition("/")
    if kind in {"parameters", "responses"}:
        value = components[kind][name]
    return {key: resolved(item, components) for key, item in value.items()}


def _place(path: str) -> tuple[bool, bool]:
    """Sort endpoints of conversations first and endpoints for services last."""
    return path.startswith("/internal/"), not path.startswith("/api/v1/conversations")


def _operation(method: str, path: str, operation: Schema) -> Iterator[str]:
    yield f"### {operation['summary']}\n\n`{method} {path}`\n\n{operation['description']}\n"
    yield from _table(
        ["parameter", "in", "type", "description"],
        (
            [f"`{p['name']}`", p["in"], _type(p["schema"]), p.get("description", "")]
            for p in operation.get("parameters", [])
        ),
    )
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"Body: {_body_type(content)}, `{media}`\n"
        for example in content.get("examples", {}).values():
            if media == "application/json":
                shown = json.dumps(example["value"], ensure_ascii=False, indent=2)
                yield f'```json title="{example.get("summary", "")}"\n{shown}\n```\n'
    yield from _table(
        ["status", "body", "description"],
        (
            [f"`{status}`", _body(response), response["description"]]
            for status, response in operation["responses"].items()
        ),
    )


def _body(response: Schema) -> str:
    kinds = {_body_type(content) for content in response.get("content", {}).values()}
    return ", ".join(sorted(kinds)) or "none"


def _body_type(content: Schema) -> str:
    if "x-itemSchema" in content:
        return f"lines of {_type(content['x-itemSchema'])}"
    return _type(content["schema"])


def _object(name: str, schema: Schema) -> Iterator[str]:
    yield f"### {name} {{#{name.lower()}}}\n"
    if "description" in schema:
        yield f"{schema['description']}\n"
    if "properties" not in schema:
        yield f"{_type(schema)}\n"
        return
    required = schema.get("required", [])
    yield from _table(
        ["field", "type", "description"],
        (
            [
                f"`{field}`" + (", required" if field in required else ""),
                _type(value),
                value.get("description", ""),
            ]
            for field, value in schema["properties"].items()
        ),
    )


def _type(schema: Schema) -> str:
    """Describe the type and the bounds of a value."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in schema:
        return f"`{schema['const']}`"
    for several in ("oneOf", "anyOf", "allOf"):
        if several in schema:
            return " or ".join(_type(part) for part in schema[several])
    limits = [text.format(schema[key]) for key, text in _BOUNDS.items() if key in schema]
    if "enum" in schema:
        return ", ".join([*(f"`{value}`" for value in schema["enum"]), *limits])
    kinds = schema.get("type", "anything")
    words = " or ".join([kinds] if isinstance(kinds, str) else kinds)
    if "items" in schema:
        words = words.replace("array", f"array of {_type(schema['items'])}")
    if isinstance(schema.get("additionalProperties"), dict):
        words = words.replace("object", f"object of {_type(schema['additionalProperties'])}")
    return ", ".join([schema.get("format", words), *limits])


def _table(head: list[str], rows: Iterator[list[str]]) -> Iterator[str]:
    lines = [
        " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows
    ]
    if lines:
        rule = " | ".join("---" for _ in head)
        yield "\n".join(f"| {line} |" for line in [" | ".join(head), rule, *lines]) + "\n"
