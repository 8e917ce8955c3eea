"""An import reads NDJSON as programs write it: with a BOM, CRLF, other media types, and gzip."""

import gzip
import json
import zlib
from itertools import islice

import pytest

from conversation_service.http import ndjson
from tests.conversations.test_export import exported
from tests.conversations.test_import import IMPORT, NDJSON

LINES = b"\n".join(json.dumps({"character_id": "luna", "title": t}).encode() for t in "ABC")
BOM = b"\xef\xbb\xbf"


def send(client, body, content_type=NDJSON, encoding=None):
    headers = {} if encoding is None else {"Content-Encoding": encoding}
    return client.post(IMPORT, body, content_type=content_type, headers=headers)


def refused(response, status):
    """Return the error in a response; it explains in a sentence."""
    body = response.json()
    assert response.status_code == body["status"] == status, body
    return body["error"] | {"detail": body["detail"]}


def created(response):
    assert response.status_code == 200, response.content
    return json.loads(response.getvalue().splitlines()[-1])["created"]


@pytest.mark.parametrize(
    "body",
    [
        BOM + LINES,
        LINES.replace(b"\n", b"\r\n") + b"\r\n",
        BOM + LINES.replace(b"\n", b"\r\n\r\n"),
        LINES + b"\n" + BOM,
        BOM + LINES.replace(b"\n", b"\n" + BOM),  # several files, one behind the other
    ],
)
def test_a_bom_and_crlf_are_accepted(alice, body):
    assert created(send(alice, body)) == 3
    assert created(send(alice, gzip.compress(body), encoding="gzip")) == 3


@pytest.mark.parametrize(
    "media_type",
    [
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/jsonlines",
        "application/x-jsonl",
        "application/x-jsonlines",
        "Application/NDJSON; charset=UTF-8",
    ],
)
def test_each_name_of_the_media_type_is_accepted(alice, media_type):
    assert created(send(alice, LINES, media_type)) == 3


@pytest.mark.parametrize("media_type", ["application/json", "text/plain", "application/json-seq"])
def test_another_media_type_is_rejected(alice, media_type):
    response = send(alice, LINES, media_type)

    assert refused(response, 415)["code"] == "UNSUPPORTED_MEDIA_TYPE"
    assert "application/x-ndjson" in refused(response, 415)["detail"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_other_encodings_of_unicode_are_rejected(alice, encoding):
    body = LINES.decode().encode(encoding)

    for response in (send(alice, body), send(alice, gzip.compress(body), encoding="gzip")):
        assert "UTF-8" in refused(response, 415)["detail"]
    assert exported(alice) == []


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", " gzip"])
def test_a_gzip_body_is_unpacked(alice, encoding):
    assert created(send(alice, gzip.compress(LINES), encoding=encoding)) == 3


def test_several_gzip_members_are_one_body(alice):
    start, end = LINES[:30], LINES[30:]
    members = [gzip.compress(part) for part in (b"", start, b"", end)]

    assert created(send(alice, b"".join(members), encoding="gzip")) == 3


PACKED = gzip.compress(LINES)
BROKEN = {
    "without its last byte": PACKED[:-1],
    "without its checksum": PACKED[:-8],
    "cut in its data": PACKED[:15],
    "cut in its header": PACKED[:1],
    "followed by text": PACKED + b"more",
    "followed by zeros": PACKED + b"\0" * 512,
    "with a second member cut": PACKED + PACKED[:9],
    "of another length": PACKED[:-4] + b"\1\2\3\4",
    "not packed": LINES,
    "in the format of zlib": zlib.compress(LINES),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_gzip_body_is_rejected_as_a_whole(alice, kind):
    response = send(alice, BROKEN[kind], encoding="gzip")

    assert "gzip" in refused(response, 400)["detail"]
    assert exported(alice) == []


@pytest.mark.parametrize(
    ("body", "encoding"),
    [(PACKED, None), (PACKED, "identity"), (gzip.compress(PACKED), "gzip")],
    ids=["no encoding", "identity", "packed twice"],
)
def test_gzip_data_without_its_content_encoding_is_rejected_with_the_remedy(alice, body, encoding):
    response = send(alice, body, encoding=encoding)

    assert "Content-Encoding: gzip" in refused(response, 415)["detail"]
    assert exported(alice) == []


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "gzip, br", "none"])
def test_another_content_encoding_is_rejected_with_the_supported_ones(alice, encoding):
    response = send(alice, LINES, encoding=encoding)

    assert refused(response, 415)["code"] == "UNSUPPORTED_MEDIA_TYPE"
    assert response["Accept-Encoding"] == "gzip, identity, x-gzip"


def test_json_endpoints_name_the_encodings_that_they_support(alice):
    response = alice.post(
        "/api/v1/conversations", {"character_id": "luna"}, headers={"Content-Encoding": "gzip"}
    )

    refused(response, 415)
    assert response["Accept-Encoding"] == "identity"


def test_the_unpacked_body_has_the_bounds_of_every_body(alice):
    bombs = {
        "limit_bytes": (b" " * 10_000 + b"\n") * 2_000,
        "limit_lines": b"\n" * 10_001,
        "limit_line_bytes": b" " * (11 * 2**20 + 1),
    }
    for limit, body in bombs.items():
        response = send(alice, gzip.compress(body), encoding="gzip")

        assert limit in refused(response, 413)["details"]
    empty = gzip.compress(b"")
    refusal = refused(send(alice, empty * 1_001, encoding="gzip"), 413)
    assert refusal["details"] == {"limit_gzip_members": 1_000}
    assert created(send(alice, empty * 1_000, encoding="gzip")) == 0


def test_a_bomb_is_unpacked_in_chunks():
    packed = gzip.compress(bytes(2**26))

    chunks = ndjson._unzipped(iter([packed]), 2**24)

    assert {len(chunk) for chunk in islice(chunks, 100)} == {64 * 1024}
