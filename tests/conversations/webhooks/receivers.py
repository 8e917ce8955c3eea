"""Receivers of webhooks on loopback, and what they need."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from subprocess import Popen
from threading import Thread
from time import monotonic
from typing import Any

from bson import ObjectId
from django.core.management import call_command
from pymongo.database import Database

from conversation_service import clock
from conversations.events import log
from conversations.webhooks import endpoints
from tests.running import started


@dataclass
class Received:
    """A request that a receiver got, with its time by monotonic(), and the status of its reply."""

    headers: Mapping[str, str]
    body: bytes
    status: int = 0
    at: float = field(default_factory=monotonic)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> Any:
        return json.loads(self.body)


# Returns the status, the headers and the body of the reply.
Reply = tuple[int, Mapping[str, str], bytes]
Behaviour = Callable[[Received], int | Reply]


@dataclass
class Receiver:
    """Keeps each request, if `keeps`. `behaviour` decides on the reply, and can wait."""

    behaviour: Behaviour = lambda received: 204
    url: str = ""
    requests: list[Received] = field(default_factory=list)
    keeps: bool = True

    @property
    def ids(self) -> list[str]:
        return [received.id for received in self.requests]

    @property
    def first_successes(self) -> dict[str, None]:
        """The ids in the order of their first reply with success."""
        return dict.fromkeys(r.id for r in self.requests if 200 <= r.status < 300)


@contextmanager
def receiving(behaviour: Behaviour = lambda received: 204) -> Iterator[Receiver]:
    receiver = Receiver(behaviour)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            if len(body) < length:  # the sender was killed
                return
            received = Received(dict(self.headers), body)
            reply = receiver.behaviour(received)
            status, headers, content = (reply, {}, b"") if isinstance(reply, int) else reply
            received.status = status
            if receiver.keeps:
                receiver.requests.append(received)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            """The sender has closed the connection, or the process was killed."""

    with Server(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield receiver
        finally:
            server.shutdown()


def register(url: str, **fields: Any) -> str:
    """Create an endpoint, and return its id."""
    endpoint, _ = endpoints.create({"url": url}, created_by="staff:ana")
    if fields:
        endpoints.endpoints().update_one({"_id": endpoint["_id"]}, {"$set": fields})
    return endpoint["_id"]


def new_events(
    conversations: int, versions: int, *, first: int = 1, ids: list[ObjectId] | None = None
) -> list[log.NewEvent]:
    """Return events of conversations, all first versions before all second ones."""
    ids = ids or [ObjectId() for _ in range(conversations)]
    return [
        log.NewEvent(
            _id=f"{id_}_v{version}",
            type=log.UPDATED,
            at=clock.now(),
            conversation_id=id_,
            user_id="alice",
            version=version,
            fields=["title"],
            by="user",
            client=None,
            request_id="r-1",
        )
        for version in range(first, first + versions)
        for id_ in ids
    ]


def append(conversations: int = 1, versions: int = 1, **options: Any) -> list[str]:
    """Append events to the log, and return their ids."""
    events = new_events(conversations, versions, **options)
    log.append(events)
    return [event["_id"] for event in events]


def deliver() -> None:
    call_command("deliver_webhooks", once=True)


@contextmanager
def delivering(mongo: Database, *options: str) -> Iterator[tuple[Popen, list[str]]]:
    """Run the command; yield the process and the lines of its log. It is killed at the end."""
    process = started(
        mongo, "deliver_webhooks", *options, WEBHOOK_ALLOWED_HOSTS="127.0.0.1", EVENTS_PORT="0"
    )
    lines: list[str] = []
    assert process.stderr
    reader = Thread(target=lines.extend, args=[iter(process.stderr.readline, "")])
    reader.start()
    with process:
        try:
            yield process, lines
        finally:
            process.kill()
            reader.join()


def by_conversation(ids: Any) -> dict[str, list[int]]:
    """Return the versions of each conversation in the order of these ids."""
    found: dict[str, list[int]] = defaultdict(list)
    for id_ in ids:
        conversation, _, version = id_.partition("_v")
        found[conversation].append(int(version))
    return dict(found)
