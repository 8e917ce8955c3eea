"""Retention: idle conversations are archived, and expired trash is purged."""

import json
import signal
import time
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import CommandError, call_command

from conversation_service import clock
from conversations import documents
from conversations.jobs import retention
from tests.conversations.admin.browser import staff, url_of
from tests.factories import PATH, conversation
from tests.running import started
from tests.validators import rejecting_updates

DAY = timedelta(days=1)


@pytest.fixture
def thirty_days(settings):
    settings.RETENTION_ARCHIVE_IDLE_DAYS = 30


def store(mongo, *idle_days, **fields):
    """Insert conversations of alice with their last activity the given number of days ago."""
    rows = []
    for days in idle_days:
        row = documents.new(user_id="alice", character_id="luna", now=clock.now() - days * DAY)
        rows.append(row | fields)
    mongo["conversations"].insert_many(rows)
    return [str(row["_id"]) for row in rows]


def trashed(mongo, *days_past):
    """Insert trashed conversations that were due the given number of days ago."""
    return [
        store(
            mongo,
            40,
            status="deleted",
            previous_status="active",
            deleted_at=clock.now() - 40 * DAY,
            purge_at=clock.now() - days * DAY,
        )[0]
        for days in days_past
    ]


def run(capsys, command, **options):
    capsys.readouterr()
    call_command(command, **options)
    return capsys.readouterr().out


END = datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)


@pytest.mark.parametrize("days", [1, 30, 4_000_000, 10**10])
@pytest.mark.parametrize("last_activity", [END, END - timedelta(days=20)])
def test_an_activity_in_the_year_9999_is_read_everywhere(
    alice, mongo, settings, last_activity, days
):
    settings.RETENTION_ARCHIVE_IDLE_DAYS = days
    far = {"policy": "archive_idle", "acts_at": "9999-12-31T23:59:59.999Z"}
    created = conversation(alice, "pinned")
    mongo["conversations"].update_one({}, {"$set": {"metadata.last_activity": last_activity}})
    one = f"{PATH}/{created['id']}"

    unpinned = alice.post(f"{one}/unpin")
    read_ = alice.get(one).json()

    assert unpinned.status_code == 200
    assert read_ == unpinned.json()
    if last_activity == END or days > 20:
        assert read_["retention"] == far
    assert alice.get(PATH).json()["conversations"] == [read_]
    [latest] = alice.get(f"{PATH}/overview").json()["characters"]
    assert latest["latest"] == read_
    assert alice.get("/api/v1/changes").json()["changes"][0]["conversation"] == read_
    assert alice.get(f"{one}?as_of=1").status_code == 200
    line = json.loads(alice.get(f"{PATH}/export").getvalue().splitlines()[0])
    assert line["retention"] == read_["retention"]
    alice.delete(one)
    assert alice.post(f"{one}/restore").json()["retention"] == read_["retention"]
    page = staff(role="operator").get(url_of(created["id"]))
    assert page.status_code == 200


def read(client, id_):
    return client.get(f"{PATH}/{id_}").json()


def statuses(mongo):
    return sorted(row["status"] for row in mongo["conversations"].find())


# The resource


def test_a_conversation_shows_its_archive_time(alice, thirty_days, mongo):
    [id_] = store(mongo, 3)

    shown = read(alice, id_)

    idle_at = mongo["conversations"].find_one()["metadata"]["last_activity"] + 30 * DAY
    assert shown["retention"] == {
        "policy": "archive_idle",
        "acts_at": f"{idle_at.isoformat(timespec='milliseconds')}Z",
    }
    [listed] = alice.get(PATH, {"fields": "retention"}).json()["conversations"]
    assert listed == {"id": id_, "retention": shown["retention"]}


def test_pinned_and_archived_conversations_have_no_archive_time(alice, thirty_days):
    assert conversation(alice, "pinned")["retention"] is None
    assert conversation(alice, "archived")["retention"] is None


def test_without_a_policy_there_is_no_archive_time(alice):
    assert conversation(alice)["retention"] is None


