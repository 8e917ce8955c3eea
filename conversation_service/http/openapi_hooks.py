"""The last steps in building docs/openapi.json, as hooks of drf-spectacular."""

import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

Document = dict[str, Any]
SCHEMAS = "#/components/schemas/"
EXAMPLE_ID = "507f1f77bcf86cd799439014"
_CURL_HEADER = '-H "Authorization: Bearer $TOKEN"'
_FILE = "conversations.ndjson"


def as_enforced(result: Document, **_options: Any) -> Document:
    """Describe request bodies as they are validated: without further properties.

    A default is removed, as some generators take a property with a default as always present.
    """
    schemas = result["components"]["schemas"]
    for name in _reached(schemas, _bodies(result)):
        if "properties" in schemas[name]:
            schemas[name].setdefault("additionalProperties", False)
        for entry in schemas[name].get("properties", {}).values():
            entry.pop("default", None)
    for operation in _operations(result):
        body = operation.get("requestBody", {})
        for media_type, content in body.get("content", {}).items():
            if "oneOf" in schemas[content["schema"].get("$ref", "").removeprefix(SCHEMAS)]:
                body["required"] = not media_type.endswith("ndjson")  # no lines are valid, too
    return result


def as_lines(result: Document, **_options: Any) -> Document:
    """Describe NDJSON as text. `x-itemSchema` is a line's schema, as in OpenAPI 3.2."""
    for operation in _operations(result):
        contents = [entry.get("content", {}) for entry in operation["responses"].values()]
        for content in [*contents, operation.get("requestBody", {}).get("content", {})]:
            for media_type, entry in content.items():
                if media_type.endswith("ndjson"):
                    entry["x-itemSchema"] = entry["schema"]
                    entry["schema"] = {"type": "string"}
    return result


def open_enums(result: Document, **_options: Any) -> Document:
    """Turn the enums in responses into plain text that lists the words in its description.

    A generated client rejects a word that its enum lacks, and a later release may add one. A value
    that is always the same, such as a change's kind, becomes a constant.
    """
    schemas = result["components"]["schemas"]
    received = {*_reached(schemas, _bodies(result))}
    for name, schema in schemas.items():
        if name in received:
            continue
        for key, entry in schema.get("properties", {}).items():
            words = _words(schemas, entry)
            if len(words) == 1:
                schema["properties"][key] = {"type": "string", "const": words[0]}
            elif words:
                listed = f"One of {', '.join(f'`{word}`' for word in words)}; more can be added."
                schema["properties"][key] = {
                    "type": ["string", "null"] if "oneOf" in entry else "string",
                    "description": f"{entry.get('description', '')} {listed}".strip(),
                }
    used = {*_reached(schemas, [result["paths"]])}
    for name in [name for name in schemas if name not in used]:
        del schemas[name]
    return result


def with_samples(result: Document, **_options: Any) -> Document:
    """Add a sample for each operation in curl, Python and JavaScript, with its first example."""
    for path, operations in result["paths"].items():
        address = path.replace("{id}", EXAMPLE_ID)
        for method, operation in operations.items():
            contents = operation.get("requestBody", {}).get("content", {})
            media_type = next(iter(contents), "")
            examples = contents.get(media_type, {}).get("examples", {"": {"value": {}}})
            value = next(iter(examples.values()))["value"]
            body = json.dumps(value, ensure_ascii=False)
            curl = [f'curl -X {method.upper()} "$BASE{address}"', _CURL_HEADER]
            python = [f'f"{{BASE}}{address}"']
            python_headers = '"Authorization": f"Bearer {TOKEN}"'
            javascript = [f'method: "{method.upper()}"']
            javascript_headers = "Authorization: `Bearer ${TOKEN}`"
            if media_type:
                curl += [f'-H "Content-Type: {media_type}"']
                javascript_headers += f', "Content-Type": "{media_type}"'
            if media_type.endswith("ndjson"):
                curl += [f"--data-binary @{_FILE}"]
                python += [f'data=open("{_FILE}", "rb")']
                python_headers += f', "Content-Type": "{media_type}"'
                javascript += [f'body: await readFile("{_FILE}")']
            elif media_type:
                curl += [f"-d '{body}'"]
                python += [f"json={value!r}"]
                javascript += [f"body: JSON.stringify({body})"]
            python.insert(1, f"headers={{{python_headers}}}")
            javascript.insert(1, f"headers: {{ {javascript_headers} }}")
            operation["x-codeSamples"] = [
                {"lang": "Shell", "label": "curl", "source": " \\\n  ".join(curl)},
                {
                    "lang": "Python",
                    "label": "requests",
                    "source": f"requests.{method}(\n    " + ",\n    ".join(python) + ",\n)",
                },
                {
                    "lang": "JavaScript",
                    "label": "fetch",
                    "source": f"await fetch(`${{BASE}}{address}`, {{\n  "
                    + ",\n  ".join(javascript)
                    + ",\n});",
                },
            ]
    return result


