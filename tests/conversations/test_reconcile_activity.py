import json
import signal
import time
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from bson import ObjectId
from django.core.management import CommandError, call_command

from conversation_service.commands import Unfinished
from conversations.writes.activity import rows_to_reconcile
from tests.conversation_service import loopback
from tests.factories import PATH, conversation
from tests.running import started

STATS = {
    "message_count": 3,
    "total_tokens": 30,
    "total_input_tokens": 10,
    "total_output_tokens": 20,
    "first_message_at": "2020-01-01T10:00:00Z",
    "last_message_at": "2020-01-01T11:00:00+00:00",
}


class Messages:
    """Message with statistics of some conversations; it fails after `breaks_after` requests."""

    def __init__(self):
        self.stats = {}
        self.received = []
        self.breaks_after = 1000
        self.before = lambda: None

    def __call__(self, channel):
        self.before()
        head = channel.recv(65_536).decode()
        id_ = head.split(" ")[1].split("/")[-2]
        self.received.append(id_)
        assert "Authorization: Bearer " in head
        if len(self.received) > self.breaks_after:
            loopback.write(channel, b"", status="500 Internal Server Error")
        elif id_ in self.stats:
            loopback.write(channel, json.dumps(self.stats[id_]).encode())
        else:
            loopback.write(channel, b"{}", status="404 Not Found")


@pytest.fixture
def messages(settings):
    served = Messages()
    with loopback.serving(served) as address:
        settings.MESSAGE_SERVICE_URL = f"http://{address}/{uuid4()}"
        yield served


def metadata(client, created):
    return client.get(f"{PATH}/{created['id']}").json()["metadata"]


def test_batches_end_before_their_cursor_expires(mongo):
    """MongoDB closes a cursor that is idle for 10 minutes: 600 rows at one request a second."""
    call_command("seed_demo", conversations=350, verbosity=0)
    rows = rows_to_reconcile(ObjectId(bytes(12)), "")

    for _ in range(201):
        next(rows)

    assert rows.cursor_id  # the rest has not been sent
    assert len([*rows]) == 149


def test_differing_totals_are_repaired(alice, bob, messages, capsys):
    wrong, right, unknown = conversation(alice), conversation(bob), conversation(alice)
    messages.stats = {wrong["id"]: STATS, right["id"]: STATS}
    call_command("reconcile_activity", user="bob", rate=1000)

    call_command("reconcile_activity", rate=1000)

    assert capsys.readouterr().out == (
        "Conversations: 1 repaired.\nConversations: 1 right, 1 repaired, 1 unknown to Message.\n"
    )
    repaired = metadata(alice, wrong)
    assert repaired["message_count"] == 3
    assert repaired["last_message_at"] == "2020-01-01T11:00:00.000Z"
    assert repaired["last_activity"] == wrong["metadata"]["created_at"]
    assert alice.get(f"{PATH}/{wrong['id']}").json()["version"] == 1
    assert metadata(alice, unknown) == unknown["metadata"]


FAR = datetime(2099, 1, 1, tzinfo=UTC)


def test_a_last_activity_in_the_future_is_repaired(alice, mongo, messages, capsys):
    created = conversation(alice)
    other = conversation(alice)
    messages.stats = {created["id"]: STATS}
    call_command("reconcile_activity")
    mongo["conversations"].update_one(
        {"_id": ObjectId(created["id"])},
        {"$set": {"metadata.last_activity": FAR, "metadata.created_at": datetime(2019, 1, 1)}},  # noqa: DTZ001
    )
    capsys.readouterr()

    call_command("reconcile_activity")

    assert capsys.readouterr().out == "Conversations: 1 repaired, 1 unknown to Message.\n"
    assert metadata(alice, created)["last_activity"] == "2020-01-01T11:00:00.000Z"
    assert [row["id"] for row in alice.get(PATH).json()["conversations"]] == [
        other["id"],
        created["id"],
    ]