def test_a_trashed_conversation_shows_its_purge_time(alice):
    created = conversation(alice, "deleted")

    assert created["retention"] == {"policy": "purge", "acts_at": created["purge_at"]}
    restored = alice.post(f"{PATH}/{created['id']}/restore").json()
    assert restored["retention"] is None


def test_an_old_version_shows_its_own_retention(alice):
    created = conversation(alice, "deleted")

    then = alice.get(f"{PATH}/{created['id']}", {"as_of": 1}).json()

    assert then["retention"] is None


# Archive idle conversations


def test_only_idle_conversations_are_archived(alice, mongo, capsys, thirty_days):
    idle, fresh = store(mongo, 31, 29)
    [pinned] = store(mongo, 31, pinned_at=clock.now())
    [held] = store(mongo, 31, hold={"by": "ops", "reason": "x", "at": clock.now()})
    before = read(alice, idle)

    assert run(capsys, "apply_retention") == "Idle: 1 archived.\n"

    after = read(alice, idle)
    assert (after["status"], after["version"]) == ("archived", 2)
    assert after["metadata"]["last_activity"] == before["metadata"]["last_activity"]
    assert [read(alice, id_)["status"] for id_ in (fresh, pinned, held)] == ["active"] * 3
    [revision] = alice.get(f"{PATH}/{idle}/history").json()["revisions"]
    assert revision["by"] == "service:retention"
    assert alice.post(f"{PATH}/{idle}/restore").json()["status"] == "active"


def test_with_zero_days_nothing_is_archived(mongo, capsys):
    store(mongo, 5000)

    printed = run(capsys, "apply_retention")

    assert printed.startswith("RETENTION_ARCHIVE_IDLE_DAYS is 0")
    assert statuses(mongo) == ["active"]


def test_a_dry_run_prints_the_exact_result(mongo, capsys, thirty_days):
    ids = store(mongo, *range(60, 10, -1))
    store(mongo, 40, pinned_at=clock.now())
    before = list(mongo["conversations"].find())

    *lines, last = run(
        capsys, "apply_retention", dry_run=True, json=True, batch_size=7
    ).splitlines()
    again = run(capsys, "apply_retention", dry_run=True)

    assert list(mongo["conversations"].find()) == before
    previewed = [json.loads(line)["id"] for line in lines]
    assert previewed == ids[: len(previewed)]
    assert json.loads(last) == {
        "due": 31,
        "archived": 0,
        "dry_run": True,
        "finished": True,
    }
    assert again.splitlines()[-1] == "Idle: 31 to archive."
    run(capsys, "apply_retention", batch_size=7)
    archived = mongo["conversations"].find({"status": "archived"})
    assert sorted(str(row["_id"]) for row in archived) == sorted(previewed)


def test_a_conversation_with_a_new_message_is_not_archived(mongo, thirty_days):
    store(mongo, 40, 40)
    job = retention.idle_job()
    rows = list(job.each(10))
    one = mongo["conversations"].find_one({"_id": rows[0]["_id"]})
    mongo["conversations"].update_one(
        {"_id": one["_id"]}, {"$set": {"metadata.last_activity": clock.now()}}
    )

    assert job.apply_to(rows) == 1
    assert mongo["conversations"].find_one({"_id": one["_id"]})["status"] == "active"
    assert statuses(mongo) == ["active", "archived"]


def test_a_conversation_that_the_validator_rejects_does_not_stop_a_run(mongo, capsys, thirty_days):
    store(mongo, 40, 40, 40)
    [rejected] = store(mongo, 41, title="stuck")

    with rejecting_updates(mongo, title="stuck"):
        printed = run(capsys, "apply_retention")

    assert printed == "Idle: 3 archived.\n"
    assert str(mongo["conversations"].find_one({"status": "active"})["_id"]) == rejected


# Purge the trash


