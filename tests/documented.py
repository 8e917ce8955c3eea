"""A client that checks every response against the committed OpenAPI document."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema_rs import Draft202012Validator
from rest_framework.test import APIClient

from conversation_service.http.field_codes import FIELD_CODES

DOCUMENT = json.loads((Path(__file__).parent.parent / "docs" / "openapi.json").read_text())
OPERATIONS = [
    (method.upper(), re.compile(re.sub(r"\{\w+\}", "[^/]+", path) + "/?"), operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]

REQUIRED_HEADERS = {"ETag", "Location", "X-Request-ID", "WWW-Authenticate", "Retry-After"}


class DocumentedClient(APIClient):
    """Fails a test if the status, headers or body of a response are not documented."""

    def request(self, **request: Any) -> Any:
        response = super().request(**request)
        if operation := _operation(request["REQUEST_METHOD"], request["PATH_INFO"]):
            _check(response, operation, partial="fields=" in request.get("QUERY_STRING", ""))
        return response


def _operation(method: str, path: str) -> dict[str, Any] | None:
    # Fixed words stand before ids in the document's order of precedence.
    found = [
        (p.pattern.count("[^/]"), op)
        for m, p, op in OPERATIONS
        if m == method and p.fullmatch(path)
    ]
    return min(found, key=lambda pair: pair[0])[1] if found else None


def _check(response: Any, operation: dict[str, Any], *, partial: bool) -> None:
    status = str(response.status_code)
    assert status in operation["responses"], f"{status} undocumented: {response.content[:300]!r}"
    documented = resolved(operation["responses"][status])
    headers = documented.get("headers", {}).keys()
    assert REQUIRED_HEADERS & headers <= response.headers.keys()
    if "content" not in documented:
        assert response.content == b""
        return
    if response.streaming:
        assert response.headers["Content-Type"] in documented["content"]
        return
    body = response.json()
    if isinstance(body, dict):
        faults = body.get("error", {}).get("details", {}).get("errors", ())
        assert {fault["code"] for fault in faults} <= FIELD_CODES.keys()
    for fault in _validator(operation["operationId"], status, partial).iter_errors(body):
        raise AssertionError(f"{fault.instance_path}: {fault.message[:200]}")


@cache
def _validator(operation_id: str, status: str, partial: bool) -> Any:
    [operation] = [op for _, _, op in OPERATIONS if op["operationId"] == operation_id]
    schema = resolved(operation["responses"][status])["content"]["application/json"]["schema"]
    if operation_id == "listConversations" and status == "200" and not partial:
        rows = {"items": {"$ref": "#/components/schemas/Conversation"}}
        schema = {"allOf": [schema, {"properties": {"conversations": rows}}]}
    return validator(schema)


def validator(schema: dict[str, Any]) -> Any:
    """Return a validator for a schema, which can refer to the document's components."""
    return Draft202012Validator(schema | {"components": DOCUMENT["components"]})


def resolved(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the component that an entry refers to, or the entry."""
    if "$ref" not in entry:
        return entry
    found = DOCUMENT
    for name in entry["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return found
