"""The codes of field errors: one list, in which each code can occur."""

import ast
import re
from datetime import timedelta

import pytest
from rest_framework import serializers
from rest_framework.test import APIClient

from config.env import BASE_DIR
from conversation_service import clock
from conversation_service.http.field_codes import FIELD_CODES
from conversation_service.http.fields import IntegerParameter
from conversations.serializers import bulk, changes, conversations, internal, listing, transfer
from conversations.webhooks import serializers as webhooks
from tests.factories import PATH, conversation, token

CREATE = {
    "required": {},
    "unknown_field": {"character_id": "luna", "titel": "Luna"},
    "null": {"character_id": None},
    "invalid": {"character_id": "luna", "tags": "casual"},
    "blank": {"character_id": "luna", "title": ""},
    "invisible": {"character_id": "luna", "title": "\u3164"},
    "control": {"character_id": "luna", "title": "bell\a"},
    "comma": {"character_id": "luna", "tags": ["a,b"]},
    "key": {"character_id": "luna", "custom": {"a.b": "1"}},
    "max_length": {"character_id": "luna", "title": "x" * 201},
    "min_value": {"character_id": "luna", "settings": {"max_tokens": 0}},
    "max_value": {"character_id": "luna", "settings": {"max_tokens": 2**31}},
}
BULK = {
    "invalid_choice": {"action": "explode", "ids": ["x"]},
    "contradiction": {"action": "archive"},
    "min_length": {"action": "archive", "ids": []},
}

URLS = {
    "url_characters": "https://example.org/a b",
    "url_form": "example.org",
    "url_scheme": "http://example.org/",
    "url_credentials": "https://user@example.org/",
    "url_fragment": "https://example.org/#a",
    "url_host": "https://localhost/",
    "url_port": "https://example.org:22/",
    "url_address": "https://127.0.0.1/",
}


def codes_of(response):
    return {error["code"] for error in response.json()["error"]["details"]["errors"]}


def service(scope):
    credential = token(sub="messages", token_type="service", scope=scope, user_id=None)
    return APIClient(headers={"Authorization": f"Bearer {credential}"})


def reported_ahead(client):
    """Report activity from tomorrow."""
    tomorrow = (clock.now() + timedelta(days=1)).isoformat()
    report = dict.fromkeys(("message_count", "total_tokens"), 0)
    report |= {f"total_{side}_tokens": 0 for side in ("input", "output")}
    return service("conversations:activity").put(
        f"/internal/v1/conversations/{conversation(client)['id']}/activity",
        report | {"sequence": 1, "first_message_at": tomorrow, "last_message_at": tomorrow},
    )


@pytest.mark.parametrize("code", FIELD_CODES)
def test_each_listed_code_occurs(alice, code):
    if code == "in_the_future":
        response = reported_ahead(alice)
    elif code == "repeated":
        response = alice.get(f"{PATH}?limit=5&limit=6")
    elif code == "plus":
        response = alice.get(f"{PATH}?created_after=2026-01-15T15:00:00+02:00")
    elif code in URLS:
        response = service("webhooks:manage").post("/internal/v1/webhooks", {"url": URLS[code]})
    elif code in BULK:
        response = alice.post(f"{PATH}/bulk", BULK[code])
    else:
        response = alice.post(PATH, CREATE[code])

    assert response.status_code == 400
    assert codes_of(response) == {code}


# Keys of DRF's messages that no input reaches: Text, List, Dict, Flag, Moment and IntegerParameter
# check the input themselves, and no list needs `allow_empty`.
UNREACHABLE = {
    *("max_string_length", "overflow", "date", "make_aware"),
    *("not_a_list", "not_a_dict", "empty"),
}


def fields_of(field):
    yield field
    inner = [*field.fields.values()] if isinstance(field, serializers.Serializer) else []
    if isinstance(field, serializers.ListField | serializers.DictField):
        inner.append(field.child)
    for each in inner:
        yield from fields_of(each)


def inputs():
    for module in (bulk, changes, conversations, internal, listing, transfer, webhooks):
        for value in vars(module).values():
            if isinstance(value, serializers.Serializer):
                yield from fields_of(value)
    yield from transfer._CHANGEABLE.values()


