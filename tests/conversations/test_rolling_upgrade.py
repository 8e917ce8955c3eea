"""A rolling upgrade from release 0.1.0 and the rollback to it, on one database, over HTTP.

The steps are those of docs/deployment.md, "Rolling upgrade and rollback across a schema change".
`tests/data/0.1.0/code.tar.gz` holds the code of that release.
"""

import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
import requests
from bson import ObjectId
from pymongo import MongoClient
from pymongo.database import Database

from config.env import env
from conversation_service.tokens import service_token
from conversations import limits
from conversations.declaration import declarations
from conversations.models import Conversation, LLMSettings, Metadata
from conversations.writes.bulk import STEP
from tests.config.processes import environment
from tests.config.test_gunicorn import serving
from tests.conversations.test_failover import Client
from tests.conversations.test_internal import AUTHORIZE, report
from tests.conversations.test_release_0_1_0 import DATA, EXPORTED
from tests.factories import PATH, WIDE_NAMES, token

NAME = "rolling_upgrade"
CHANGES = "/api/v1/changes"
NDJSON = {"Content-Type": "application/x-ndjson"}
WIDE_ID = "auth0|5f7c8ec7c33c6c004bbafe82"  # 0.1.0 rejects it
VARIABLES = {
    "DJANGO_SETTINGS_MODULE": "config.settings.test",
    "MONGODB_DATABASE": NAME,
}
APPLY_SCHEMA = """
import django
from django.core.management import call_command

django.setup()
call_command("migrate", verbosity=0, interactive=False)
call_command("setup_indexes")
"""
LATER_FIELDS = {
    name
    for model in (Conversation, LLMSettings, Metadata)
    for name, field in declarations(model).items()
    if field.since
}
numbers = count()


@dataclass
class Pod:
    """One server of a release."""

    address: str
    log: Path

    def user(self, user_id: str) -> Client:
        return Client(self.address, token(user_id))

    def service(self) -> Client:
        scopes = "conversations:activity conversations:authorize"
        return Client(self.address, service_token("message", scopes))


@dataclass
class Release:
    """The code of one release in a folder."""

    folder: Path
    logs: Path

    def apply_schema(self) -> str:
        """Run `migrate` and `setup_indexes`, and return the output."""
        return subprocess.check_output(
            [sys.executable, "-c", APPLY_SCHEMA],
            cwd=self.folder,
            env=environment(**VARIABLES),
            text=True,
        )

    @contextmanager
    def pod(self) -> Iterator[Pod]:
        """Run a pod until the end. Its log must name no failed request."""
        log = self.logs / f"log-{next(numbers)}"
        with serving(log, "config.wsgi:application", folder=self.folder, **VARIABLES) as server:
            yield Pod(f"http://127.0.0.1:{server.port}", log)
        assert "Traceback" not in log.read_text()


@dataclass
class Rollout:
    """A pod of each release on one database."""

    former: Release
    current: Release
    old: Pod
    new: Pod
    database: Database


@pytest.fixture(scope="module")
def rollout(django_db_setup, tmp_path_factory) -> Iterator[Rollout]:
    """Upgrade: the previous release, the new schema, then a pod of this release beside it."""
    folder, logs = tmp_path_factory.mktemp("0.1.0"), tmp_path_factory.mktemp("logs")
    with tarfile.open(DATA / "code.tar.gz") as code:
        code.extractall(folder, filter="data")
    former, current = Release(folder, logs), Release(Path.cwd(), logs)
    with MongoClient[dict[str, Any]](env("MONGODB_URL")) as client:
        client.drop_database(f"test_{NAME}")
        former.apply_schema()
        with former.pod() as old:
            use_everything(old, "before")
            assert "changed   conversations  validator" in current.apply_schema()
            use_everything(old, "before")
            with current.pod() as new:
                yield Rollout(former, current, old, new, client[f"test_{NAME}"])
        client.drop_database(f"test_{NAME}")


@pytest.fixture(params=["old pod first", "new pod first"])
def pods(rollout, request) -> tuple[Pod, Pod]:
    """The pods in either order: one writes, and the other continues."""
    pods = (rollout.old, rollout.new)
    return pods if request.param == "old pod first" else pods[::-1]


@pytest.fixture
def user_id() -> str:
    """A user without conversations."""
    return f"user-{next(numbers)}"


