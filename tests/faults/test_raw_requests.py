"""Requests that break HTTP, over sockets: one honest response or none, and nothing smuggled."""

import re
import socket
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.config.test_gunicorn import read
from tests.factories import token
from tests.faults.fuzzed import SLOWEST_S, fuzz, fuzzed

pytestmark = pytest.mark.faults

PATH = b"/api/v1/conversations"
STATUS = re.compile(rb"(?:\A|\r\n\r\n|\})HTTP/1\.[01] (\d{3}) ")
SMUGGLED = b"GET /api/v1/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def server(django_db_setup, tmp_path_factory):
    with fuzzed(tmp_path_factory.mktemp("raw") / "log") as server:
        yield server


def exchange(server, *pieces: bytes) -> bytes:
    """Send pieces, end the sending direction, and return all responses."""
    with server.connect() as client:
        client.settimeout(SLOWEST_S)
        try:
            for piece in pieces:
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
            return read(client)
        except (ConnectionResetError, BrokenPipeError):  # the server has closed the connection
            return b""


def statuses(server, *pieces: bytes) -> list[int]:
    found = [int(status) for status in STATUS.findall(exchange(server, *pieces))]
    assert all(status < 500 or status == 501 for status in found), (pieces, found)
    return found


def head(*lines: bytes, start: bytes = b"POST " + PATH + b" HTTP/1.1") -> bytes:
    credential = b"Authorization: Bearer " + token("alice").encode()
    return b"\r\n".join([start, b"Host: a", credential, *lines, b"", b""])


