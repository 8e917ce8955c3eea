"""Every list, object and text of a request has a bound, which is checked first."""

from collections.abc import Iterator

import pytest
from django.urls import get_resolver
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail

from conversation_service.http import fields
from conversation_service.tokens import service_token
from tests.conversations.test_bad_input import refused
from tests.documented import DocumentedClient
from tests.factories import PATH, conversation

ID = "6" * 24


def input_serializers() -> list[type[fields.StrictSerializer]]:
    """The serializers that validate input. The modules in `openapi` document responses."""
    assert get_resolver().url_patterns  # imports all views with their serializers
    found: list[type[fields.StrictSerializer]] = [fields.StrictSerializer]
    for kind in found:
        found += kind.__subclasses__()
    return [kind for kind in found if ".openapi." not in kind.__module__]


def parts(field: serializers.Field, path: str) -> Iterator[tuple[str, serializers.Field]]:
    yield path, field
    if isinstance(field, serializers.Serializer):
        for name, inner in field.fields.items():
            yield from parts(inner, f"{path}.{name}")
    elif child := getattr(field, "child", None):
        yield from parts(child, f"{path}[]")


def is_bounded(field: serializers.Field) -> bool:
    bounded: dict[type, type | tuple[type, ...]] = {
        serializers.ListSerializer: fields.List,
        serializers.ListField: fields.List,
        serializers.DictField: fields.Dict,
        serializers.CharField: (fields.Text, fields.ExternalId),  # its pattern bounds the length
        serializers.ChoiceField: fields.Choice,
        serializers.DateTimeField: fields.Moment,
        serializers.JSONField: fields.Ignored,
    }
    kinds = [ours for theirs, ours in bounded.items() if isinstance(field, theirs)]
    return all(isinstance(field, kind) for kind in kinds)


def test_every_list_object_and_text_has_a_bound():
    found = dict(part for kind in input_serializers() for part in parts(kind(), kind.__name__))

    assert "TransferredSerializer.history[].changes[]" in found
    assert len(found) > 100
    assert [path for path, field in found.items() if not is_bounded(field)] == []


def test_fields_without_a_bound_cannot_be_declared():
    for kind in (fields.List, fields.Dict, fields.Text, fields.Line):
        with pytest.raises(TypeError):
            kind()


@pytest.fixture
def built(monkeypatch) -> list[str]:
    """The messages of all errors created from now on."""
    made: list[str] = []
    original = ErrorDetail.__new__

    def counting(cls, string, code=None):
        made.append(string)
        return original(cls, string, code)

    monkeypatch.setattr(ErrorDetail, "__new__", counting)
    return made


LONG = [
    ({"tags": [0] * 20_000}, {"/tags": "max_length"}),
    ({"tags": ["x" * 30] * 1_000}, {"/tags": "max_length"}),
    ({"custom": dict.fromkeys(map(str, range(5_000)))}, {"/custom": "max_length"}),
    ({"custom": {"k": "a" + "\u0315\u0300" * 1_000}}, {"/custom/k": "max_length"}),
    ({"title": "a" + "\u0315" * 8_000 + "\u0300" * 8_000}, {"/title": "max_length"}),
    ({"title": " " * 801 + "x"}, {"/title": "max_length"}),
    ({"settings": {"stop_sequences": [{}] * 10_000}}, {"/settings/stop_sequences": "max_length"}),
    ({"settings": [[]] * 5_000}, {"/settings": "invalid"}),
]


@pytest.mark.parametrize(("body", "errors"), LONG)
def test_a_value_that_is_too_long_is_one_error(alice, built, body, errors):
    path = f"{PATH}/{conversation(alice)['id']}"

    for response in (alice.patch(path, body), alice.post(PATH, {"character_id": "luna"} | body)):
        assert refused(response) == errors
    assert len(built) < 20


@pytest.mark.parametrize(
    "body",
    [
        {f"unknown {n}": 0 for n in range(2_000)},
        {"settings": {f"unknown {n}": 0 for n in range(2_000)}},
    ],
)
def test_at_most_fifty_errors_are_returned(alice, built, body):
    response = alice.post(PATH, {"character_id": "luna"} | body)

    assert len(refused(response, "UNKNOWN_FIELD")) == 50
    assert len(built) < 300