def done(response: requests.Response, status: int = 200) -> requests.Response:
    assert response.status_code == status, response.text
    return response


def new_key() -> dict[str, str]:
    return {"Idempotency-Key": f"key-{next(numbers)}"}


def import_lines(user: Client, lines: list[dict[str, Any]]) -> set[int]:
    """Import lines and return the status of each result."""
    body = "\n".join(map(json.dumps, lines)).encode()
    *results, _end = done(user.send("POST", f"{PATH}/import", body, **NDJSON)).content.splitlines()
    return {json.loads(result)["status"] for result in results}


def export(user: Client) -> list[dict[str, Any]]:
    *lines, end = done(user.send("GET", f"{PATH}/export")).content.splitlines()
    assert json.loads(end) == {"object": "end", "count": len(lines)}
    return [json.loads(line) for line in lines]


def next_cursor(page: dict[str, Any]) -> str:
    return page.get("pagination", page)["next_cursor"]


def pages(user: Client, path: str, key: str, cursor: str = "") -> list[Any]:
    """Return the items of all pages, or of those after a cursor."""
    items = []
    while True:
        page = done(user.send("GET", f"{path}&cursor={cursor}" if cursor else path)).json()
        items += page[key]
        cursor = next_cursor(page)
        if not (cursor and page[key]):
            return items


def without_later_fields(value: Any) -> Any:
    """Return a JSON value without the fields that 0.1.0 does not know."""
    if isinstance(value, dict):
        return {n: without_later_fields(v) for n, v in value.items() if n not in LATER_FIELDS}
    return [without_later_fields(v) for v in value] if isinstance(value, list) else value


def everything(user: Client) -> dict[str, Any]:
    """Return all that a pod shows to a user, without the fields that 0.1.0 does not know."""
    rows = {
        f"{status}, {sort}": pages(
            user, f"{PATH}?status={status}&sort={sort}&limit=3", "conversations"
        )
        for status in ("all", "deleted")
        for sort in ("last_activity", "title")
    }
    for row in rows["all, title"]:
        assert done(user.send("GET", f"{PATH}/{row['id']}")).json() == row
    overview = done(user.send("GET", f"{PATH}/overview")).json()
    for depends_on_now in ("generated_at", "sync_cursor"):
        del overview[depends_on_now]
    found = rows | {
        "export": export(user),
        "changes": pages(user, f"{CHANGES}?limit=3", "changes"),
        "overview": overview,
        "tags": done(user.send("GET", "/api/v1/tags")).json(),
        "summary": done(user.send("GET", f"{PATH}/summary")).json()["statistics"],
        "search": pages(user, f"{PATH}?search=title&status=all&limit=3", "conversations"),
    }
    assert found["search"] or not found["export"]
    return cast(dict[str, Any], without_later_fields(found))


def assert_both_show_the_same(old: Pod, new: Pod, user_id: str) -> None:
    """Check that 0.1.0 lacks only revisions up to the last update of this release."""
    at_old, at_new = (everything(pod.user(user_id)) for pod in (old, new))
    for old_line, new_line in zip(at_old["export"], at_new["export"], strict=True):
        revisions = old_line.pop("history")
        assert revisions == new_line.pop("history")[: len(revisions)]
    assert at_old == at_new


def edit(pod: Pod, user_id: str, conversation_id: str) -> None:
    """Edit an active conversation in each way. It is active afterwards."""
    user, path = pod.user(user_id), f"{PATH}/{conversation_id}"
    read = done(user.send("GET", path))
    version = read.json()["version"]
    patch = {
        "title": f"Title {version}",
        "tags_add": [f"tag {version}"],
        "custom": {"version": f"{version}"},
        "settings": {"top_p": 0.5, "stop_sequences": [f"{version}"]},
    }
    done(user.send("PATCH", path, patch, If_Match=read.headers["ETag"], **new_key()))
    done(user.send("PATCH", path, {"title": "Once more"}))
    then = done(user.send("GET", f"{path}?as_of={version}")).json()
    assert then["title"] == read.json()["title"]
    revert = {"version": version, "fields": ["title", "tags", "settings"]}
    assert done(user.send("POST", f"{path}/revert", revert)).json()["title"] == then["title"]
    for step in ("pin", "archive", "restore", "unpin"):
        done(user.send("POST", f"{path}/{step}"))
    for action in ("tag", "untag"):
        bulk = {"action": action, "tags": ["many"], "ids": [conversation_id]}
        assert done(user.send("POST", f"{PATH}/bulk", bulk)).json()["results"][0]["status"] == 200
    done(user.send("DELETE", path))
    done(user.send("POST", f"{path}/restore"))
    revisions = done(user.send("GET", f"{path}/history?limit=2")).json()
    older = f"{path}/history?limit=2&cursor={next_cursor(revisions)}"
    assert done(user.send("GET", older)).json()["revisions"]

    service = pod.service()
    activity = f"/internal/v1/conversations/{conversation_id}/activity"
    assert done(service.send("PUT", activity, report(version, 3))).json()["applied"]
    body = {"user_id": user_id, "ids": [conversation_id]}
    assert done(service.send("POST", AUTHORIZE, body)).json()["results"][0]["writable"]


