"""Write docs/collection.json, the requests of docs/openapi.json for Postman, Bruno and Insomnia.

`make openapi` runs this module. The collection has the variables `baseUrl`, `token` and
`serviceToken`; its first request creates a conversation and stores `id` for the others, and its
last one moves the conversation to the trash. Each request tests its status.
"""

import json
from typing import Any

from config.env import BASE_DIR
from conversation_service.http.openapi_hooks import EXAMPLE_ID
from docs_site.reference import resolved

DESCRIPTION = BASE_DIR / "docs" / "openapi.json"
COLLECTION = BASE_DIR / "docs" / "collection.json"
SCHEMA = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
FIRST, LAST = "createConversation", "deleteConversation"
LAST_FOLDER = "trash"
KEEP_ID = 'pm.collectionVariables.set("id", pm.response.json().id);'


def collection(description: dict[str, Any]) -> dict[str, Any]:
    folders: dict[str, list[dict[str, Any]]] = {tag["name"]: [] for tag in description["tags"]}
    folders[LAST_FOLDER] = []
    paths = resolved(description["paths"], description["components"])
    for path, operations in paths.items():
        for method, operation in operations.items():
            is_last = operation["operationId"] == LAST
            folder = folders[LAST_FOLDER if is_last else operation["tags"][0]]
            at = 0 if operation["operationId"] == FIRST else len(folder)
            folder.insert(at, _item(method, path, operation))
    return {
        "info": {
            "name": description["info"]["title"],
            "description": description["info"]["description"],
            "schema": SCHEMA,
        },
        "variable": [
            {"key": "baseUrl", "value": "http://localhost:8003"},
            {"key": "token", "value": ""},
            {"key": "serviceToken", "value": ""},
            {"key": "id", "value": ""},
        ],
        "item": [{"name": name, "item": items} for name, items in folders.items()],
    }


def _item(method: str, path: str, operation: dict[str, Any]) -> dict[str, Any]:
    parameters = operation.get("parameters", [])
    headers = [_disabled(entry) for entry in parameters if entry["in"] == "header"]
    query = [_disabled(entry) for entry in parameters if entry["in"] == "query"]
    token = "serviceToken" if path.startswith("/internal") else "token"
    raw = "{{baseUrl}}" + path.replace("{id}", "{{id}}")
    request: dict[str, Any] = {
        "method": method.upper(),
        "url": {
            "raw": raw,
            "host": ["{{baseUrl}}"],
            "path": path.replace("{id}", "{{id}}").strip("/").split("/"),
            "query": query,
        },
        "header": headers,
        "auth": {
            "type": "bearer",
            "bearer": [{"key": "token", "value": "{{" + token + "}}", "type": "string"}],
        },
        "description": operation.get("description", ""),
    }
    contents = operation.get("requestBody", {}).get("content", {})
    if contents:
        media_type, content = next(iter(contents.items()))
        headers.insert(0, {"key": "Content-Type", "value": media_type})
        request["body"] = {"mode": "raw", "raw": _example(content, media_type)}
    statuses = [int(status) for status in operation["responses"] if status < "300"]
    script = [
        f'pm.test("The status is documented", () => pm.expect({statuses})'
        ".to.include(pm.response.code));",
        *([KEEP_ID] if operation["operationId"] == FIRST else []),
    ]
    return {
        "name": operation["summary"],
        "request": request,
        "event": [{"listen": "test", "script": {"type": "text/javascript", "exec": script}}],
    }


def _disabled(parameter: dict[str, Any]) -> dict[str, Any]:
    return {
        "key": parameter["name"],
        "value": "",
        "description": parameter.get("description", ""),
        "disabled": True,
    }


def _example(content: dict[str, Any], media_type: str) -> str:
    """Return the first example, with the id of the conversation that the collection created."""
    examples = [*content.get("examples", {}).values(), {"value": {}}]
    value = examples[0]["value"]
    indent = None if "ndjson" in media_type else 2
    return json.dumps(value, ensure_ascii=False, indent=indent).replace(EXAMPLE_ID, "{{id}}")


if __name__ == "__main__":
    described = json.loads(DESCRIPTION.read_text("utf-8"))
    text = json.dumps(collection(described), ensure_ascii=False, indent=2)
    COLLECTION.write_text(text + "\n", "utf-8")