@pytest.mark.parametrize(
    ("path", "body", "errors"),
    [
        ("bulk", {"action": "pin", "ids": [0] * 20_000}, {"/ids": "max_length"}),
        ("bulk", {"action": [[]] * 9_000, "ids": [ID]}, {"/action": "invalid_choice"}),
        (
            "bulk",
            {"action": "pin", "filter": {}, "cursor": "x" * 40_000},
            {"/cursor": "max_length"},
        ),
        (
            "bulk",
            {"action": "pin", "filter": {"tags": [0] * 9_000}},
            {"/filter/tags": "max_length"},
        ),
        (f"{ID}/revert", {"version": 1, "fields": [[]] * 20_000}, {"/fields": "max_length"}),
        ("", {"character_id": "\u0315\u0300" * 8_000}, {"/character_id": "invalid"}),
    ],
)
def test_other_bodies_have_bounds(alice, built, path, body, errors):
    if path.startswith(ID):
        path = path.replace(ID, conversation(alice)["id"])

    response = alice.post(f"{PATH}/{path}".rstrip("/"), body)

    assert refused(response) == errors
    assert len(built) < 20


@pytest.mark.parametrize(
    ("method", "path", "body", "errors"),
    [
        ("post", "authorize", {"user_id": "alice", "ids": [0] * 20_000}, {"/ids": "max_length"}),
        ("post", "activity", {"items": [{}] * 60_000}, {"/items": "max_length"}),
        ("post", "authorize", {"user_id": "x" * 50_000, "ids": [ID]}, {"/user_id": "invalid"}),
    ],
)
def test_bodies_of_services_have_bounds(built, method, path, body, errors):
    token = service_token("message", "conversations:authorize", "conversations:activity")
    service = DocumentedClient(headers={"Authorization": f"Bearer {token}"})

    response = getattr(service, method)(f"/internal/v1/{path}", body)

    assert refused(response) == errors
    assert len(built) < 20


def test_five_hundred_wrong_reports_have_fifty_errors(built):
    token = service_token("message", "conversations:activity")
    service = DocumentedClient(headers={"Authorization": f"Bearer {token}"})

    response = service.post("/internal/v1/activity", {"items": [{"id": ID}] * 500})

    assert len(response.json()["error"]["details"]["errors"]) == 50
    assert len(built) < 500


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("tags=" + "," * 4_000, "/tags"),
        ("fields=" + "id," * 1_000 + "id", "/fields"),
        ("character_id=" + "%CC%95" * 1_000, "/character_id"),
        ("cursor=" + "&cursor=" * 500, "/cursor"),
    ],
)
def test_query_parameters_have_bounds(alice, built, query, pointer):
    response = alice.get(f"{PATH}?{query}")

    assert list(refused(response)) == [pointer]
    assert len(built) < 20


@pytest.mark.parametrize("depth", [300, 900, 1_000, 1_020])
def test_deep_nesting_anywhere_is_rejected(alice, depth):
    nested = "[" * depth + "]" * depth
    for name in ("title", "tags", "custom", "settings", "character_id", "status", "pinned", "x"):
        for body in (f'{{"{name}": {nested}}}', f'{{"{name}": [{nested}]}}'):
            post = alice.generic("POST", PATH, body, content_type="application/json")
            bulk = f'{{"action": {nested}, "ids": {nested}, "filter": {nested}}}'
            many = alice.generic("POST", f"{PATH}/bulk", bulk, content_type="application/json")

            assert (post.status_code, many.status_code) == (400, 400)


def test_a_text_is_accepted_if_its_composed_form_is_short_enough(alice):
    decomposed = "\u03b1\u0313\u0300\u0345" * 200

    created = conversation(alice, title=decomposed)

    assert created["title"] == "\u1f82" * 200


def test_all_keys_of_custom_can_be_replaced_in_one_patch(alice):
    created = conversation(alice, custom={f"old{n}": "x" for n in range(16)})
    custom = {f"old{n}": None for n in range(16)} | {f"new{n}": "x" for n in range(16)}

    response = alice.patch(f"{PATH}/{created['id']}", {"custom": custom})

    assert response.json()["custom"] == {f"new{n}": "x" for n in range(16)}