def copy_and_end(pod: Pod, user_id: str, conversation_id: str) -> None:
    """Duplicate a conversation, put copies into the trash and purge them."""
    user, path = pod.user(user_id), f"{PATH}/{conversation_id}"
    copies = [
        done(user.send("POST", f"{path}/duplicate", {}, **new_key()), 201).json()["id"]
        for _ in range(3)
    ]
    done(user.send("PATCH", f"{PATH}/{copies[0]}", {"tags_add": ["a copy"]}))
    bulk = {"action": "trash", "filter": {"tags": ["a copy"]}}
    trashed = done(user.send("POST", f"{PATH}/bulk", bulk)).json()
    assert [result["id"] for result in trashed["results"]] == copies[:1]
    for copy in copies[1:]:
        done(user.send("DELETE", f"{PATH}/{copy}"))
    done(user.send("DELETE", f"{PATH}/{copies[1]}?mode=purge"), 204)


def use_everything(pod: Pod, user_id: str) -> None:
    """Send each kind of request, and leave conversations in each state."""
    user = pod.user(user_id)
    created = user.create(title="Title", tags=["Casual"], custom={"k": "v"})["id"]
    edit(pod, user_id, created)
    copy_and_end(pod, user_id, created)
    for steps in ("archive", "pin archive", "pin"):
        path = f"{PATH}/{user.create(title='Río, a title', tags=['Work'])['id']}"
        for step in steps.split():
            done(user.send("POST", f"{path}/{step}"))
    # 0.1.0 rejects a line with the change of a later field in its history.
    assert import_lines(user, [without_later_fields(line) for line in export(user)]) == {200}


@pytest.mark.parametrize("release", ["old", "new"])
def test_a_pod_shows_all_writes_of_the_other(rollout, user_id, release):
    use_everything(getattr(rollout, release), user_id)

    assert_both_show_the_same(rollout.old, rollout.new, user_id)


def test_both_pods_show_writes_from_before_the_upgrade(rollout):
    assert everything(rollout.new.user("before")) == everything(rollout.old.user("before"))


def test_a_pod_edits_duplicates_and_purges_conversations_of_the_other(rollout, pods, user_id):
    first, second = pods
    created = first.user(user_id).create(title="Title", tags=["Casual"])["id"]
    for pod in (first, second, first):
        edit(pod, user_id, created)
        copy_and_end(pod, user_id, created)

    [line] = [line for line in export(second.user(user_id)) if line["id"] == created]
    assert (line["title"], line["metadata"]["message_count"]) == ("Title", 3)
    assert_both_show_the_same(rollout.old, rollout.new, user_id)


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (f"{PATH}?limit=1", "conversations"),
        (f"{PATH}?limit=1&sort=title&order=asc", "conversations"),
        (f"{PATH}?limit=1&search=number", "conversations"),
        (f"{CHANGES}?limit=1", "changes"),
    ],
)
def test_a_pod_continues_at_a_cursor_of_the_other(pods, user_id, path, key):
    first, second = (pod.user(user_id) for pod in pods)
    for number in range(3):
        first.create(title=f"Number {number}")
    whole = pages(first, path, key)
    assert len(whole) >= 3

    page = done(first.send("GET", path)).json()

    found = page[key] + pages(second, path, key, next_cursor(page))
    assert without_later_fields(found) == without_later_fields(whole)


