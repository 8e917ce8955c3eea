"""Smoke tests of a deployment: requests over HTTP, and the expected responses."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count
from typing import Any

import requests

from conversation_service.upstreams.http import reason

LONGEST_WAIT_S = 60.0  # the rate limits' window
WAITS = 2
ERROR = {"code", "type", "message", "details", "error_id", "request_id"}


class Fault(Exception):
    """A response is not as expected."""


class NoResponse(Fault):
    """The deployment did not respond."""


class NotTried(Fault):
    """The deployment is missing or another one: no step was run."""


@dataclass(frozen=True)
class Step:
    name: str
    expected: str
    run: Callable[[Any], None]


@dataclass(frozen=True)
class Outcome:
    step: str
    expected: str
    status: int | None
    milliseconds: float
    request_id: str
    fault: Fault | None


class Site:
    """A deployment at its URL. Each request has its own id, which the logs contain.

    `timeout_s` is the limit to connect, and between two bytes.
    """

    def __init__(self, base_url: str, *, timeout_s: float, name: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        self._name = name
        self._numbers = count(1)
        self.session = requests.Session()
        self.session.auth = lambda request: request  # without it, requests would use ~/.netrc
        self.request_id = ""
        self.status: int | None = None

    def call(
        self, method: str, path: str, *, expect: int = HTTPStatus.OK, code: str = "", **options: Any
    ) -> requests.Response:
        """Return the response. Raises Fault for another status, error code or error shape."""
        response = self.send(method, path, **options)
        try:
            error = response.json()["error"]
            found = str(error["code"])
        except (ValueError, LookupError, TypeError):  # not a failure of this service
            error, found = {}, ""
        if response.status_code != expect or code not in {"", found}:
            wanted = f"{expect:d} {code}".strip()
            got = f"{response.status_code} {found}".strip()
            raise Fault(f"{method} {path} responded {got}, not {wanted}")
        if expect >= HTTPStatus.BAD_REQUEST:
            same("status in the body", response.json()["status"], expect)
            same("fields of the error", error.keys(), ERROR)
            same("request_id", error["request_id"], response.headers.get("X-Request-ID"))
        return response

    def send(
        self,
        method: str,
        path: str,
        *,
        token: str = "",
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> requests.Response:
        """Return the response, after waiting for a rate limit if necessary."""
        authorization = {"Authorization": f"Bearer {token}"} if token else {}
        for waits_left in reversed(range(WAITS + 1)):
            self.status = None
            self.request_id = f"{self._name}-{next(self._numbers)}"
            try:
                response = self.session.request(
                    method,
                    self._base_url + path,
                    headers={"X-Request-ID": self.request_id, **authorization, **(headers or {})},
                    timeout=self._timeout_s,
                    allow_redirects=False,  # the token is for this deployment only
                    **options,
                )
            except requests.RequestException as error:
                raise NoResponse(f"{method} {path}: {reason(error)}") from None
            self.status = response.status_code
            if response.status_code != HTTPStatus.TOO_MANY_REQUESTS or not waits_left:
                break
            time.sleep(min(LONGEST_WAIT_S, float(response.headers.get("Retry-After", 1))))
        return response


def same(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise Fault(f"{what} is {found!r}, not {wanted!r}")


def walk(steps: Iterable[Step], site: Site, on: object) -> Iterator[Outcome]:
    """Run the steps up to the first failure."""
    for step in steps:
        began = time.monotonic()
        fault = None
        try:
            step.run(on)
        except Fault as error:
            fault = error
        except (ValueError, LookupError, TypeError) as error:
            fault = Fault(f"the response has another shape: {type(error).__name__} {error}")
        milliseconds = round((time.monotonic() - began) * 1000, 1)
        yield Outcome(step.name, step.expected, site.status, milliseconds, site.request_id, fault)
        if fault:
            return
