"""The public keys of the token issuer (RFC 7517), cached."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from math import inf
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any, NamedTuple

from jwt import PyJWK, PyJWTError

from conversation_service.errors import AuthUnavailable
from conversation_service.upstreams import http

logger = logging.getLogger(__name__)

FETCH_S = 2.0
FRESH_S = 300.0  # longest time for which a removed key is accepted
AHEAD_S = 60.0  # keys are fetched this time before they expire, and used meanwhile
STALE_S = 3_600.0  # keys are used for this time while the issuer does not respond
PAUSE_S = 1.0  # between two fetches, even if each request has an unknown key id
RETRY_S = 2.0  # after a failed fetch
MAX_BYTES = 256 * 1024


class Key(NamedTuple):
    kid: str | None  # some issuers publish a single key, without an id
    algorithm: str
    key: Any


class KeySet:
    """The issuer's keys; safe to share between threads and greenlets.

    A single thread fetches at a time. A request waits FETCH_S at most, and only for a key that is
    not cached.
    """

    def __init__(self, url: str, algorithms: list[str]) -> None:
        self._url = url
        self._algorithms = algorithms
        self._lock = Lock()
        self._latest: tuple[list[Key], float] = ([], -inf)
        self._not_before = -inf
        self._failing = False
        self._fetched = Event()
        self._fetched.set()

    def key(self, kid: str | None, algorithm: str) -> Any:
        """Return the key for a token, or None if the issuer has no such key.

        A token without an id, or a key set without ids, needs exactly one key for the
        algorithm. Raises AuthUnavailable if the issuer does not respond.
        """
        expired = self._age() > FRESH_S and not self._failing
        key = None if expired else self._find(kid, algorithm)
        if key is None:
            ended = self._refresh().wait(FETCH_S)
            key = self._find(kid, algorithm)
            if key is None and (self._failing or not ended):
                raise AuthUnavailable(again_in_s=RETRY_S)
        elif self._age() > FRESH_S - AHEAD_S:
            self._refresh()
        return key

    def _age(self) -> float:
        return monotonic() - self._latest[1]

    def _find(self, kid: str | None, algorithm: str) -> Any:
        keys, fetched_at = self._latest
        if monotonic() - fetched_at > STALE_S:
            return None
        fitting = [key for key in keys if key.algorithm == algorithm]
        if kid is not None:
            same = [key for key in fitting if key.kid == kid]
            fitting = same[:1] or [key for key in fitting if key.kid is None]
        return fitting[0].key if len(fitting) == 1 else None

    def _refresh(self) -> Event:
        """Start a fetch if none is running and PAUSE_S or RETRY_S has passed. Return its end."""
        with self._lock:
            if self._fetched.is_set() and monotonic() >= self._not_before:
                ended = Event()
                Thread(target=self._fetch, args=(ended,), name="jwks", daemon=True).start()
                self._fetched = ended
            return self._fetched

    def _fetch(self, ended: Event) -> None:
        started = monotonic()
        failing = True
        try:
            self._latest = (fetch_keys(self._url, self._algorithms), started)
            failing = False
        except (http.UpstreamError, ValueError) as error:
            logger.warning("The keys of the issuer of tokens cannot be fetched: %r", error)
        finally:
            self._failing = failing
            # From the start: a key that is published meanwhile must not wait longer than PAUSE_S.
            self._not_before = monotonic() + RETRY_S if failing else started + PAUSE_S
            ended.set()


def fetch_keys(url: str, algorithms: list[str]) -> list[Key]:
    """Return the keys for the algorithms. Raises UpstreamError or ValueError if there is none."""
    response = http.get(url, timeout_s=FETCH_S, limit=MAX_BYTES)
    if response.status != HTTPStatus.OK:
        raise ValueError(f"The status is {response.status}")
    document = response.json()
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("The response is not a set of keys")
    keys = [key for entry in entries if isinstance(entry, dict) for key in _keys(entry, algorithms)]
    if not keys:
        raise ValueError(f"No key is for {', '.join(algorithms)}")
    return keys


def _keys(entry: dict[str, Any], algorithms: list[str]) -> Iterator[Key]:
    """Yield the key for each algorithm that it can verify, or only for the one that it names.

    A null stands for a missing member: some issuers write one for each member that a key lacks.
    """
    entry = {name: value for name, value in entry.items() if value is not None}
    kid = entry.get("kid")
    if "d" in entry or entry.get("use", "sig") != "sig" or not isinstance(kid, str | None):
        return  # a published private key is not secret
    for algorithm in algorithms:
        if entry.get("alg", algorithm) == algorithm:
            with suppress(PyJWTError):  # a key of another type or curve, or malformed
                yield Key(kid, algorithm, PyJWK(entry, algorithm).key)