def test_a_pod_continues_at_a_cursor_of_the_others_history(rollout, pods, user_id):
    first, second = (pod.user(user_id) for pod in pods)
    path = f"{PATH}/{first.create(title='Number 0')['id']}"
    for number in range(1, 4):
        done(first.send("PATCH", path, {"title": f"Number {number}"}))

    start = done(first.send("GET", f"{path}/history?limit=1")).json()
    end = done(second.send("GET", f"{path}/history?cursor={next_cursor(start)}")).json()

    # A pod of 0.1.0 has no revisions up to the last update of this release.
    older = [3, 2] if pods[1] is rollout.new else []
    assert [r["version"] for r in start["revisions"] + end["revisions"]] == [4, *older]


def check_history(rollout: Rollout, user_id: str, path: str, titles: dict[int, str]) -> None:
    """Check the history of both pods against the title of each version."""
    newest = max(titles)
    oldest = max(1, newest - limits.REVISIONS)
    shown = {}
    for pod in (rollout.old, rollout.new):
        user = pod.user(user_id)
        revisions = done(user.send("GET", f"{path}/history?limit=50")).json()["revisions"]
        versions = [revision["version"] for revision in revisions]
        assert versions == [*range(newest, newest - len(versions), -1)]
        for revision in revisions:
            version = revision["version"]
            change = {"before": titles[version - 1], "after": titles[version]}
            assert revision["changes"]["title"] == change
        for version in {1, *range(oldest, newest + 1, 7), *range(max(1, newest - 2), newest + 1)}:
            then = user.send("GET", f"{path}?as_of={version}")
            if version >= newest - len(versions):
                assert done(then).json()["title"] == titles[version]
            else:
                assert done(then, 410).json()["error"]["details"]["oldest_version"] > version
        shown[pod.address] = versions
    assert shown[rollout.new.address] == [*range(newest, oldest, -1)]


def test_histories_stay_right_when_both_pods_edit_in_turns(rollout, user_id):
    """0.1.0 shows the revisions since the last update of this release, and rejects older ones."""
    old, new = rollout.old, rollout.new
    path = f"{PATH}/{new.user(user_id).create(title='Title 1')['id']}"
    titles = {1: "Title 1"}

    def rename(pod: Pod, times: int) -> None:
        for version in range(max(titles) + 1, max(titles) + 1 + times):
            titles[version] = f"Title {version}"
            headers = new_key() if version % 2 else {}
            patch = {"title": titles[version]}
            assert (
                done(pod.user(user_id).send("PATCH", path, patch, **headers)).json()["version"]
                == version
            )
        check_history(rollout, user_id, path, titles)

    def revert(pod: Pod, version: int, status: int = 200) -> None:
        body = {"version": version, "fields": ["title"]}
        done(pod.user(user_id).send("POST", f"{path}/revert", body), status)
        if status == 200:
            titles[max(titles) + 1] = titles[version]
        check_history(rollout, user_id, path, titles)

    for pod, times in ((old, 2), (new, 3), (old, 4), (new, 1), (old, 1), (new, 60), (old, 10)):
        rename(pod, times)
    newest = max(titles)
    revert(new, newest - 40)
    revert(old, newest - 40, 410)
    rename(old, 2)
    revert(old, max(titles) - 2)
    # After a rollback: more revisions than a conversation keeps, and then this release again.
    rename(old, 60)
    revert(new, max(titles) - 50)
    rename(new, 2)


@pytest.mark.parametrize("release", ["old", "new"])
def test_a_pod_keeps_the_fields_of_a_later_release(rollout, user_id, release):
    pod = getattr(rollout, release)
    id_ = ObjectId(pod.user(user_id).create(title="Title")["id"])
    conversations = rollout.database["conversations"]
    later = {"language": "es", "settings.model": "large"}
    conversations.update_one({"_id": id_}, {"$set": later})

    user, path = pod.user(user_id), f"{PATH}/{id_}"

    everything(user)
    done(user.send("PATCH", path, {"title": "New", "settings": {"temperature": 0.1}}))
    done(user.send("POST", f"{path}/revert", {"version": 1, "fields": ["title"]}))

    stored = conversations.find_one({"_id": id_})
    assert (stored["language"], stored["settings"]["model"]) == ("es", "large")


