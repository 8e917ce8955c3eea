"""A confirmed write survives the loss of the primary.

Three members in one replica set, and the service as a process of its own. The secondaries stop
replicating, so that only the primary has the next writes; then the primary is killed.
"""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
import requests
from bson import ObjectId
from pymongo import MongoClient

from conversation_service.tokens import service_token
from tests.config.processes import eventually
from tests.config.test_gunicorn import serving
from tests.factories import PATH, token
from tests.replica_set import ReplicaSet, create_collections, three_members

pytestmark = pytest.mark.replica_set

TIMEOUT_MS = 1_500
AGAIN = {409, 429, 503}  # docs/guide/retries.md
GIVE_UP_S = 40.0

Send = Callable[[], requests.Response]


@pytest.fixture(scope="module")
def replica_set(tmp_path_factory) -> Iterator[ReplicaSet]:
    with three_members(tmp_path_factory.mktemp("members")) as replica_set:
        yield replica_set


@pytest.fixture(scope="module")
def stored(replica_set) -> Iterator[Any]:
    """The service's collection on the replica set, with its indexes and validator."""
    with MongoClient[dict[str, Any]](replica_set.url, w="majority") as client:
        database = client["failover"]
        create_collections(database)
        yield database["conversations"]


@pytest.fixture(scope="module")
def address(replica_set, stored, tmp_path_factory) -> Iterator[str]:
    with serving(
        tmp_path_factory.mktemp("service") / "log",
        "config.wsgi:application",
        DJANGO_SETTINGS_MODULE="config.settings.development",
        MONGODB_URL=replica_set.url,
        MONGODB_DATABASE=stored.database.name,
        MONGODB_TIMEOUT_MS=str(TIMEOUT_MS),
        CHARACTER_CHECK="off",
        RATE_LIMIT_ENABLED="false",
    ) as server:
        yield f"http://127.0.0.1:{server.port}"


@dataclass
class Client:
    """One user, or with `claims` of a service one service."""

    address: str
    authorization: str

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        content = {"data": body} if isinstance(body, bytes) else {"json": body}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.request(
            method,
            f"{self.address}{path}",
            headers={"Authorization": f"Bearer {self.authorization}", **named},
            timeout=60,
            **content,
        )

    def create(self, **fields: Any) -> dict[str, Any]:
        created = self.send("POST", PATH, {"character_id": "luna", **fields})
        assert created.status_code == 201, created.text
        return created.json()


@pytest.fixture
def user(address) -> Client:
    return Client(address, token(f"user-{uuid4()}"))


@pytest.fixture
def message(address) -> Client:
    return Client(address, service_token("message", "conversations:activity"))


def error_of(response: requests.Response) -> str:
    return response.json()["error"]["code"]


def keyed(user: Client, method: str, path: str, body: Any) -> Send:
    key = str(uuid4())
    return lambda: user.send(method, path, body, Idempotency_Key=key)


@dataclass
class Intention:
    """One request, repeated as the guide says until the service confirms it.

    A confirmed request is kept if `expected` matches `count` stored conversations.
    """

    name: str
    send: Send
    expected: dict[str, Any]
    count: int = 1
    confirmation: requests.Response | None = None

    def run(self) -> None:
        deadline = time.monotonic() + GIVE_UP_S
        while time.monotonic() < deadline:
            try:
                response = self.send()
            except requests.RequestException:  # an import breaks off within its response
                time.sleep(1)
                continue
            if response.status_code not in AGAIN:
                self.confirmation = response
                return
            time.sleep(int(response.headers["Retry-After"]))

    def is_kept(self, stored: Any) -> bool:
        return stored.count_documents(self.expected) == self.count


def creations(user: Client) -> Iterator[Intention]:
    get_or_create = f"{PATH}?get_or_create=character"
    for n in range(3):
        body = {"character_id": f"created-{n}"}
        yield Intention(f"create {n}", keyed(user, "POST", PATH, body), body)
    for n in range(2):
        body = {"character_id": f"keyed-{n}"}
        send = keyed(user, "POST", get_or_create, body)
        yield Intention(f"get_or_create {n} with a key", send, body)
    for n in range(2):
        body = {"character_id": f"got-{n}"}
        send = partial(user.send, "POST", get_or_create, body)
        yield Intention(f"get_or_create {n}", send, body)

    copy = keyed(user, "POST", f"{existing(user)}/duplicate", {"title": "Copy"})
    yield Intention("duplicate", copy, {"title": "Copy"})

    exported = json.loads(user.send("GET", f"{PATH}/export").content.splitlines()[0])
    lines = [exported | {"id": str(ObjectId()), "title": "Imported"} for _ in range(3)]
    ndjson = "\n".join(map(json.dumps, lines)).encode()
    send = partial(user.send, "POST", f"{PATH}/import", ndjson, Content_Type="application/x-ndjson")
    yield Intention("import", send, {"title": "Imported"}, count=3)


