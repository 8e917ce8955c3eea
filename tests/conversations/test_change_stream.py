"""The change feed as a stream, from the real gunicorn with one worker."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import requests
from rest_framework.test import APIClient

from conversation_service import clock
from conversations.queries import feed_cursor
from conversations.serializers.changes import MAX_WAIT_S
from tests.config.processes import eventually
from tests.config.test_gunicorn import serving
from tests.factories import PATH, client_of, conversation, token

CHANGES = "/api/v1/changes"
HEARTBEAT_S = 1


@pytest.fixture(autouse=True)
def emptied(mongo):
    """Wait until a majority has the deletes of the last test: the feed reads with majority."""
    mongo["settled"].insert_one({})


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(
        tmp_path_factory.mktemp("gunicorn") / "log",
        application="config.wsgi:application",
        CHANGES_LOOK_S="0.2",
        CHANGES_HEARTBEAT_S=str(HEARTBEAT_S),
        CHANGES_WAITING="8",
        CHANGES_WAITING_PER_USER="3",
    ) as server:
        yield server


def now_of(user_id):
    return feed_cursor.cursor_since(user_id, clock.now())


class Stream:
    """A client of event streams, like EventSource."""

    def __init__(self, server, user_id="alice", *, claims=None, **headers):
        bearer = f"Bearer {token(user_id, **(claims or {}))}"
        self.session = requests.Session()
        self.response = self.session.get(
            f"http://127.0.0.1:{server.port}{CHANGES}",
            headers={"Authorization": bearer, "Accept": "text/event-stream", **headers},
            stream=True,
            timeout=60,
        )
        self.blocks = self._read()

    def _read(self):
        lines = []
        for line in self.response.iter_lines(chunk_size=1):
            if line:
                lines.append(line.decode())
            else:
                yield "\n".join(lines)
                lines = []

    def event(self):
        """Return the next event, as id and data."""
        for block in self.blocks:
            if block.startswith("event: change\n"):
                _, data, id_ = block.split("\n")
                return id_.removeprefix("id: "), json.loads(data.removeprefix("data: "))
        raise AssertionError("the stream has ended")

    @classmethod
    def admitted(cls, *args, **kwargs):
        """Retry until slots of closed streams are free: the server detects them by a write."""
        streams = []

        def admitted() -> bool:
            streams.append(cls(*args, **kwargs))
            if streams[-1].response.status_code == 200:
                return True
            with streams[-1] as stream:
                assert stream.response.status_code == 503
            return False

        eventually(admitted)
        return streams[-1]

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.response.close()
        self.session.close()


def test_a_stream_sends_existing_and_new_changes(server, alice):
    # Each change below is one write: the stream may read between two and send both.
    first = conversation(alice, "deleted")
    with Stream.admitted(server) as stream:
        assert stream.response.headers["Content-Type"] == "text/event-stream"
        assert stream.response.headers["Cache-Control"] == "private, no-store"
        assert next(stream.blocks) == "retry: 2000"
        assert stream.event()[1] == {"type": "upsert", "conversation": first}

        second = conversation(alice)
        assert stream.event()[1] == {"type": "upsert", "conversation": second}
        alice.delete(f"{PATH}/{first['id']}?mode=purge")
        assert stream.event()[1]["type"] == "deleted"


def test_a_stream_sends_only_changes_of_its_user_and_keepalives(server, bob):
    with Stream.admitted(server, **{"Last-Event-ID": now_of("alice")}) as stream:
        conversation(bob)
        assert [next(stream.blocks) for _ in range(3)] == [
            "retry: 2000",
            ": heartbeat",
            ": heartbeat",
        ]


def test_a_stream_continues_after_the_last_event_id(server, alice):
    titles = [conversation(alice, title=str(n))["title"] for n in range(5)]
    with Stream.admitted(server) as stream:
        received = [stream.event() for _ in range(2)]

    with Stream.admitted(server, **{"Last-Event-ID": received[-1][0]}) as stream:
        received += [stream.event() for _ in range(3)]

    assert [data["conversation"]["title"] for _, data in received] == titles


def test_waiting_streams_do_not_delay_other_requests(server, alice):
    with ExitStack() as opened:
        streams = [
            opened.enter_context(
                Stream.admitted(server, f"user-{n}", **{"Last-Event-ID": now_of(f"user-{n}")})
            )
            for n in range(8)
        ]
        with Stream(server, "one-too-many") as refused:
            assert refused.response.status_code == 503
            assert refused.response.json()["error"]["code"] == "STREAMS_EXHAUSTED"
            assert refused.response.headers["Retry-After"] == "5"

        listed = server.get(PATH, headers={"Authorization": f"Bearer {token()}"})
        assert listed.status_code == 200

        conversation(client_of("user-7"), title="For the last")
        assert streams[7].event()[1]["conversation"]["title"] == "For the last"


def test_streams_per_user_are_limited_and_freed_on_disconnect(server):
    for _ in range(2):
        with ExitStack() as opened:
            for _ in range(3):
                opened.enter_context(Stream.admitted(server, "carol"))
            with Stream(server, "carol") as refused:
                assert refused.response.status_code == 503


def test_a_stream_ends_when_the_token_expires(server):
    with Stream.admitted(server, claims={"exp": int(time.time()) + 5}) as stream:
        assert next(stream.blocks) == "retry: 2000"
        assert set(stream.blocks) <= {": heartbeat"}


def test_a_waiting_request_wakes_up_on_a_change(tmp_path, alice, bob):
    # Its own user: slots of other tests may not be free yet.
    with (
        serving(
            tmp_path / "log", application="config.wsgi:application", CHANGES_LOOK_S="0.2"
        ) as server,
        ThreadPoolExecutor() as pool,
    ):

        def wait_as(user_id):
            path = f"{CHANGES}?wait={MAX_WAIT_S}&cursor={now_of(user_id)}"
            return server.get(path, headers={"Authorization": f"Bearer {token(user_id)}"})

        other = pool.submit(wait_as, "bob")
        time.sleep(0.5)  # bob's request waits, so its wait ends before the wait of alice's
        response = pool.submit(wait_as, "alice")
        time.sleep(0.5)
        created = conversation(alice)
        [change] = response.result().json()["changes"]
        assert not other.done()
        conversation(bob)

    assert change["conversation"] == created


def test_a_stopping_server_ends_its_streams(tmp_path):
    with (
        serving(tmp_path / "log", application="config.wsgi:application") as server,
        Stream.admitted(server) as stream,
    ):
        assert next(stream.blocks) == "retry: 2000"
        server.process.terminate()
        assert list(stream.blocks) == []
        stream.session.close()
        assert server.process.wait(60) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/event-stream", "text/event-stream"),
        ("application/json, text/event-stream;q=0.5", "text/event-stream"),
        ("application/json, text/event-stream;q=0", "application/json"),
        ("*/*", "application/json"),
    ],
)
def test_a_stream_is_sent_only_on_request(alice, accept, kind):
    response = alice.get(CHANGES, headers={"Accept": accept})

    assert response.headers["Content-Type"] == kind
    response.close()


def test_errors_before_the_stream_are_json(alice):
    stream = {"Accept": "text/event-stream"}
    old = feed_cursor.cursor_since("alice", clock.now().replace(year=clock.now().year - 1))

    forged = alice.get(CHANGES, headers=stream | {"Last-Event-ID": "x"})
    expired = alice.get(CHANGES, headers=stream | {"Last-Event-ID": old})

    assert forged.json()["error"]["code"] == "INVALID_CURSOR"
    assert expired.json()["error"]["code"] == "CHANGES_CURSOR_EXPIRED"
    assert APIClient().get(CHANGES, headers=stream).status_code == 401
