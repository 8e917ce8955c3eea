"""Numbers at or above the largest exact JSON integer break no read."""

import json

import pytest

from conversation_service import clock
from conversations import documents
from conversations.limits import MAX_COUNT
from tests.conversations.admin.browser import staff, url_of
from tests.conversations.test_export import EXPORT
from tests.conversations.test_import import forget_everything, imported, make_older
from tests.conversations.test_internal import put, report, service_with
from tests.factories import PATH, conversation


@pytest.mark.parametrize("version", [MAX_COUNT - 3, MAX_COUNT, MAX_COUNT + 2])
def test_a_version_can_exceed_the_largest_exact_number(alice, mongo, version):
    created = conversation(alice, title="First")
    mongo["conversations"].update_one({}, {"$set": {"version": version}})
    one = f"{PATH}/{created['id']}"

    edited = alice.patch(one, {"title": "Second"}, headers={"If-Match": f'"v{version}"'})

    assert edited.status_code == 200
    body = edited.json()
    assert (body["version"], edited.headers["ETag"]) == (version + 1, f'"v{version + 1}"')
    assert alice.get(one).json() == body
    assert alice.get(PATH).json()["conversations"] == [body]
    assert alice.get("/api/v1/changes").json()["changes"][0]["conversation"] == body
    assert alice.get(f"{one}?as_of={version}").json()["title"] == "First"
    assert alice.get(f"{one}/history").json()["revisions"][0]["version"] == version + 1
    stale = alice.patch(one, {"title": "x"}, headers={"If-Match": f'"v{version}"'})
    assert stale.status_code == 412
    reverted = alice.post(f"{one}/revert", {"version": version, "fields": ["title"]})
    assert (reverted.json()["title"], reverted.json()["version"]) == ("First", version + 2)
    assert json.loads(alice.get(EXPORT).getvalue().splitlines()[0])["version"] == version + 2
    assert staff(role="operator").get(url_of(created["id"])).status_code == 200


def test_the_largest_reported_totals_can_be_exported_and_imported(alice):
    created = conversation(alice)
    totals = ("message_count", "total_tokens", "total_input_tokens", "total_output_tokens")
    most = dict.fromkeys(("sequence", *totals), MAX_COUNT)
    service = service_with("conversations:activity")

    assert put(service, created, report(1) | most).json()["applied"]
    make_older()
    body = alice.get(EXPORT).getvalue()
    forget_everything()

    assert [result["status"] for result in imported(alice, body)] == [201]
    assert alice.get(EXPORT).getvalue() == body
    [row] = alice.get(PATH).json()["conversations"]
    for name in most:
        assert put(service, row, report(1) | {name: MAX_COUNT + 1}).status_code == 400


def test_sums_of_totals_end_at_the_largest_exact_number(alice, mongo):
    rows = [
        documents.new(user_id="alice", character_id="luna", now=clock.now()) for _ in range(1100)
    ]
    for row in rows:
        row["metadata"] |= {"message_count": MAX_COUNT, "total_tokens": MAX_COUNT}
    mongo["conversations"].insert_many(rows)

    statistics = alice.get(f"{PATH}/summary").json()["statistics"]

    assert (statistics["total_messages"], statistics["total_tokens"]) == (MAX_COUNT, MAX_COUNT)
