"""The character of a conversation: its check, its name, and an unavailable upstream."""

import json
import signal
import time
from contextlib import contextmanager
from uuid import uuid4

import pytest
from django.core.management import call_command

from conversation_service.commands import Unfinished
from conversations.writes import characters as verifying
from tests.conversation_service import loopback
from tests.factories import PATH, NewConversation, conversation
from tests.running import started
from tests.validators import rejecting_updates

LUNA = {"id": "luna", "name": "Luna", "description": "A night owl."}


def characters(*known):
    """Respond like Characters with these characters."""
    by_path = {f"/api/v1/characters/{c['id']}": json.dumps(c).encode() for c in known}

    def talk(channel):
        path = channel.recv(65_536).decode().split(" ")[1]
        body = next((body for end, body in by_path.items() if path.endswith(end)), None)
        if body is None:
            loopback.write(channel, b"{}", status="404 Not Found")
        else:
            loopback.write(channel, body)

    return talk


@contextmanager
def served(settings, talk, check="strict"):
    """Use this server as Characters, at a new address, as responses are cached by address."""
    settings.CHARACTER_CHECK = check
    with loopback.serving(talk) as address:
        settings.CHARACTERS_SERVICE_URL = f"http://{address}/{uuid4()}"
        yield


@pytest.fixture
def down(settings):
    settings.CHARACTERS_SERVICE_URL = f"http://{loopback.closed_port()}/{uuid4()}"


def test_an_existing_character_verifies_and_titles_the_conversation(alice, settings):
    with served(settings, characters(LUNA)):
        created = conversation(alice, character_id="luna", title=None)

    assert (created["title"], created["title_source"]) == ("Luna", "auto")
    assert created["character_status"] == "verified"


def test_a_given_title_is_kept(alice, settings):
    with served(settings, characters(LUNA)):
        assert conversation(alice, character_id="luna", title="Mine")["title"] == "Mine"


@pytest.mark.parametrize("check", ["strict", "lenient"])
def test_an_unknown_character_is_rejected(alice, settings, check):
    with served(settings, characters(LUNA), check):
        response = alice.post(PATH, NewConversation(character_id="unknown"))

    assert response.status_code == 422
    error = response.json()["error"]
    assert error["code"] == "CHARACTER_NOT_EXISTS"
    assert error["details"] == {"character_id": "unknown"}
    assert alice.get(PATH).json()["conversations"] == []


def test_while_characters_is_down_strict_creates_are_rejected(alice, settings, down):
    settings.CHARACTER_CHECK = "strict"

    response = alice.post(PATH, NewConversation())

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "CHARACTER_SERVICE_UNAVAILABLE"
    assert int(response.headers["Retry-After"]) >= 1


def test_while_characters_is_down_lenient_creates_succeed(alice, settings, down):
    settings.CHARACTER_CHECK = "lenient"

    created = conversation(alice, character_id="luna", title=None)

    assert (created["title"], created["character_status"]) == ("luna", "unverified")


def test_a_replay_needs_no_character_lookup(alice, settings, down):
    existing = conversation(alice, character_id="luna")
    headers = {"Idempotency-Key": "k"}
    body = NewConversation(character_id="sol")
    first = alice.post(PATH, body, headers=headers)
    settings.CHARACTER_CHECK = "strict"

    found = alice.post(f"{PATH}?get_or_create=character", {"character_id": "luna"})
    again = alice.post(PATH, body, headers=headers)

    assert found.json() == existing
    assert again.content == first.content


@pytest.mark.parametrize("name", ["", " \n", "\u0001\u0002"])
def test_a_character_without_a_name_is_503(alice, settings, name):
    with served(settings, characters(LUNA | {"name": name})):
        response = alice.post(PATH, NewConversation(character_id="luna"))

    assert response.status_code == 503