def test_a_client_that_syncs_with_both_misses_nothing(pods, user_id):
    users = [pod.user(user_id) for pod in pods]
    overview = done(users[0].send("GET", f"{PATH}/overview")).json()
    page = {"next_cursor": overview["sync_cursor"]}
    for turn in range(4):
        writer, reader = users[turn % 2], users[1 - turn % 2]
        created = writer.create()["id"]
        page = done(reader.send("GET", f"{CHANGES}?cursor={next_cursor(page)}")).json()
        assert created in [change["conversation"]["id"] for change in page["changes"]]
        done(writer.send("DELETE", f"{PATH}/{created}"))
        done(writer.send("DELETE", f"{PATH}/{created}?mode=purge"), 204)
        page = done(reader.send("GET", f"{CHANGES}?cursor={next_cursor(page)}")).json()
        assert ("deleted", created) in [(c["type"], c.get("id")) for c in page["changes"]]


def test_a_bulk_run_continues_at_the_other_pod(pods, user_id):
    first, second = (pod.user(user_id) for pod in pods)
    lines = [EXPORTED[0] | {"id": f"{number:024x}"} for number in range(STEP + 1)]
    assert import_lines(first, lines) == {201}
    bulk = {"action": "pin", "filter": {"status": "all"}}

    start = done(first.send("POST", f"{PATH}/bulk", bulk)).json()
    end = done(second.send("POST", f"{PATH}/bulk", bulk | {"cursor": start["next_cursor"]})).json()

    assert (len(start["results"]), len(end["results"])) == (STEP, 1)


def test_a_pod_replays_the_idempotent_requests_of_the_other(rollout, pods, user_id):
    first, second = (pod.user(user_id) for pod in pods)
    created = first.create(title="Title")["id"]
    cases = [
        ("POST", PATH, {"character_id": "luna", "title": "Title"}, 201),
        ("POST", f"{PATH}/{created}/duplicate", {}, 201),
    ]
    if pods[0] is rollout.old:  # which does not find the keys that this release stores at updates
        cases += [
            ("PATCH", f"{PATH}/{created}", {"title": "New"}, 200),
            ("POST", f"{PATH}/{created}/revert", {"version": 1, "fields": ["title"]}, 200),
        ]
    for method, path, body, status in cases:
        key = new_key()
        sent = done(first.send(method, path, body, **key), status)
        again = done(second.send(method, path, body, **key), status)
        assert without_later_fields(again.json()) == without_later_fields(sent.json()), path
        assert again.headers["Idempotency-Replayed"] == "true", path
    assert len(export(second)) == 3


def test_if_match_prevents_a_second_version_where_0_1_0_does_not_find_the_key(rollout, user_id):
    new, old = rollout.new.user(user_id), rollout.old.user(user_id)
    path = f"{PATH}/{new.create(title='Title')['id']}"
    headers = new_key() | {"If-Match": '"v1"'}
    done(new.send("PATCH", path, {"title": "New"}, **headers))

    done(old.send("PATCH", path, {"title": "New"}, **headers), 412)

    again = done(new.send("PATCH", path, {"title": "New"}, **headers))
    assert (again.headers["Idempotency-Replayed"], again.json()["version"]) == ("true", 2)


def test_get_or_create_finds_the_conversation_of_the_other_pod(pods, user_id):
    first, second = (pod.user(user_id) for pod in pods)
    path, body = f"{PATH}?get_or_create=character", {"character_id": "luna"}

    created = done(first.send("POST", path, body), 201).json()

    found = done(second.send("POST", path, body)).json()
    assert without_later_fields(found) == without_later_fields(created)


def test_an_import_that_keeps_its_ids_is_repeated_at_the_other_pod(rollout, pods):
    rollout.database["conversations"].delete_many({"user_id": "alice"})
    first, second = (pod.user("alice") for pod in pods)

    assert import_lines(first, EXPORTED) == {201}
    assert import_lines(second, EXPORTED) == {200}
    assert everything(second) == everything(first)
    path = f"{PATH}/{EXPORTED[0]['id']}"
    done(rollout.new.user("alice").send("PATCH", path, {"title": "Moves the imported history"}))
    assert_both_show_the_same(rollout.old, rollout.new, "alice")


def test_activity_reports_are_in_order_over_both_pods(pods, user_id):
    created = pods[0].user(user_id).create()["id"]
    path = f"/internal/v1/conversations/{created}/activity"
    first, second = (pod.service() for pod in pods)

    applied = [
        done(service.send("PUT", path, report(sequence, sequence))).json()["applied"]
        for service, sequence in ((first, 2), (second, 1), (second, 2), (second, 3), (first, 3))
    ]

    assert applied == [True, False, False, True, False]