def test_expired_trash_is_purged(alice, mongo, capsys):
    past, present = trashed(mongo, 1, -1)
    young = conversation(alice, "deleted")

    printed = run(capsys, "purge_trash")

    assert printed == "Trash: 1 purged, 0 kept by a legal hold.\n"
    [left] = mongo["conversations"].find({"status": "purged"})
    assert str(left["_id"]) == past
    assert left.keys() == {"_id", "user_id", "status", "changed_at", "expires_at", "mark"}
    assert read(alice, present)["status"] == read(alice, young["id"])["status"] == "deleted"


def test_a_dry_run_counts_and_purges_nothing(mongo, capsys):
    trashed(mongo, *range(1, 6))
    before = list(mongo["conversations"].find())

    printed = run(capsys, "purge_trash", dry_run=True, json=True)

    assert json.loads(printed) == {
        "due": 5,
        "purged": 0,
        "held": 0,
        "dry_run": True,
        "finished": True,
    }
    assert list(mongo["conversations"].find()) == before


def test_many_conversations_are_purged_in_batches(mongo, capsys):
    trashed(mongo, *[1] * 10, *range(1, 11))
    at = clock.now() - DAY
    mongo["conversations"].update_many({}, {"$set": {"purge_at": at}})

    printed = run(capsys, "purge_trash", json=True, batch_size=3)

    assert json.loads(printed)["purged"] == 20
    assert json.loads(run(capsys, "purge_trash", json=True))["purged"] == 0


@pytest.mark.parametrize("command", ["purge_trash", "apply_retention"])
def test_a_batch_size_of_zero_is_rejected(command):
    with pytest.raises(CommandError):
        call_command(command, "--batch-size=0")


@pytest.mark.parametrize("command", ["purge_trash", "apply_retention"])
def test_ctrl_c_keeps_the_work_and_the_next_run_continues(mongo, command):
    count = 3000
    fields = (
        {"status": "deleted", "deleted_at": clock.now() - DAY, "purge_at": clock.now() - DAY}
        if command == "purge_trash"
        else {}
    )
    store(mongo, *[40] * count, **fields)
    done = "purged" if command == "purge_trash" else "archived"

    stopped = started(mongo, command, "--json", "--batch-size=1")
    while not mongo["conversations"].count_documents({"status": done}):
        assert stopped.poll() is None, stopped.communicate()
        time.sleep(0.01)
    stopped.send_signal(signal.SIGINT)
    out, err = stopped.communicate(timeout=60)
    number = mongo["conversations"].count_documents({"status": done})

    assert stopped.returncode == 4, err
    assert "Stopped; run it again to go on." in err
    assert json.loads(out)[done] == number
    assert 0 < number < count
    again = started(mongo, command, "--json")
    assert json.loads(again.communicate(timeout=60)[0])[done] == count - number
    assert again.returncode == 0
    assert statuses(mongo) == [done] * count


# Cost


def test_each_run_reads_only_due_conversations_by_an_index(mongo, commands, capsys, thirty_days):
    store(mongo, *range(60))
    store(mongo, *range(60), pinned_at=clock.now())
    trashed(mongo, *range(-30, 30))
    commands.clear()
    call_command("apply_retention", dry_run=True)
    call_command("purge_trash")

    finds = [command for command in commands if "find" in command]
    assert len(finds) == 2
    for sent in finds:
        names = ("find", "filter", "sort", "limit", "projection", "hint")
        explained = {name: sent[name] for name in names if name in sent}
        plan = mongo.command("explain", explained, verbosity="executionStats")
        assert "SORT" not in json.dumps(plan["queryPlanner"]["winningPlan"], default=str)
        assert plan["executionStats"]["totalDocsExamined"] <= 31


def test_the_planner_finds_these_indexes_without_a_hint(mongo, thirty_days):
    store(mongo, *range(60))
    trashed(mongo, *range(-30, 30))
    for job in (retention.idle_job(), retention.trash_job()):
        plan = mongo["conversations"].find(job.due).sort(job.time_path).explain()
        assert job.index in json.dumps(plan["queryPlanner"]["winningPlan"], default=str)