BODY = b'{"character_id": "luna"}'
LENGTH = b"Content-Length: %d" % len(BODY)
JSON = b"Content-Type: application/json"
CHUNKED = b"0\r\n\r\n"
AMBIGUOUS = {
    "CL.TE": ([b"Content-Length: 6", b"Transfer-Encoding: chunked"], b"0\r\n\r\nG"),
    "CL.TE with a request": (
        [b"Content-Length: %d" % (len(CHUNKED) + len(SMUGGLED)), b"Transfer-Encoding: chunked"],
        CHUNKED + SMUGGLED,
    ),
    "TE.CL": (
        [b"Transfer-Encoding: chunked", b"Content-Length: 4"],
        b"%x\r\n" % len(SMUGGLED) + SMUGGLED + b"\r\n" + CHUNKED,
    ),
    "TE twice": (
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"],
        CHUNKED + SMUGGLED,
    ),
    "TE with a blank": ([b"Transfer-Encoding : chunked", b"Content-Length: 0"], SMUGGLED),
    "TE with a tab": ([b"Transfer-Encoding:\tchunked", b"Content-Length: 4"], CHUNKED + SMUGGLED),
    "TE xchunked": ([b"Transfer-Encoding: xchunked", b"Content-Length: 0"], SMUGGLED),
    "TE chunked, gzip": ([b"Transfer-Encoding: chunked, gzip"], CHUNKED + SMUGGLED),
    "TE with an underscore": ([b"Transfer_Encoding: chunked", b"Content-Length: 0"], b""),
    "TE after obs-fold": ([b"X: a", b" Transfer-Encoding: chunked", LENGTH], BODY),
    "obs-fold": ([b"X: a\r\n b", LENGTH], BODY),
    "obs-fold of the length": ([b"Content-Length:", b" 24"], BODY),
    "two lengths": ([LENGTH, b"Content-Length: 0"], BODY + SMUGGLED),
    "two lengths in one line": ([b"Content-Length: 24, 24"], BODY),
    "a signed length": ([b"Content-Length: +24"], BODY),
    "a negative length": ([b"Content-Length: -1"], SMUGGLED),
    "a hexadecimal length": ([b"Content-Length: 0x18"], BODY),
    "a length of digits beyond ASCII": (["Content-Length: ٢٤".encode()], BODY),
    "a huge length": ([b"Content-Length: " + b"9" * 4_000], BODY),
    "an underscore in a length": ([b"Content-Length: 2_4"], BODY),
    "a bare LF": ([b"X: a\nContent-Length: 0", LENGTH], BODY),
    "a bare CR": ([b"X: a\rContent-Length: 0", LENGTH], BODY),
    "NUL in a value": ([b"X: a\0b", LENGTH], BODY),
    "NUL in a name": ([b"X\0: a", LENGTH], BODY),
    "no name": ([b": a", LENGTH], BODY),
    "no colon": ([b"X", LENGTH], BODY),
    "a blank in a name": ([b"X Y: a", LENGTH], BODY),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_an_ambiguous_head_gets_one_response_and_hides_no_request(server, name):
    lines, body = AMBIGUOUS[name]

    found = statuses(server, head(JSON, *lines) + body)

    assert len(found) <= 1 or 404 not in found
    assert {*found} <= {400, 401, 408, 411, 413, 415, 431, 501}, found
    assert "smuggled" not in server.log.read_text()


@pytest.mark.parametrize(
    "body",
    [
        *(b"zz\r\n", b"-1\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"5\r\nhel", b"5\nhello\n0\n\n", b""),
        *(b"5;a=b\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffff\r\n", b"5\r\nhelloXX0\r\n\r\n"),
        *(b"0\r\nX: y\r\n\r\n", b"0\r\n\r\n" + SMUGGLED, b" 5\r\nhello\r\n0\r\n\r\n"),
    ],
)
def test_a_body_in_chunks_is_rejected(server, body):
    found = statuses(server, head(JSON, b"Transfer-Encoding: chunked") + body)

    assert {*found} <= {400, 404, 411}
    assert found[:1] in ([400], [411])


@pytest.mark.parametrize(
    "start",
    [
        *(
            b"GET",
            b"GET /",
            b"GET / HTTP/1.1 x",
            b"GET  / HTTP/1.1",
            b"GET / HTTP/9.9",
            b"/ HTTP/1.1",
        ),
        *(b"GET / HTTP/1.1\0", b"G\0T / HTTP/1.1", b"get / HTTP/1.1", b"GET \xff HTTP/1.1"),
        *(
            b"GET http://[ HTTP/1.1",
            b"GET * HTTP/1.1",
            b"OPTIONS * HTTP/1.1",
            b"CONNECT a:1 HTTP/1.1",
        ),
        *(b"PRI * HTTP/2.0", b"TRACE / HTTP/1.1", b"GET /" + b"a" * 9_000 + b" HTTP/1.1"),
        *(
            b"GET /%00 HTTP/1.1",
            b"GET /%ff%fe HTTP/1.1",
            b"GET /..%2f..%2fetc HTTP/1.1",
            b"GET //// HTTP/1.1",
        ),
        *(b"GET /?%00=%ff HTTP/1.1", b"GET /api/v1/tags?prefix=%ff HTTP/1.1", b"A" * 70_000),
    ],
)
def test_a_strange_first_line_gets_at_most_one_response(server, start):
    assert len(statuses(server, head(start=start))) <= 1


@pytest.mark.parametrize(
    "lines", [[b"X: a"] * 65, [b"X: " + b"a" * 9_000], [b"a" * 70_000 + b": a"]]
)
def test_a_long_head_is_rejected(server, lines):
    assert statuses(server, head(*lines)) in ([431], [400], [])


@pytest.mark.parametrize(
    "host", [b"", b"a b", b"a\0b", b"[::g]", b"a:99999", b"\xff", b"a, b", b"@"]
)
def test_a_bad_host_is_rejected(server, host):
    request = b"GET " + PATH + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"

    assert statuses(server, request) == [400]


def test_pipelined_requests_get_responses_in_order_up_to_the_first_bad_one(server):
    good = head(JSON, LENGTH) + BODY
    read_ = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"

    assert statuses(server, good * 20) == [201] * 20
    assert statuses(server, read_ + good + b"NONSENSE\r\n\r\n" + read_) == [200, 201, 400]


@pytest.mark.parametrize("missing", [1, len(BODY), len(BODY) + 1, 100, 200])
def test_a_half_closed_connection_with_a_part_of_a_request_is_ended(server, missing):
    whole = head(JSON, LENGTH) + BODY

    assert statuses(server, whole[:-missing]) in ([], [400])


def test_random_changes_of_a_request(server):
    requests = [
        head(JSON, LENGTH) + BODY,
        head(b"Accept: */*", b"If-None-Match: *", start=b"GET " + PATH + b"?limit=2 HTTP/1.1"),
        head(b"Range: bytes=0-", b"Expect: 100-continue", start=b"GET /health HTTP/1.0"),
    ]
    places = st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=4))

    @fuzz
    @given(st.sampled_from(requests), st.lists(places, min_size=1, max_size=4))
    def run(request, changes):
        for place, cut, new in changes:
            at = place % len(request)
            request = request[:at] + new + request[at + cut :]
        statuses(server, request)

    run()


def test_random_paths(server):
    segments = st.sampled_from(
        [
            b"api",
            b"v1",
            b"internal",
            b"conversations",
            b"changes",
            b"admin",
            b"..",
            b".",
            b"",
            b"%2f",
        ]
    ) | st.binary(max_size=12).map(lambda raw: quote_from_bytes(raw).encode())
    paths = st.lists(segments, max_size=6).map(lambda parts: b"/" + b"/".join(parts))
    methods = st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"HEAD", b"OPTIONS"])

    @fuzz
    @given(methods, paths, st.binary(max_size=20).map(quote_from_bytes))
    def run(method, path, query):
        start = method + b" " + path + b"?" + query.encode() + b" HTTP/1.1"
        assert len(statuses(server, head(b"Content-Length: 0", start=start))) == 1

    run()
