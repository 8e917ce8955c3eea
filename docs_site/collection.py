"""Write docs/collection.json, the requests of docs/openapi.json for Postman, Bruno and Insomnia.

`make openapi` runs this module. The collection has the variables `baseUrl`, `token` and
`serviceToken`; its first request creates a conversation and stores `id` for the others, and the
last folder moves the conversation to the trash. A webhook is created and deleted likewise, with
`webhookId`. Reading the event log stores `eventId`, if there is an event. Each request tests its
status.
"""

import json
from typing import Any

from config.env import BASE_DIR
from conversation_service.http.openapi_hooks import EXAMPLE_ID
from docs_site.reference import resolved

DESCRIPTION = BASE_DIR / "docs" / "openapi.json"
COLLECTION = BASE_DIR / "docs" / "collection.json"
SCHEMA = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
LAST = ("deleteWebhook", "deleteConversation")
LAST_FOLDER = "deletion"
WEBHOOKS = "/internal/v1/webhooks"
# By operation, the script that stores an id. A creation is the first request in its folder.
KEPT = {
    "createConversation": 'pm.collectionVariables.set("id", pm.response.json().id);',
    "createWebhook": 'pm.collectionVariables.set("webhookId", pm.response.json().id);',
    "getEvents": 'pm.collectionVariables.set("eventId", pm.response.json().data.at(-1)?.id ?? "");',
}


def collection(description: dict[str, Any]) -> dict[str, Any]:
    folders: dict[str, list[dict[str, Any]]] = {tag["name"]: [] for tag in description["tags"]}
    folders[LAST_FOLDER] = []
    paths = resolved(description["paths"], description["components"])
    for path, operations in paths.items():
        for method, operation in operations.items():
            is_last = operation["operationId"] in LAST
            folder = folders[LAST_FOLDER if is_last else operation["tags"][0]]
            is_first = operation["operationId"].startswith("create")
            at = 0 if is_first else len(folder)
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
            *({"key": name, "value": ""} for name in ("id", "webhookId", "eventId")),
        ],
        "item": [{"name": name, "item": items} for name, items in folders.items()],
    }


def _item(method: str, path: str, operation: dict[str, Any]) -> dict[str, Any]:
    parameters = operation.get("parameters", [])
    headers = [_disabled(entry) for entry in parameters if entry["in"] == "header"]
    query = [_disabled(entry) for entry in parameters if entry["in"] == "query"]
    token = "serviceToken" if path.startswith("/internal") else "token"
    id_ = "{{webhookId}}" if path.startswith(WEBHOOKS) else "{{id}}"
    path = path.replace("{id}", id_).replace("{event_id}", "{{eventId}}")
    raw = "{{baseUrl}}" + path
    request: dict[str, Any] = {
        "method": method.upper(),
        "url": {
            "raw": raw,
            "host": ["{{baseUrl}}"],
            "path": path.strip("/").split("/"),
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
    if "{{eventId}}" in path:  # perhaps there is no event
        statuses.append(404)
    script = [
        f'pm.test("The status is documented", () => pm.expect({statuses})'
        ".to.include(pm.response.code));",
        *([KEPT[operation["operationId"]]] if operation["operationId"] in KEPT else []),
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