def test_the_previous_release_serves_the_writes_of_this_one_after_a_rollback(rollout, user_id):
    use_everything(rollout.new, user_id)
    new = everything(rollout.new.user(user_id))

    with rollout.former.pod() as pod:
        assert_both_show_the_same(pod, rollout.new, user_id)
        assert everything(pod.user("before")) == everything(rollout.new.user("before"))
        for line in new["export"]:
            if line["status"] == "active":
                edit(pod, user_id, line["id"])
                copy_and_end(pod, user_id, line["id"])
        use_everything(pod, user_id)
        assert {line["id"] for line in new["export"]} <= {
            line["id"] for line in export(pod.user(user_id))
        }


def test_conversations_with_new_ids_survive_a_rollback(rollout, user_id):
    new, old = rollout.new.user(user_id), rollout.old.user(user_id)
    created = new.create(character_id=WIDE_ID, title="Title")["id"]
    path = f"{PATH}/{created}"

    edit(rollout.old, user_id, created)
    copy_and_end(rollout.old, user_id, created)

    assert_both_show_the_same(rollout.old, rollout.new, user_id)
    assert old.send("GET", f"{PATH}?character_id={WIDE_ID}").status_code == 400
    assert old.send("POST", PATH, {"character_id": WIDE_ID}).status_code == 400
    assert rollout.old.user(WIDE_ID).send("GET", path).status_code == 401


def test_the_previous_release_serves_wide_tags(rollout, user_id):
    """0.1.0 rejects these tags in a request. It shows, edits and purges their conversations."""
    new, old = rollout.new.user(user_id), rollout.old.user(user_id)
    for at in range(0, len(WIDE_NAMES), 8):  # 0.1.0 adds two more
        tags = WIDE_NAMES[at : at + 8]
        created = new.create(title=f"Title {tags[0]}", tags=tags)["id"]
        assert done(old.send("GET", f"{PATH}/{created}")).json()["tags"] == tags

        done(old.send("PATCH", f"{PATH}/{created}", {"tags_add": ["casual"], "title": "New"}))
        done(old.send("POST", f"{PATH}/{created}/revert", {"version": 1, "fields": ["title"]}))
        copy_and_end(rollout.old, user_id, created)

        line = done(new.send("GET", f"{PATH}/{created}")).json()
        assert (line["title"], line["tags"]) == (f"Title {tags[0]}", [*tags, "casual"])
    assert_both_show_the_same(rollout.old, rollout.new, user_id)
    counts = done(old.send("GET", "/api/v1/tags?limit=200")).json()["tags"]
    assert {row["tag"] for row in counts} >= {*WIDE_NAMES}


def test_the_schema_of_the_previous_release_loses_no_data(rollout, user_id):
    new = rollout.new.user(user_id)
    wide = new.create(character_id=WIDE_ID, title="Title")["id"]
    before = everything(new)

    rollout.former.apply_schema()
    try:
        assert everything(new) == before
        assert_both_show_the_same(rollout.old, rollout.new, user_id)
        for pod in (rollout.old, rollout.new):
            edit(pod, user_id, wide)
            use_everything(pod, f"{user_id}-former")
    finally:
        rollout.current.apply_schema()

    for pod in (rollout.old, rollout.new):
        copy_and_end(pod, user_id, wide)
    assert_both_show_the_same(rollout.old, rollout.new, user_id)


def test_this_release_finds_the_titles_and_tags_of_both_pods(rollout, user_id):
    for pod in (rollout.old, rollout.new):
        created = pod.user(user_id).create(title="Łódź, мой C++", tags=["Đà Nẵng"])["id"]
        for other in (rollout.old, rollout.new):
            tag = {"tags_add": [f"ёж {next(numbers)}"]}
            done(other.user(user_id).send("PATCH", f"{PATH}/{created}", tag))
    new = rollout.new.user(user_id)

    for search in ("łódź", "Мой c++", "đà nẵng", "ёж мой", 'tag:"đà nẵng" c++'):
        found = done(new.send("GET", f"{PATH}?search={quote(search)}")).json()
        assert len(found["conversations"]) == 2, search
    tags = done(new.send("GET", f"/api/v1/tags?prefix={quote('ёж')}")).json()["tags"]
    assert len(tags) == 4
    assert done(rollout.old.user(user_id).send("GET", f"{PATH}?search=C")).json()["conversations"]