def test_every_code_of_the_fields_is_listed():
    found = set()
    for field in inputs():
        found |= field.error_messages.keys()
        found |= {getattr(validator, "code", "invalid") for validator in field.validators}

    assert found - UNREACHABLE <= FIELD_CODES.keys()


def test_every_code_in_the_source_is_listed():
    raised = set()
    for folder in ("conversation_service/http", "conversations"):
        for path in (BASE_DIR / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call):
                    name = ast.unparse(node.func).rpartition(".")[2]
                    codes = [k.value for k in node.keywords if k.arg == "code"]
                    if name in {"ErrorDetail", "ValidationError", "RegexValidator"}:
                        raised |= {code.value for code in codes}
                if isinstance(node, ast.Dict):
                    raised |= {
                        value.value
                        for key, value in zip(node.keys, node.values, strict=True)
                        if ast.unparse(key or node) == "'code'" and isinstance(value, ast.Constant)
                    }

    assert len(raised) > 5
    assert raised - {None} <= FIELD_CODES.keys()


def test_codes_are_in_snake_case():
    assert [code for code in FIELD_CODES if not re.fullmatch("[a-z]+(_[a-z]+)*", code)] == []


def test_the_guide_has_the_list():
    guide = (BASE_DIR / "docs" / "guide" / "errors.md").read_text("utf-8")
    rows = [
        f"| `{code}` | {meaning} | {remedy} |" for code, (meaning, remedy) in FIELD_CODES.items()
    ]

    assert "\n".join(["| code | meaning | remedy |", "| --- | --- | --- |", *rows]) in guide


WRONG_TYPES = [
    ([], "", "Use an object, not an array."),
    ("luna", "", "Use an object, not a string."),
    ({"settings": []}, "/settings", "Use an object, not an array."),
    ({"settings": 1.5}, "/settings", "Use an object, not a number."),
    ({"custom": [1]}, "/custom", "Use an object, not an array."),
    ({"tags": {}}, "/tags", "Use an array, not an object."),
    ({"tags": "casual"}, "/tags", "Use an array, not a string."),
    ({"tags": [["a"]]}, "/tags/0", "Use a string, not an array."),
    ({"title": 7}, "/title", "Use a string, not a number."),
    ({"title": {"$gt": ""}}, "/title", "Use a string, not an object."),
    ({"title": True}, "/title", "Use a string, not a boolean."),
    ({"settings": {"max_tokens": "1"}}, "/settings/max_tokens", "Use an integer, not a string."),
    ({"settings": {"max_tokens": True}}, "/settings/max_tokens", "Use an integer, not a boolean."),
    ({"settings": {"temperature": "1"}}, "/settings/temperature", "Use a number, not a string."),
    ({"settings": {"temperature": []}}, "/settings/temperature", "Use a number, not an array."),
]


@pytest.mark.parametrize(("body", "pointer", "message"), WRONG_TYPES)
def test_a_wrong_type_is_named_as_in_json(alice, body, pointer, message):
    if isinstance(body, dict):
        body = {"character_id": "luna"} | body
    errors = alice.post(PATH, body).json()["error"]["details"]["errors"]

    assert errors == [{"pointer": pointer, "code": "invalid", "message": message}]


def test_a_wrong_type_is_named_in_spanish(alice):
    response = alice.post(
        PATH, {"character_id": "luna", "tags": {}}, headers={"Accept-Language": "es"}
    )

    [error] = response.json()["error"]["details"]["errors"]
    assert error["message"] == "Usar un array, no un objeto."


@pytest.mark.parametrize("value", ["", "x", "1.5", "1" * 1_001, "1" * 5_000])
def test_an_integer_in_a_query_string_has_one_code(alice, value):
    response = alice.get(PATH, {"limit": value})

    assert codes_of(response) == {"invalid"}


def test_integers_in_query_strings_are_of_one_class():
    parameters = [field for field in inputs() if type(field) is serializers.IntegerField]

    assert parameters == []
    assert IntegerParameter in map(type, inputs())
