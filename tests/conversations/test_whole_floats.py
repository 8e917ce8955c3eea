"""A JSON number without a fraction is an integer, in each spelling."""

import json

import pytest

from conversations.limits import MAX_COUNT
from tests.conversations.test_bad_input import refused
from tests.conversations.test_export import EXPORT
from tests.conversations.test_import import forget_everything, make_older, outcome, post
from tests.conversations.test_internal import BATCH, put, report, service_with
from tests.factories import PATH, conversation

WHOLE = [("2048.0", 2048), ("1e3", 1000), ("1.5E2", 150), ("20480e-1", 2048)]
NO_INTEGERS = ["2048.5", "1e-3", "true", '"2048"', "[2048]", "1e16", "1e300", "-1e300", "1e999"]
NO_JSON = ["NaN", "Infinity", "-Infinity", "0x10"]


def send(client, method, path, text):
    return client.generic(method, path, text, content_type="application/json")


@pytest.mark.parametrize("name", ["max_tokens", "context_window"])
@pytest.mark.parametrize(("text", "value"), WHOLE)
def test_a_whole_float_is_an_integer_in_settings(alice, mongo, name, text, value):
    settings = f'{{"settings": {{"{name}": {text}}}, "character_id": "luna"}}'

    created = send(alice, "POST", PATH, settings)
    path = f"{PATH}/{conversation(alice)['id']}"
    edited = send(alice, "PATCH", path, settings.replace(', "character_id": "luna"', ""))

    assert (created.status_code, edited.status_code) == (201, 200)
    for response in (created, edited):
        assert f'"{name}":{value},'.encode() in response.content
    stored = mongo["conversations"].distinct(f"settings.{name}")
    assert stored == [value]
    assert type(stored[0]) is int


@pytest.mark.parametrize("text", NO_INTEGERS)
def test_other_numbers_are_rejected_in_settings(alice, text):
    path = f"{PATH}/{conversation(alice)['id']}"

    response = send(alice, "PATCH", path, f'{{"settings": {{"max_tokens": {text}}}}}')

    assert response.status_code == 400
    if text != "1e999":  # not JSON for the parser
        assert refused(response) == {"/settings/max_tokens": "invalid"}


@pytest.mark.parametrize("text", NO_JSON)
def test_numbers_that_are_not_json_are_rejected(alice, text):
    assert send(alice, "POST", PATH, f'{{"settings": {{"max_tokens": {text}}}}}').status_code == 400


def test_bounds_apply_to_whole_floats(alice):
    path = f"{PATH}/{conversation(alice)['id']}"

    for text, code in (("0.0", "min_value"), ("4097.0", "max_value"), ("-0.0", "min_value")):
        response = send(alice, "PATCH", path, f'{{"settings": {{"max_tokens": {text}}}}}')
        assert refused(response) == {"/settings/max_tokens": code}


def test_a_whole_float_is_a_version_to_revert_to(alice):
    path = f"{PATH}/{conversation(alice, title='First')['id']}"
    alice.patch(path, {"title": "Second"})

    for text, status in (("1.5", 400), ("1e300", 400), ("true", 400), ("1.0", 200)):
        body = f'{{"version": {text}, "fields": ["title"]}}'
        assert send(alice, "POST", f"{path}/revert", body).status_code == status
    assert alice.get(path).json()["title"] == "First"


def test_activity_reports_accept_whole_floats(alice, mongo):
    created = conversation(alice)
    service = service_with("conversations:activity")
    totals = {
        name: float(value) if isinstance(value, int) else value
        for name, value in report(2, 3).items()
    }

    single = put(service, created, totals)
    many = service.post(BATCH, {"items": [totals | {"id": created["id"], "sequence": 3.0}]})

    assert single.json()["applied"]
    assert many.json()["results"][0]["applied"]
    stored = mongo["conversations"].find_one()
    assert {type(n) for n in (stored["activity_sequence"], stored["metadata"]["total_tokens"])} == {
        int
    }
    for name in ("sequence", "message_count", "total_tokens"):
        for value in (4.5, float(MAX_COUNT + 1), True):
            assert put(service, created, report(4) | {name: value}).status_code == 400


def test_an_import_accepts_whole_floats(alice):
    path = f"{PATH}/{conversation(alice, title='First')['id']}"
    alice.patch(path, {"settings": {"max_tokens": 7}})
    make_older()
    line, _end = alice.get(EXPORT).getvalue().splitlines()
    forget_everything()
    value = json.loads(line)
    value["version"] = float(value["version"])
    value["metadata"]["message_count"] = 0.0
    value["settings"]["max_tokens"] = 7.0
    value["history"][0]["version"] = 2.0
    value["history"][0]["changes"]["settings.max_tokens"] = {"before": 2048.0, "after": 7.0}
    wrong = value | {"version": 2.5, "metadata": value["metadata"] | {"total_tokens": 1e17}}

    response = post(alice, b"\n".join(json.dumps(each).encode() for each in (wrong, value)))

    first, second, _end = map(json.loads, response.getvalue().splitlines())
    assert outcome(first) == (
        400,
        "VALIDATION_ERROR",
        [("/metadata/total_tokens", "invalid"), ("/version", "invalid")],
    )
    assert second["status"] == 201
    assert alice.get(EXPORT).getvalue().splitlines()[0] == line
