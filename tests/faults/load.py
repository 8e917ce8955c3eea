"""Clients that repeat requests as docs/guide/retries.md says, and a check of each confirmed write.

A writer creates a conversation of a new user, edits its title EDITS times, and starts again with
another user. A conversation has one writer, so its versions and titles are known exactly.
"""

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from statistics import median, quantiles
from threading import Event, Lock, Thread
from typing import Any
from uuid import uuid4

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError

from tests.factories import PATH, token

CHANGES = "/api/v1/changes"
WRITERS = 16
EDITS = 12  # of one conversation; fewer than a page of the history
PAUSE_S = 0.02  # of a client, before each new request, on average
AGAIN_S = 0.2  # after a broken connection
GIVE_UP_S = 120.0
CLIENT_TIMEOUT_S = 60.0
AGAIN = {409, 429, 503}
SUCCESSES = {*range(200, 300)}
ALLOWED = {*SUCCESSES, 409, 412, 503}

Headers = dict[str, str]


@dataclass
class Response:
    status: int
    headers: Any
    body: Any


@dataclass
class Story:
    """A user with one conversation. `titles` has the confirmed title of each version."""

    user: str
    id: str = ""
    etag: str = ""
    titles: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.authorization: Headers = {"Authorization": f"Bearer {token(self.user)}"}


def client_of(port: int) -> urllib3.HTTPConnectionPool:
    return urllib3.HTTPConnectionPool(
        "127.0.0.1", port, maxsize=1, retries=False, timeout=CLIENT_TIMEOUT_S
    )