def share(result: Document, **_options: Any) -> Document:
    """Move failures, parameters and headers that several operations repeat to the components."""
    operations = _operations(result)
    components = result["components"]
    headers = [
        (response["headers"], name, name)
        for operation in operations
        for response in operation["responses"].values()
        for name in response.get("headers", {})
    ]
    parameters = [
        (operation["parameters"], number, parameter["name"])
        for operation in operations
        for number, parameter in enumerate(operation.get("parameters", []))
    ]
    failures = [
        (operation["responses"], status, "Or".join(_codes(response)))
        for operation in operations
        for status, response in operation["responses"].items()
        if int(status) >= HTTPStatus.BAD_REQUEST
    ]
    components["headers"] = _moved("headers", headers)
    components["parameters"] = _moved("parameters", parameters)
    components["responses"] = _moved("responses", failures)
    return result


def user_first(result: Document, **_options: Any) -> Document:
    """List the user's token before the service's: Swagger UI offers the schemes in this order."""
    schemes = result["components"]["securitySchemes"]
    result["components"]["securitySchemes"] = dict(sorted(schemes.items(), reverse=True))
    return result


def _codes(response: Document) -> list[str]:
    """Return a response's error codes, such as InvalidCursor."""
    [content] = response["content"].values()
    codes = [example["value"]["error"]["code"] for example in content["examples"].values()]
    return ["".join(word.capitalize() for word in code.split("_")) for code in codes]


def _moved(kind: str, places: list[tuple[Any, Any, str]]) -> Document:
    """Replace the values at these places by references. Return the values by name.

    A place is a container, its key, and the component's name. Another value with the same name gets
    a number.
    """
    values: dict[str, Any] = {}
    for container, key, name in places:
        numbered, count = name, 1
        while values.setdefault(numbered, container[key]) != container[key]:
            count += 1
            numbered = f"{name}{count}"
        container[key] = {"$ref": f"#/components/{kind}/{numbered}"}
    return dict(sorted(values.items()))


def _operations(document: Document) -> list[Document]:
    return [entry for operations in document["paths"].values() for entry in operations.values()]


def _bodies(document: Document) -> list[Any]:
    """Return the request bodies; of NDJSON, a line."""
    return [
        content
        for operation in _operations(document)
        for content in operation.get("requestBody", {}).get("content", {}).values()
    ]


def _reached(schemas: Document, roots: list[Any]) -> Iterator[str]:
    """Yield the names of all schemas that the roots refer to, directly or not."""
    found: set[str] = set()
    waiting = [*roots]
    while waiting:
        for name in _references(waiting.pop()):
            if name not in found:
                found.add(name)
                waiting.append(schemas[name])
                yield name


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if str(value.get("$ref", "")).startswith(SCHEMAS):
            yield value["$ref"].removeprefix(SCHEMAS)
        for entry in value.values():
            yield from _references(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _references(entry)


def _words(schemas: Document, entry: Document) -> list[str]:
    """Return the words that a property can have; empty for other properties."""
    words: list[str] = []
    parts: Any = entry.get("allOf", entry.get("oneOf", [entry]))
    for part in parts:
        name = part.get("$ref", "").removeprefix(SCHEMAS)
        words += schemas.get(name, part).get("enum", [])
    return words if all(isinstance(word, str) for word in words) else []
