"""The public keys of the token issuer (RFC 7517), cached."""

import logging
from contextlib import suppress
from http import HTTPStatus
from math import inf
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any

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

Keys = dict[str, Any]


class KeySet:
    """The issuer's keys by their id. A request waits, FETCH_S at most, for an uncached key only."""

    def __init__(self, url: str, algorithm: str) -> None:
        self._url = url
        self._algorithm = algorithm
        self._lock = Lock()
        self._latest: tuple[Keys, float] = ({}, -inf)
        self._not_before = -inf
        self._failing = False
        self._fetched = Event()
        self._fetched.set()

    def key(self, kid: str) -> Any:
        """Return the key with this id, or None if the issuer has no such key.

        Raises AuthUnavailable if the issuer does not respond.
        """
        expired = self._age() > FRESH_S and not self._failing
        key = None if expired else self._find(kid)
        if key is None:
            ended = self._refresh().wait(FETCH_S)
            key = self._find(kid)
            if key is None and (self._failing or not ended):
                raise AuthUnavailable(again_in_s=RETRY_S)
        elif self._age() > FRESH_S - AHEAD_S:
            self._refresh()
        return key

    def _age(self) -> float:
        return monotonic() - self._latest[1]

    def _find(self, kid: str) -> Any:
        keys, fetched_at = self._latest
        return keys.get(kid) if monotonic() - fetched_at <= STALE_S else None

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
            self._latest = (_fetch(self._url, self._algorithm), started)
            failing = False
        except (http.UpstreamError, ValueError) as error:
            logger.warning("The keys of the issuer of tokens cannot be fetched: %r", error)
        finally:
            self._failing = failing
            # From the start: a key that is published meanwhile must not wait longer than PAUSE_S.
            self._not_before = monotonic() + RETRY_S if failing else started + PAUSE_S
            ended.set()


def _fetch(url: str, algorithm: str) -> Keys:
    """Return the keys for the algorithm. Raises UpstreamError or ValueError if there is none."""
    response = http.get(url, timeout_s=FETCH_S, limit=MAX_BYTES)
    if response.status != HTTPStatus.OK:
        raise ValueError(f"The status is {response.status}")
    document = response.json()
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("The response is not a set of keys")
    keys = {}
    for entry in entries:
        match entry:
            case {"kid": str(kid)} if "d" not in entry:  # a published private key is not secret
                if (entry.get("use", "sig"), entry.get("alg", algorithm)) == ("sig", algorithm):
                    with suppress(PyJWTError):  # a key of another type or curve, or malformed
                        keys[kid] = PyJWK(entry, algorithm).key
    if not keys:
        raise ValueError(f"No key is for {algorithm}")
    return keys