@pytest.mark.parametrize(
    ("stored", "known", "after"),
    [
        (2**53 - 1, None, 0),
        (int(FAR.timestamp() * 1e6), None, 0),
        (1_900_000_000_000, None, 1_900_000_000_000),  # a time in milliseconds
        (1_900_000_000_000, 7, 7),
        (2**53 - 1, 7, 7),
        (5, 7, 5),  # a report is on its way
    ],
)
def test_a_sequence_above_that_of_message_is_repaired(alice, mongo, messages, stored, known, after):
    created = conversation(alice)
    messages.stats = {created["id"]: STATS | ({} if known is None else {"sequence": known})}
    mongo["conversations"].update_one({}, {"$set": {"activity_sequence": stored}})

    call_command("reconcile_activity", dry_run=True)
    [before] = mongo["conversations"].distinct("activity_sequence")
    call_command("reconcile_activity")

    assert before == stored
    assert mongo["conversations"].distinct("activity_sequence") == [after]


def test_statistics_from_the_future_are_not_stored(alice, messages, capsys):
    created = conversation(alice)
    messages.stats = {created["id"]: STATS | {"last_message_at": "2099-01-01T00:00:00Z"}}

    call_command("reconcile_activity")

    assert capsys.readouterr().out == "Conversations: 1 in the future.\n"
    assert metadata(alice, created) == created["metadata"]


def test_a_dry_run_repairs_nothing(alice, messages, capsys):
    created = conversation(alice)
    messages.stats = {created["id"]: STATS}

    call_command("reconcile_activity", dry_run=True)

    assert capsys.readouterr().out == "Conversations: 1 to repair.\n"
    assert metadata(alice, created) == created["metadata"]


def test_a_report_that_arrives_meanwhile_is_not_overwritten(alice, mongo, messages):
    created = conversation(alice)
    messages.stats = {created["id"]: STATS}
    report = {"activity_sequence": 5, "metadata.message_count": 9}
    messages.before = lambda: mongo["conversations"].update_one({}, {"$set": report})

    call_command("reconcile_activity")

    assert metadata(alice, created)["message_count"] == 9


def test_an_aborted_run_prints_the_id_to_resume(alice, messages, capsys):
    created = [conversation(alice) for _ in range(4)]
    messages.breaks_after = 2

    with pytest.raises(Unfinished, match=f"--after {created[1]['id']}"):
        call_command("reconcile_activity", rate=1000)

    printed = capsys.readouterr()
    assert printed.out == "Conversations: 2 unknown to Message.\n"


def test_a_run_resumes_after_an_id(alice, messages):
    created = [conversation(alice) for _ in range(4)]

    call_command("reconcile_activity", f"--after={created[1]['id']}", rate=1000)

    assert messages.received == [created[2]["id"], created[3]["id"]]


@pytest.mark.parametrize("option", ["--after=x", "--rate=0"])
def test_bad_options_are_rejected(option):
    with pytest.raises(CommandError, match=option[:5]):
        call_command("reconcile_activity", option)


def test_ctrl_c_keeps_repairs_and_json_has_the_id_to_resume(alice, mongo, messages, settings):
    created = [conversation(alice) for _ in range(6)]
    messages.stats = {one["id"]: STATS for one in created}
    running = {"MESSAGE_SERVICE_URL": settings.MESSAGE_SERVICE_URL}

    stopped = started(mongo, "reconcile_activity", "--rate=2", "--json", **running)
    while len(messages.received) < 2:
        assert stopped.poll() is None, stopped.communicate()
        time.sleep(0.01)
    stopped.send_signal(signal.SIGTERM)
    out, err = stopped.communicate(timeout=60)

    assert stopped.returncode == 4, err
    first = json.loads(out)
    assert first["finished"] is False
    again = started(mongo, "reconcile_activity", f"--after={first['after']}", "--json", **running)
    second = json.loads(again.communicate(timeout=60)[0])
    assert (again.returncode, second["finished"]) == (0, True)
    assert first["repaired"] + second["repaired"] == len(created)
    assert messages.received == [one["id"] for one in created]
