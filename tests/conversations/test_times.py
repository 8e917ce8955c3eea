"""Times in requests have the form of RFC 3339, in the body and in the query string."""

import json

import pytest

from tests.conversations.test_field_codes import codes_of
from tests.factories import PATH, conversation, token

ACCEPTED = {
    "2026-01-15T15:00:00Z": "2026-01-15T15:00:00.000Z",
    "2026-01-15t15:00:00z": "2026-01-15T15:00:00.000Z",
    "2026-01-15 15:00:00Z": "2026-01-15T15:00:00.000Z",
    "2026-01-15T15:00:00.1Z": "2026-01-15T15:00:00.100Z",
    "2026-01-15T15:00:00.123999Z": "2026-01-15T15:00:00.123Z",
    "2026-01-15T15:00:00.1239999999999999999Z": "2026-01-15T15:00:00.123Z",
    "2026-01-15T15:00:00+02:00": "2026-01-15T13:00:00.000Z",
    "2026-01-15T15:00:00-23:59": "2026-01-16T14:59:00.000Z",
    "2026-01-15T15:00:00-00:00": "2026-01-15T15:00:00.000Z",
    "2024-02-29T00:00:00Z": "2024-02-29T00:00:00.000Z",
    "2016-12-31T23:59:60Z": "2016-12-31T23:59:59.999Z",
    "2016-12-31T23:59:60.5Z": "2016-12-31T23:59:59.999Z",
    "2017-01-01T01:59:60+02:00": "2016-12-31T23:59:59.999Z",
    "1990-12-31T15:59:60-08:00": "1990-12-31T23:59:59.999Z",
}
REJECTED = [
    "",
    "now",
    "2026-01-15",
    "2026-01-15T15:00:00",
    "2026-01-15T15:00Z",
    "2026-01-15T15Z",
    "20260115T150000Z",
    "2026-01-15T150000Z",
    "2026-W03-4T15:00:00Z",
    "2026-W03T15:00:00Z",
    "2026-015T15:00:00Z",
    "2026-01-15_15:00:00Z",
    "2026-01-15x15:00:00Z",
    "2026-01-15  15:00:00Z",
    "2026-01-15T15:00:00,5Z",
    "2026-01-15T15:00:00.Z",
    "2026-01-15T15:00:00 Z",
    "2026-01-15T15:00:00Z ",
    "2026-01-15T15:00:00+02",
    "2026-01-15T15:00:00+0200",
    "2026-01-15T15:00:00+02:00:30",
    "2026-01-15T15:00:00+24:00",
    "2026-01-15T15:00:00+01:60",
    "2026-01-15T24:00:00Z",
    "2026-01-15T15:60:00Z",
    "2026-01-15T15:00:61Z",
    "2026-02-30T15:00:00Z",
    "2026-13-01T15:00:00Z",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+02:00",
    "9999-12-31T23:59:59-02:00",
    "9999-12-31T23:59:60Z",
    "2026-01-15T15:00:60Z",
    "2026-01-15T23:59:60Z",
    "2026-02-01T00:05:60Z",
    "2016-12-31T23:59:60+02:00",
    "2026-01-15T15:00:00\u0660Z",
    "\u0662\u0660\u0662\u0666-01-15T15:00:00Z",
    "T" * 5_000,
    " " * 3_000,
]
PARAMETERS = ("created_after", "created_before", "activity_after", "activity_before")


def imported(client, moment):
    """Return the result for a line from another program."""
    line = {"character_id": "luna", "created_at": moment}
    response = client.post(f"{PATH}/import", json.dumps(line), content_type="application/x-ndjson")
    first, _counts = response.streaming_content
    return json.loads(first)


def report(client, id_, moment):
    credential = token(sub="messages", token_type="service", scope="conversations:activity")
    totals = dict.fromkeys(
        ("message_count", "total_tokens", "total_input_tokens", "total_output_tokens"), 1
    )
    return client.put(
        f"/internal/v1/conversations/{id_}/activity",
        totals | {"sequence": 1, "first_message_at": moment, "last_message_at": moment},
        headers={"Authorization": f"Bearer {credential}"},
    )


@pytest.mark.parametrize(("moment", "stored"), ACCEPTED.items())
def test_a_time_of_rfc_3339_is_accepted_wherever_a_time_enters(alice, moment, stored):
    created = conversation(alice)

    assert [alice.get(PATH, {name: moment}).status_code for name in PARAMETERS] == [200] * 4
    assert report(alice, created["id"], moment).json()["metadata"]["first_message_at"] == stored
    line = imported(alice, moment)
    kept = alice.get(f"{PATH}/{line['id']}").json()["metadata"]
    assert (line["status"], kept["created_at"]) == (201, stored)
    body = {"action": "pin", "filter": {"created_after": moment}, "dry_run": True}
    assert alice.post(f"{PATH}/bulk", body).status_code == 200
    searched = alice.get(PATH, {"search": f'after:"{moment}"'}).json()["conversations"]
    assert line["id"] not in {row["id"] for row in searched}
    assert searched == [] or stored < searched[0]["metadata"]["last_activity"]


@pytest.mark.parametrize("moment", REJECTED)
def test_another_form_is_rejected_wherever_a_time_enters(alice, moment):
    created = conversation(alice)

    for name in PARAMETERS:
        response = alice.get(PATH, {name: moment})
        assert (response.status_code, codes_of(response)) == (400, {"invalid"})
    assert codes_of(report(alice, created["id"], moment)) == {"invalid"}
    assert imported(alice, moment)["errors"][0]["code"] == "invalid"
    body = {"action": "pin", "filter": {"created_after": moment}, "dry_run": True}
    assert codes_of(alice.post(f"{PATH}/bulk", body)) == {"invalid"}
    assert alice.get(PATH, {"search": f"after:{moment[:100]}"}).status_code == 200


@pytest.mark.parametrize(
    "moment",
    ["2026-01-15T15:00:00+02:00", "2026-01-15 15:00:00.5+02:00", "2026-01-15t15:00:00+00:00"],
)
def test_a_plus_that_was_not_escaped_is_named(alice, moment):
    response = alice.get(f"{PATH}?created_after={moment.replace(' ', '%20')}")

    assert codes_of(response) == {"plus"}