@pytest.mark.parametrize("where", ["name", "description"])
def test_a_lone_surrogate_in_a_character_is_503(alice, settings, where):
    with served(settings, characters(LUNA | {where: "\ud800 x"})):
        assert alice.post(PATH, NewConversation(character_id="luna")).status_code == 503


@pytest.mark.parametrize("name", ["  Luna\n la\tbuena ", "x" * 500, "Lu\0na"])
def test_a_name_of_any_form_gives_a_valid_title(alice, settings, name):
    with served(settings, characters(LUNA | {"name": name})):
        created = conversation(alice, character_id="luna", title=None)

    assert created["title"] in {"Luna la buena", "x" * 200, "Luna"}


def test_include_character_adds_the_character(alice, settings):
    created = conversation(alice, character_id="luna")
    path = f"{PATH}/{created['id']}"

    with served(settings, characters(LUNA)):
        included = alice.get(path, {"include": "character"}).json()

    assert included == created | {"character": LUNA}


def test_include_character_is_null_without_the_upstream(alice, settings, down):
    created = conversation(alice, character_id="luna")

    response = alice.get(f"{PATH}/{created['id']}", {"include": "character"})

    assert response.json() == created | {"character": None}


def test_a_copy_has_everything_but_the_messages(alice, mongo):
    original = conversation(
        alice, "pinned", title=None, tags=["A"], custom={"k": "v"}, settings={"top_p": 0}
    )
    mongo["conversations"].update_one({}, {"$set": {"metadata.message_count": 7}})

    response = alice.post(f"{PATH}/{original['id']}/duplicate")

    copy = response.json()
    assert response.status_code == 201
    assert response.headers["Location"] == f"{PATH}/{copy['id']}"
    for name in ("character_id", "title", "title_source", "settings", "tags", "custom"):
        assert copy[name] == original[name]
    assert copy["forked_from"] == original["id"]
    assert (copy["pinned_at"], copy["version"], copy["metadata"]["message_count"]) == (None, 1, 0)
    assert alice.get(PATH, {"tags": "a"}).json()["pagination"]["total_count"] == 2


def test_a_copy_may_have_its_own_title(alice):
    original = conversation(alice, "archived", title=None)

    copy = alice.post(f"{PATH}/{original['id']}/duplicate", {"title": "Copy"}).json()

    assert (copy["title"], copy["title_source"], copy["status"]) == ("Copy", "user", "active")


def test_a_duplicate_sent_twice_is_created_once(alice):
    path = f"{PATH}/{conversation(alice)['id']}/duplicate"
    headers = {"Idempotency-Key": "k"}

    first, again = (alice.post(path, {}, headers=headers) for _ in range(2))

    assert again.content == first.content
    assert again.headers["Idempotency-Replayed"] == "true"


def test_the_character_of_a_duplicate_must_exist(alice, settings):
    original = conversation(alice, character_id="unknown")

    with served(settings, characters(LUNA)):
        response = alice.post(f"{PATH}/{original['id']}/duplicate")

    assert response.status_code == 422


def test_a_trashed_conversation_is_not_duplicated(alice):
    trashed = conversation(alice, "deleted")

    assert alice.post(f"{PATH}/{trashed['id']}/duplicate").status_code == 409


def test_a_quota_is_kept(alice, bob, settings):
    settings.MAX_CONVERSATIONS_PER_USER = 2
    first = conversation(alice)
    conversation(alice, "archived")

    response = alice.post(PATH, NewConversation())

    assert response.status_code == 403
    error = response.json()["error"]
    assert (error["code"], error["details"]) == ("QUOTA_EXCEEDED", {"limit": 2})
    conversation(bob)
    alice.delete(f"{PATH}/{first['id']}")
    conversation(alice)