def edits(user: Client) -> Iterator[Intention]:
    path = existing(user)
    send = keyed(user, "PATCH", path, {"title": "Edited"})
    yield Intention("patch with a key", send, {**one(path), "title": "Edited", "version": 2})

    path = existing(user)
    send = partial(user.send, "PATCH", path, {"title": "Edited"})
    yield Intention("patch", send, {**one(path), "title": "Edited"})

    path = existing(user)
    assert user.send("PATCH", path, {"title": "After"}).status_code == 200
    send = keyed(user, "POST", f"{path}/revert", {"version": 1, "fields": ["title"]})
    yield Intention("revert", send, {**one(path), "version": 3})


def moves(user: Client) -> Iterator[Intention]:
    path = existing(user)
    send = partial(user.send, "POST", f"{path}/archive")
    yield Intention("archive", send, {**one(path), "status": "archived"})

    path = existing(user)
    send = partial(user.send, "POST", f"{path}/pin")
    yield Intention("pin", send, {**one(path), "pinned_at": {"$ne": None}})

    path = existing(user)
    send = partial(user.send, "DELETE", path)
    yield Intention("trash", send, {**one(path), "status": "deleted"})

    path = existing(user)
    assert user.send("DELETE", path).status_code == 200
    send = partial(user.send, "DELETE", f"{path}?mode=purge")
    yield Intention("purge", send, {**one(path), "status": "purged"})

    path = existing(user)
    by_ids = {"action": "archive", "ids": [path.rpartition("/")[2]]}
    send = partial(user.send, "POST", f"{PATH}/bulk", by_ids)
    yield Intention("bulk by ids", send, {**one(path), "status": "archived"})

    path = existing(user, tags=["chosen"])
    by_filter = {"action": "trash", "filter": {"tags": ["chosen"]}}
    send = partial(user.send, "POST", f"{PATH}/bulk", by_filter)
    yield Intention("bulk by filter", send, {**one(path), "status": "deleted"})


def reports(user: Client, message: Client) -> Iterator[Intention]:
    totals = dict.fromkeys(("total_tokens", "total_input_tokens", "total_output_tokens"), 0)
    times = {"first_message_at": None, "last_message_at": None}
    report = {"sequence": 7, "message_count": 7, **totals, **times}

    path = existing(user)
    send = partial(message.send, "PUT", f"{path.replace('/api/', '/internal/')}/activity", report)
    yield Intention("activity", send, {**one(path), "activity_sequence": 7})

    path = existing(user)
    items = {"items": [{"id": path.rpartition("/")[2], **report}]}
    send = partial(message.send, "POST", "/internal/v1/activity", items)
    yield Intention("activity of many", send, {**one(path), "activity_sequence": 7})


def existing(user: Client, **fields: Any) -> str:
    return f"{PATH}/{user.create(**fields)['id']}"


def one(path: str) -> dict[str, Any]:
    return {"_id": ObjectId(path.rpartition("/")[2])}


def test_no_confirmed_write_is_lost_with_the_primary(replica_set, user, message, stored):
    replica_set.wait_until_ready()
    intentions = [*creations(user), *edits(user), *moves(user), *reports(user, message)]

    with ThreadPoolExecutor(len(intentions)) as threads:
        with replica_set.replication_stopped() as primary:
            running = [threads.submit(intention.run) for intention in intentions]
            time.sleep(3 * TIMEOUT_MS / 1_000 + 3)  # each is retried at least once
            early = [i.name for i in intentions if i.confirmation is not None]
            primary.kill()
        for run in running:
            run.result()
    primary.start()

    assert {i.name: i.confirmation.text for i in intentions if not i.is_kept(stored)} == {}
    assert early == []


def test_a_key_is_in_progress_until_a_majority_has_its_write(replica_set, user, stored):
    replica_set.wait_until_ready()
    path = f"{PATH}/{user.create()['id']}"
    sends = [
        keyed(user, "POST", PATH, {"character_id": "sol"}),
        keyed(user, "POST", f"{PATH}?get_or_create=character", {"character_id": "mar"}),
        keyed(user, "POST", f"{path}/duplicate", {}),
    ]
    with replica_set.replication_stopped():
        first = [send() for send in sends]
        again = [send() for send in sends]

    assert {response.status_code for response in first} == {503}
    assert [error_of(response) for response in again] == ["IDEMPOTENCY_IN_PROGRESS"] * 3
    assert {response.headers["Retry-After"] for response in again} == {"1"}
    written = stored.count_documents({})

    def replayed() -> bool:
        responses = [send() for send in sends]
        return all("Idempotency-Replayed" in response.headers for response in responses)

    eventually(replayed, within_s=30)
    assert stored.count_documents({}) == written


def test_a_confirmed_write_is_seen_at_once_after_a_change_of_primary(replica_set, user):
    replica_set.wait_until_ready()
    send = keyed(user, "POST", f"{PATH}?get_or_create=character", {"character_id": "luna"})
    created = send()
    assert created.status_code == 201

    replica_set.primary().command("replSetStepDown", 5, secondaryCatchUpPeriodSecs=5)
    responses = [user.send("GET", f"{PATH}/{created.json()['id']}")]
    for _ in range(20):
        responses += [
            send(),
            user.send("POST", f"{PATH}?get_or_create=character", {"character_id": "luna"}),
        ]

    assert {r.json()["id"] for r in responses if r.status_code < 300} == {created.json()["id"]}
    assert {r.status_code for r in responses} <= {200, 201, *AGAIN}