class Load:
    """Requests of many clients at once. Use it as a context manager: it then runs.

    `faults` lists each response and each broken connection that no client should see:
    a status outside of `allowed`, 503 without Retry-After, a response later than `budget_s`, and a
    connection that breaks while `is_cut` is not set.
    """

    def __init__(
        self,
        port: int,
        *,
        budget_s: float,
        writers: int = WRITERS,
        readers: int = 2,
        followers: int = 0,
        pause_s: float = PAUSE_S,
        allowed: set[int] = ALLOWED,
    ) -> None:
        self.port = port
        self.budget_s = budget_s
        self.pause_s = pause_s
        self.allowed = allowed
        self.faults: list[str] = []
        self.stories: list[Story] = []
        self.durations: list[float] = []
        self.statuses: dict[int, int] = {}
        self.broken = 0
        self.streams = 0
        self.is_cut = Event()  # a process is killed: connections may break
        self.is_down = Event()  # the service stops: connections may be refused
        self._stopped = Event()
        self._lock = Lock()
        # For each writer, the beginning and the end of each request that succeeded.
        self._succeeded: list[list[tuple[float, float]]] = [[] for _ in range(writers)]
        tasks = [(self._write, n) for n in range(writers)]
        tasks += [(self._read, n) for n in range(readers)]
        tasks += [(self._follow, n) for n in range(followers)]
        self._threads = [Thread(target=self._run, args=task) for task in tasks]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        """End the load. Each writer first ends its request."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _run(self, task: Callable[[int], None], number: int) -> None:
        try:
            task(number)
        except Exception as error:  # noqa: BLE001 - a thread would end unseen
            self._fault(f"client {number}: {error!r}")

    def _fault(self, text: str) -> None:
        with self._lock:
            self.faults.append(text)

    def clients(self, number: int) -> Iterator[urllib3.HTTPConnectionPool]:
        """Yield a client for each request: one that keeps its connection, or new ones."""
        kept = None
        while True:
            if kept is None or number % 2:
                if kept:
                    kept.close()
                kept = client_of(self.port)
            yield kept

    # Writers

    def _write(self, number: int) -> None:
        clients = self.clients(number)
        while not self._stopped.is_set():
            story = Story(f"user-{uuid4()}")
            self._create(clients, story, number)
            with self._lock:
                self.stories.append(story)
            for edit in range(1, EDITS):
                if self._stopped.is_set():
                    break
                self._edit(clients, story, f"Title {edit}", number, keyed=bool(edit % 2))

    def _create(self, clients: Any, story: Story, number: int) -> None:
        title = "Title 0"
        response, _ = self._confirmed(
            clients,
            number,
            "POST",
            PATH,
            {"character_id": story.user, "title": title},
            story.authorization | {"Idempotency-Key": str(uuid4())},
        )
        story.id = response.body["id"]
        self._keep(story, response, title)

    def _edit(self, clients: Any, story: Story, title: str, number: int, *, keyed: bool) -> None:
        path = f"{PATH}/{story.id}"
        headers = story.authorization | {"If-Match": story.etag}
        if keyed:
            headers["Idempotency-Key"] = str(uuid4())
        response, tries = self._confirmed(clients, number, "PATCH", path, {"title": title}, headers)
        if response.status == 412:
            if keyed or tries == 1:
                self._fault(f"412 for try {tries} of an edit of {story.id} (keyed: {keyed})")
            # The first request may have been executed: compare the present version.
            response, _ = self._confirmed(clients, number, "GET", path, None, story.authorization)
        self._keep(story, response, title)

    def _keep(self, story: Story, response: Response, title: str) -> None:
        found = response.body.get("version"), response.body.get("title")
        expected = len(story.titles) + 1, title
        if found != expected:
            self._fault(f"{story.id}: {found}, not {expected}")
        story.titles.append(title)
        story.etag = response.headers["ETag"]

    def _confirmed(
        self, clients: Any, number: int, method: str, path: str, body: Any, headers: Headers
    ) -> tuple[Response, int]:
        """Repeat a request as the guide says. Return its last response and the number of tries."""
        time.sleep(random.uniform(0, 2 * self.pause_s))
        deadline = time.monotonic() + GIVE_UP_S
        for tries in count(1):
            started = time.monotonic()
            response = self.send(next(clients), method, path, body, headers)
            ended = time.monotonic()
            if response and response.status not in AGAIN:
                if response.status < 300:
                    self._succeeded[number].append((started, ended))
                elif response.status != 412:
                    break
                return response, tries
            if ended > deadline:
                break
            time.sleep(int(response.headers.get("Retry-After", 1)) if response else AGAIN_S)
        raise AssertionError(f"{method} {path} is not confirmed: {response}")

    # Readers

    def _read(self, number: int) -> None:
        clients = self.clients(number)
        paths = [
            *(PATH, f"{PATH}?search=title", f"{PATH}/export", CHANGES),
            *("/health/live", "/health"),
        ]
        while not self._stopped.is_set():
            headers = Story(f"reader-{uuid4()}").authorization
            for path in paths:
                self.send(next(clients), "GET", path, None, headers)
                time.sleep(random.uniform(0, 10 * self.pause_s))

    def _follow(self, number: int) -> None:
        """Read streams of changes, to the end of each."""
        headers = Story(f"follower-{uuid4()}").authorization | {"Accept": "text/event-stream"}
        while not self._stopped.is_set():
            try:
                client = client_of(self.port)
                stream = client.request(
                    "GET",
                    CHANGES,
                    headers=headers,
                    preload_content=False,
                )
                while not self._stopped.is_set() and stream.read1(65_536):
                    pass
                self.streams += 1
                stream.close()
            except HTTPError as error:
                self._on_broken(f"stream: {error!r}", error)
                time.sleep(AGAIN_S)

    # One request

    def send(
        self, client: Any, method: str, path: str, body: Any, headers: Headers
    ) -> Response | None:
        """Send a request once and check the response. None: the connection broke."""
        content = None
        if body is not None:
            content = json.dumps(body)
            headers = headers | {"Content-Type": "application/json"}
        started = time.monotonic()
        try:
            received = client.request(method, path, body=content, headers=headers)
        except HTTPError as error:
            self._on_broken(f"{method} {path}: {error!r}", error)
            return None
        duration = time.monotonic() - started
        is_json = "json" in received.headers.get("Content-Type", "")
        is_one = is_json and "ndjson" not in received.headers["Content-Type"]
        response = Response(
            received.status, received.headers, received.json() if is_one else received.data
        )
        with self._lock:
            self.durations.append(duration)
            self.statuses[response.status] = self.statuses.get(response.status, 0) + 1
        self._check(f"{method} {path}", response, duration)
        return response

    def _check(self, request: str, response: Response, duration: float) -> None:
        answer = f"{request}: {response.status} after {duration:.1f} s"
        allowed = ALLOWED if " /health" in request else self.allowed
        if response.status not in allowed:
            self._fault(f"{answer} {response.body!r:.300}")
        if response.status == 503 and "Retry-After" not in response.headers:
            self._fault(f"{answer} without Retry-After")
        if duration > self.budget_s:
            self._fault(f"{answer}, later than {self.budget_s} s")

    def _on_broken(self, text: str, error: HTTPError) -> None:
        is_refused = isinstance(error, NewConnectionError)
        if not (self.is_cut.is_set() or (is_refused and self.is_down.is_set())):
            self._fault(text)
        with self._lock:
            self.broken += 1

    # What the load shows

    def recovery_s(self, since: float) -> float | None:
        """Return the seconds until each writer had a success with a request sent after `since`.

        None if a writer has none yet.
        """
        firsts = []
        for succeeded in self._succeeded:
            recent = [ended for started, ended in succeeded[-500:] if started >= since]
            if not recent:
                return None
            firsts.append(min(recent))
        return max(firsts) - since

    def wait_until_recovered(self, since: float) -> float:
        while (recovery_s := self.recovery_s(since)) is None:
            assert time.monotonic() < since + GIVE_UP_S, [*self.faults, "no recovery"]
            time.sleep(0.02)
        return recovery_s

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Let connections break until the end: a process is killed."""
        self.is_cut.set()
        try:
            yield
        finally:
            self.is_cut.clear()

    def summary(self) -> str:
        """Describe the requests. Call it after the load has ended."""
        p99 = quantiles(self.durations, n=100)[98]
        by_status = ", ".join(f"{n} x {status}" for status, n in sorted(self.statuses.items()))
        return (
            f"{sum(len(story.titles) for story in self.stories)} writes confirmed; {by_status}; "
            f"{self.broken} broken connections; p50 {median(self.durations) * 1000:.0f} ms, "
            f"p99 {p99 * 1000:.0f} ms, max {max(self.durations):.2f} s"
        )

    def differences(self) -> list[str]:
        """Compare what the service has with what it confirmed. Empty: nothing lost or doubled."""
        client = client_of(self.port)
        found = []
        for story in self.stories:
            headers = story.authorization
            listed = client.request("GET", PATH, headers=headers).json()
            path = f"{PATH}/{story.id}/history"
            history = client.request("GET", path, headers=headers).json()
            found += differences(story, listed["conversations"], history.get("revisions", []))
        return found


def differences(
    story: Story, conversations: list[dict[str, Any]], revisions: list[dict[str, Any]]
) -> list[str]:
    stored = [(each["id"], each["version"], each["title"]) for each in conversations]
    steps = [
        (each["version"], each["changes"]["title"]["before"], each["changes"]["title"]["after"])
        for each in revisions
    ]
    confirmed = [(story.id, len(story.titles), story.titles[-1])]
    expected = [
        (version, before, after)
        for version, before, after in zip(count(2), story.titles, story.titles[1:], strict=False)
    ]
    found = []
    if stored != confirmed:
        found.append(f"{story.user}: {stored}, not {confirmed}")
    if steps[::-1] != expected:
        found.append(f"{story.user}: history {steps}, not {expected}")
    return found
