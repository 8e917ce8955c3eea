"""Smoke tests of a deployment: requests over HTTP, and the expected responses."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count
from typing import Any

import requests
from requests.auth import AuthBase

LONGEST_WAIT_S = 60.0  # the rate limits' window
WAITS = 2


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


def step(expected: str) -> Callable[[Callable[[Any], None]], Step]:
    """Make a step from a function. The function's name is the sentence that the step proves."""

    def named(run: Callable[[Any], None]) -> Step:
        return Step(run.__name__.replace("_", " "), expected, run)

    return named


@dataclass(frozen=True)
class Outcome:
    step: Step
    fault: Fault | None
    status: int | None
    request_id: str
    milliseconds: float


class Bearer(AuthBase):
    """Sends this token, or none. Without an auth object, requests would use ~/.netrc."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Site:
    """A deployment at its URL. Each request has its own id, which the logs contain.

    `timeout_s` is the limit to connect, and between two bytes.
    """

    def __init__(self, base_url: str, *, timeout_s: float, name: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        self._name = name
        self._numbers = count(1)
        self._session = requests.Session()
        self.request_id = ""
        self.status: int | None = None

    def close(self) -> None:
        self._session.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        token: str = "",
        expect: int = HTTPStatus.OK,
        code: str = "",
        **options: Any,
    ) -> requests.Response:
        """Return the response. Raises Fault for another status or error code."""
        response = self.send(method, path, token=token, **options)
        try:
            found = str(response.json()["error"]["code"])
        except (ValueError, LookupError, TypeError):  # not a failure of this service
            found = ""
        if response.status_code != expect or code not in {"", found}:
            wanted = f"{expect:d} {code}".strip()
            got = f"{response.status_code} {found}".strip()
            raise Fault(f"{method} {path} responded {got}, not {wanted}")
        return response

    def send(self, method: str, path: str, *, token: str = "", **options: Any) -> requests.Response:
        """Return the response, after waiting for a rate limit if necessary."""
        response = self._send(method, path, token, **options)
        for _ in range(WAITS):
            if response.status_code != HTTPStatus.TOO_MANY_REQUESTS:
                break
            time.sleep(min(LONGEST_WAIT_S, float(response.headers.get("Retry-After", 1))))
            response = self._send(method, path, token, **options)
        return response

    def _send(
        self,
        method: str,
        path: str,
        token: str,
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> requests.Response:
        self.status = None
        self.request_id = f"{self._name}-{next(self._numbers)}"
        try:
            response = self._session.request(
                method,
                self._base_url + path,
                auth=Bearer(token),
                headers={"X-Request-ID": self.request_id, **(headers or {})},
                timeout=self._timeout_s,
                allow_redirects=False,  # the token is for this deployment only
                **options,
            )
        except requests.RequestException as error:
            raise NoResponse(f"{method} {path}: {type(error).__name__}") from None
        self.status = response.status_code
        return response


def same(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise Fault(f"{what} is {found!r}, not {wanted!r}")


def walk(steps: Iterable[Step], site: Site, on: object) -> Iterator[Outcome]:
    """Run the steps up to the first failure."""
    for current in steps:
        began = time.monotonic()
        fault = None
        try:
            current.run(on)
        except Fault as error:
            fault = error
        except (ValueError, LookupError, TypeError) as error:
            fault = Fault(f"the response has another shape: {type(error).__name__} {error}")
        milliseconds = round((time.monotonic() - began) * 1000, 1)
        yield Outcome(current, fault, site.status, site.request_id, milliseconds)
        if fault:
            return
