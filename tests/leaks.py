"""Fails a test if a log line has a text that a client sent, or an error has a text of another user.

The texts are all values in bodies and queries, tokens, keys and cookies of each request by Django's
test client or by `requests`, and the conversations and sessions that the test stored. The log lines
are those of LOG_LEVEL=DEBUG, in this process and in the servers that tests start.
"""

import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from logging.config import DictConfigurator
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import jwt
from django.http.request import HttpHeaders
from django.test import Client
from django.test.client import FakePayload
from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

from config.logs import FORMATTERS, OWN
from conversation_service.tokens import SERVICE
from tests.documented import DOCUMENT

MIN_LENGTH = 8  # a shorter text can be a part of any word
# Also ids of requests, and addresses of the console's pages, which a form of the login repeats.
_ID_OR_TIME = re.compile(
    r"[0-9a-fA-F]{24}|(smoke)?[0-9a-f]{32}|[0-9T:.Z+-]+|/admin/[a-z_/]*([0-9a-f]{24}[a-z_/]*)?"
)
_QUOTED = re.compile(r'"([^"\\]+)"')
_FORM_VALUE = re.compile(r"\r\n\r\n(.*?)\r\n--", re.DOTALL)


def _words_of_the_api(part: Any) -> Iterator[str]:
    """Yield the names and the choices in the API's documentation."""
    if isinstance(part, dict):
        yield from part.get("properties", ())
        yield from map(str, part.get("enum", ()))
    for inner in part.values() if isinstance(part, dict) else part:
        if isinstance(inner, dict | list):
            yield from _words_of_the_api(inner)


_API_WORDS = {*_words_of_the_api(DOCUMENT)}


def _texts(values: Iterable[Any]) -> set[str]:
    """Return each text and key in the values, except ids, times and the API's own words."""
    found: set[str] = set()
    waiting = [*values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, str) and len(value) >= MIN_LENGTH:
            found.add(value)
    return {text for text in found - _API_WORDS if not _ID_OR_TIME.fullmatch(text)}


@dataclass
class Sent:
    """A request. `error` is the body of the response, if it is an error of the API."""

    headers: Mapping[str, Any]  # by their WSGI names
    query: str
    body: bytes
    error: str = ""

    def header(self, name: str) -> str:
        return str(self.headers.get(name, ""))

    @property
    def token(self) -> str:
        return self.header("HTTP_AUTHORIZATION").partition(" ")[2]

    @property
    def claims(self) -> Mapping[str, Any]:
        with suppress(jwt.InvalidTokenError):
            return jwt.decode(self.token, options={"verify_signature": False})
        return {}

    @property
    def caller(self) -> str:
        """The user or the service of the token."""
        return str(self.claims.get("user_id") or self.claims.get("sub", ""))

    def texts(self) -> set[str]:
        query = [value for _, value in parse_qsl(self.query)]
        cookies = [one.partition("=")[2] for one in self.header("HTTP_COOKIE").split("; ")]
        secrets = [self.token, self.token.rpartition(".")[2], self.header("HTTP_IDEMPOTENCY_KEY")]
        user_id = "" if self.claims.get("token_type") == SERVICE else self.caller
        return _texts([user_id, *secrets, *cookies, *query, *self._values()])

    def _values(self) -> Sequence[Any]:
        text = self.body.decode(errors="replace")
        kind = self.header("CONTENT_TYPE")
        if "multipart" in kind:
            return _FORM_VALUE.findall(text)
        if "urlencoded" in kind:
            return [value for _, value in parse_qsl(text)]
        lines = text.splitlines() if "ndjson" in kind else [text]
        try:
            return [json.loads(line) for line in lines if line.strip()]
        except (ValueError, RecursionError):
            return _QUOTED.findall(text)


_watching: dict[int, list[Sent]] = {}


def _remember(sent: Sent) -> None:
    for requests in _watching.values():
        requests.append(sent)


_send_in_process, _send_by_http = Client.request, HTTPAdapter.send


def _request(client: Client, **options: Any) -> Any:
    payload, body = options.get("wsgi.input"), b""
    if isinstance(payload, FakePayload):
        body = payload.read()
        options["wsgi.input"] = FakePayload(body)
    environ = cast(Any, client)._base_environ(**options)
    sent = Sent(environ, str(environ["QUERY_STRING"]), body)
    _remember(sent)
    response = _send_in_process(client, **options)
    is_api = environ["PATH_INFO"].startswith(("/api/", "/internal/"))
    if is_api and response.status_code >= 400 and not response.streaming:
        sent.error = response.content.decode()
    return response


def _send(adapter: HTTPAdapter, request: PreparedRequest, *args: Any, **options: Any) -> Response:
    headers = HttpHeaders.to_wsgi_names(request.headers)
    body = request.body if isinstance(request.body, bytes) else str(request.body or "").encode()
    _remember(Sent(headers, str(urlsplit(request.url).query), body))
    return _send_by_http(adapter, request, *args, **options)


Client.request, HTTPAdapter.send = _request, _send  # type: ignore[assignment, method-assign]


@contextmanager
def requests_sent() -> Iterator[list[Sent]]:
    """Collect each request of this process."""
    requests: list[Sent] = []
    _watching[id(requests)] = requests
    try:
        yield requests
    finally:
        del _watching[id(requests)]


def _line_with(text: str, lines: str) -> str:
    return next((line for line in lines.splitlines() if text in line), "")


def check_log(logged: str, requests: list[Sent], stored: Iterable[Any] = ()) -> None:
    """Fail if the log has a text of a request or of a stored document."""
    if logged:
        texts = _texts(stored).union(*(sent.texts() for sent in requests))
        leaks = {text: _line_with(text, logged) for text in texts if text in logged}
        assert not leaks, leaks


def check_errors(requests: list[Sent]) -> None:
    """Fail if an error has a text that only other callers sent."""
    errors: dict[str, str] = defaultdict(str)
    for sent in requests:
        if sent.error:
            errors[sent.caller] += sent.error
    if not errors:
        return
    texts: dict[str, set[str]] = defaultdict(set)
    for sent in requests:
        texts[sent.caller] |= sent.texts()
    for caller, error in errors.items():
        foreign = set().union(*texts.values()) - texts[caller]
        leaks = {text: _line_with(text, error) for text in foreign if text in error}
        assert not leaks, leaks


class Recorder(logging.Handler):
    """Keeps each line of LOG_LEVEL=DEBUG, in both formats."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        configurator = DictConfigurator({})
        self.formatters = [configurator.configure_formatter({**one}) for one in FORMATTERS.values()]

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.INFO or record.name.partition(".")[0] in OWN:
            self.lines += [formatter.format(record) for formatter in self.formatters]