def test_characters_can_be_verified_later(alice, bob, settings, capsys):
    automatic = conversation(alice, character_id="luna", title=None)
    named = conversation(bob, "deleted", character_id="luna", title="Mine")
    missing = conversation(alice, character_id="unknown", title=None)

    with served(settings, characters(LUNA)):
        call_command("verify_characters")

    after = alice.get(f"{PATH}/{automatic['id']}").json()
    assert (after["character_status"], after["title"], after["version"]) == ("verified", "Luna", 2)
    theirs = bob.get(f"{PATH}/{named['id']}").json()
    assert (theirs["character_status"], theirs["title"]) == ("verified", "Mine")
    gone = alice.get(f"{PATH}/{missing['id']}").json()
    assert (gone["character_status"], gone["title"]) == ("missing", "unknown")
    assert "verified 2, missing 1" in capsys.readouterr().out
    revision = alice.get(f"{PATH}/{automatic['id']}/history").json()["revisions"][0]
    assert revision["by"] == "service:verify_characters"


def test_verifying_has_a_dry_run(alice, bob, settings, capsys):
    created = [
        conversation(alice, character_id="luna"),
        conversation(alice, "deleted", character_id="luna"),
        conversation(alice, character_id="unknown"),
    ]
    purged = conversation(bob, "deleted", character_id="luna")
    bob.delete(f"{PATH}/{purged['id']}?mode=purge")

    with served(settings, characters(LUNA)):
        call_command("verify_characters", dry_run=True)
        dry_run = capsys.readouterr().out
        unchanged = [alice.get(f"{PATH}/{one['id']}").json() for one in created]
        call_command("verify_characters")

    assert unchanged == created
    assert {"luna: verified, conversations: 2", "unknown: missing, conversations: 1"} <= {
        *dry_run.splitlines()
    }
    assert "verified 2, missing 1; a dry run, nothing changed." in dry_run
    assert "verified 2, missing 1." in capsys.readouterr().out


@pytest.mark.parametrize("batch", [1, 200])
def test_a_conversation_that_the_validator_rejects_does_not_stop_verifying(
    alice, mongo, settings, capsys, monkeypatch, batch
):
    monkeypatch.setattr(verifying, "BATCH", batch)
    stuck, free = (conversation(alice, character_id="luna", title=title) for title in "ab")

    with rejecting_updates(mongo, title="a"), served(settings, characters(LUNA)):
        call_command("verify_characters")

    assert "verified 1, missing 0." in capsys.readouterr().out
    statuses = [
        alice.get(f"{PATH}/{created['id']}").json()["character_status"] for created in (stuck, free)
    ]
    assert statuses == ["unverified", "verified"]


def test_verifying_gives_up_while_characters_is_down(alice, settings, down, capsys):
    created = conversation(alice, character_id="luna")

    with pytest.raises(Unfinished, match="Characters is unavailable"):
        call_command("verify_characters")

    assert alice.get(f"{PATH}/{created['id']}").json() == created


def test_ctrl_c_keeps_the_verified_part(alice, mongo, settings):
    names = [f"someone-{number}" for number in range(6)]
    for name in names:
        conversation(alice, character_id=name)
    received = []

    def slowly(channel):
        received.append(channel.recv(65_536))
        time.sleep(0.3)
        loopback.write(channel, b"{}", status="404 Not Found")

    with served(settings, slowly):
        address = {"CHARACTERS_SERVICE_URL": settings.CHARACTERS_SERVICE_URL}
        stopped = started(mongo, "verify_characters", "--json", **address)
        while len(received) < 2:
            assert stopped.poll() is None, stopped.communicate()
            time.sleep(0.01)
        stopped.send_signal(signal.SIGINT)
        out, err = stopped.communicate(timeout=60)
        again = started(mongo, "verify_characters", "--json", **address)
        rest = json.loads(again.communicate(timeout=60)[0])

    first = json.loads(out)
    assert stopped.returncode == 4, err
    assert "Stopped; run it again to go on." in err
    assert (first["missing"], first["finished"]) == (2, False)
    assert (rest["missing"], rest["finished"], again.returncode) == (4, True, 0)
    assert len(received) == len(names)
