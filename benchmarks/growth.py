"""What becomes slower as conversations become more: one request at a time, in turns."""

import http.client
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from benchmarks import ruler
from benchmarks.data import HEAVY_USER, Size, token
from benchmarks.servers import Bench, Server

PATH = "/api/v1/conversations"
PAGE = 20
DEEPEST_PAGE = 4_500  # a twentieth of the conversations are in the trash
STEP = 100  # rows at once on the way there
LIGHT_USERS = 50
REPEATED = 100
SELDOM = 20  # for what takes long
ANSWER_S = 60.0
CHUNK_BYTES = 256 * 1024

LIGHT = {
    "list": PATH,
    "search": f"{PATH}?search=luna",
    "overview": f"{PATH}/overview",
    "summary": f"{PATH}/summary",
}
HEAVY = {
    "search of a frequent word": f"{PATH}?search=caf",
    "search of three words": f"{PATH}?search=night+lisbon+viajes",
    "overview": f"{PATH}/overview",
    "summary": f"{PATH}/summary",
}


@dataclass(frozen=True)
class Finding:
    """One number: `unit` is ms, s, MiB, 1/s, or x for a ratio."""

    name: str
    value: float
    unit: str


class Client:
    """One person over one connection."""

    def __init__(self, server: Server, bearer: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=ANSWER_S)
        self._headers = {"Authorization": f"Bearer {bearer}"}

    def open(self, path: str) -> http.client.HTTPResponse:
        self._connection.request("GET", path, headers=self._headers)
        response = self._connection.getresponse()
        if response.status != http.client.OK:
            raise RuntimeError(f"{path}: {response.status} {response.read()[:500]!r}")
        return response

    def get(self, path: str) -> Any:
        return json.loads(self.open(path).read())

    def ms(self, path: str) -> float:
        began = time.perf_counter()
        self.open(path).read()
        return (time.perf_counter() - began) * 1e3


def find(
    bench: Bench, large: Server, size: Size, small: Server, took: Mapping[str, float]
) -> Iterator[Finding]:
    bearer = token(bench, HEAVY_USER)
    heavy = Client(large, bearer)
    yield from pages(heavy, size)
    for name, path in HEAVY.items():
        [taken] = in_turns([(heavy, path)], repeated=SELDOM)
        yield Finding(f"{name}, user of {size.heavy:,}", taken, "ms")
    yield from light_users(bench, large, small, size)
    yield from export(large, bearer, size)
    yield Finding("seed_demo", size.conversations / took["seed_demo"], "1/s")
    yield Finding("setup_indexes on all of them", took["setup_indexes"], "s")


def pages(heavy: Client, size: Size) -> Iterator[Finding]:
    """Compare the first page with one that only a cursor reaches."""
    number = min(DEEPEST_PAGE, size.heavy // PAGE)
    first = f"{PATH}?status=all&limit={PAGE}"
    deep = f"{first}&{urlencode({'cursor': cursor_before(heavy, (number - 1) * PAGE)})}"
    shallow_ms, deep_ms = in_turns([(heavy, first), (heavy, deep)])
    yield Finding("page 1", shallow_ms, "ms")
    yield Finding(f"page {number:,}", deep_ms, "ms")
    yield Finding(f"page {number:,} / page 1", deep_ms / shallow_ms, "x")


def cursor_before(heavy: Client, rows: int) -> str:
    cursor: dict[str, str] = {}
    while rows:
        step = min(STEP, rows)
        query = urlencode({"status": "all", "limit": step, "fields": "version", **cursor})
        cursor = {"cursor": heavy.get(f"{PATH}?{query}")["pagination"]["next_cursor"]}
        rows -= step
    return cursor["cursor"]


def light_users(bench: Bench, large: Server, small: Server, size: Size) -> Iterator[Finding]:
    """Compare users with some 50 conversations where there are few others, and many.

    One after the other for each user, so that what disturbs disturbs both.
    """
    users = [f"user-{number}" for number in range(min(LIGHT_USERS, size.users))]
    for name, path in LIGHT.items():
        times: dict[str, list[float]] = {"small": [], "large": []}
        for user in users:
            bearer = token(bench, user)
            pair = [(Client(small, bearer), path), (Client(large, bearer), path)]
            for side, taken in zip(times, in_turns(pair, repeated=3), strict=True):
                times[side].append(taken)
        pairs = zip(times["large"], times["small"], strict=True)
        ratio = statistics.median(large / small for large, small in pairs)
        yield Finding(f"{name} of a light user, large / small collection", ratio, "x")


def export(server: Server, bearer: str, size: Size) -> Iterator[Finding]:
    before = most = ruler.memory_mib(server.pid)
    began = time.monotonic()
    response = Client(server, bearer).open(f"{PATH}/export")
    end = b""
    while chunk := response.read(CHUNK_BYTES):
        end = (end + chunk)[-CHUNK_BYTES:]
        most = max(most, ruler.memory_mib(server.pid))
    count = json.loads(end.splitlines()[-1])["count"]
    if count != size.heavy:
        raise RuntimeError(f"The export has {count} of {size.heavy} conversations.")
    yield Finding(f"export of {count:,}", time.monotonic() - began, "s")
    yield Finding(f"export of {count:,}, memory it adds", most - before, "MiB")


def in_turns(requests: Sequence[tuple[Client, str]], *, repeated: int = REPEATED) -> list[float]:
    """Return the median time of each request, after a first one that warms up."""
    for client, path in requests:
        client.ms(path)
    rows = [[client.ms(path) for client, path in requests] for _turn in range(repeated)]
    return [statistics.median(column) for column in zip(*rows, strict=True)]
