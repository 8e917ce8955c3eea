"""Concurrent imports and exports are limited, and each end frees its slot."""

import errno
import gc
import io
import tempfile
from contextlib import suppress

import pytest
from django.http import UnreadablePostError
from prometheus_client import REGISTRY

from conversation_service.http.ndjson import NDJSONParser
from conversation_service.mongodb.connection import collection
from conversations.jobs.concurrency import exports, imports
from tests.conversations.test_export import EXPORT, damage, exported, many
from tests.conversations.test_import import IMPORT, NDJSON, post
from tests.factories import PATH, client_of, conversation


@pytest.fixture(autouse=True)
def nothing_is_left_running():
    yield
    for limit in (imports, exports):
        assert not limit._running


@pytest.fixture
def body(alice) -> bytes:
    many("alice", 3)
    return client_of("alice").get(EXPORT).getvalue()


def code(response):
    assert int(response.headers["Retry-After"]) > 0
    return response.status_code, response.json()["error"]["code"]


def rejections() -> float:
    return REGISTRY.get_sample_value("limit_rejections_total", {"limit": "transfers"}) or 0


def test_a_user_runs_two_concurrent_exports(alice, bob):
    first, second = alice.get(EXPORT), alice.get(EXPORT)

    assert code(alice.get(EXPORT)) == (429, "RATE_LIMIT_EXCEEDED")
    assert bob.get(EXPORT).getvalue()
    assert first.getvalue()
    assert alice.get(EXPORT).getvalue()
    second.close()


def test_exports_and_imports_are_counted_separately(alice, body):
    exporting_ = [alice.get(EXPORT), alice.get(EXPORT)]

    assert post(alice, body).getvalue()
    for response in exporting_:
        response.close()


def test_concurrent_exports_of_all_users_have_a_limit(alice, body):
    running = [client_of(f"user{n}").get(EXPORT) for n in range(exports.total)]
    running += [post(client_of(f"user{n}"), body) for n in range(imports.total)]

    before = rejections()
    assert code(alice.get(EXPORT)) == (503, "TRANSFERS_EXHAUSTED")
    assert code(post(alice, body)) == (503, "TRANSFERS_EXHAUSTED")
    assert rejections() == before + 2
    for response in running:
        response.close()
    assert alice.get(EXPORT).getvalue()
    assert post(alice, body).getvalue()


def test_a_body_is_not_read_before_a_slot_is_free(alice, body):
    running = post(alice, body)
    sent = io.BytesIO(body)

    refused = alice.generic(
        "POST",
        IMPORT,
        b"",
        content_type=NDJSON,
        **{"wsgi.input": sent, "CONTENT_LENGTH": len(body)},
    )

    assert refused.status_code == 429
    assert sent.tell() == 0
    running.close()


@pytest.mark.parametrize("rows_read", [0, 1, 2])
def test_a_client_that_disconnects_frees_its_slot(alice, body, rows_read):
    for _ in range(5):
        for response in (alice.get(EXPORT), post(alice, body)):
            stream = iter(response.streaming_content)
            for _row in range(rows_read):
                next(stream)
            response.close()

    assert not exports._running
    assert not imports._running


def test_a_dropped_response_frees_its_slot(alice, body):
    for _ in range(3):
        assert alice.get(EXPORT).status_code == 200
        assert post(alice, body).status_code == 200
        gc.collect()


def test_a_failure_frees_the_slot(alice, mongo, body):
    alice.raise_request_exception = False
    damage(mongo)
    for _ in range(3):
        assert alice.get(EXPORT).status_code == 500

    collection("conversations").delete_many({})
    many("alice", 60)
    for _ in range(3):
        stream = iter(alice.get(EXPORT).streaming_content)
        next(stream)
        damage(mongo)
        with pytest.raises(AttributeError):
            list(stream)
        collection("conversations").delete_many({})
        many("alice", 60)


@pytest.mark.parametrize("bad", [b"x" * (NDJSONParser.max_line_bytes + 1), b"\n" * 10_001, b"{"])
def test_a_rejected_body_frees_the_slot(alice, bad):
    for _ in range(3):
        response = post(alice, bad)
        assert response.status_code == (200 if bad == b"{" else 413)
        assert response.getvalue()


class Broken(io.BytesIO):
    def read(self, *_sizes):
        raise OSError(errno.ECONNRESET, "the client left")


def test_a_client_that_disconnects_while_sending_frees_the_slot(alice):
    alice.raise_request_exception = False
    for _ in range(3):
        with suppress(UnreadablePostError):
            response = alice.generic(
                "POST",
                IMPORT,
                b"",
                content_type=NDJSON,
                **{"wsgi.input": Broken(), "CONTENT_LENGTH": 9},
            )
            assert response.status_code == 400


def no_room(*_arguments, **_options):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("fails", ["TemporaryFile", "write"])
def test_no_disk_space_for_a_body_is_503(alice, body, fails, monkeypatch):
    long = body * (2 * 1024 * 1024 // len(body))
    if fails == "TemporaryFile":
        monkeypatch.setattr(tempfile, fails, no_room)
    else:
        monkeypatch.setattr(tempfile.SpooledTemporaryFile, fails, no_room)
    for _ in range(3):
        assert code(post(alice, long)) == (503, "STORAGE_FULL")
    monkeypatch.undo()

    assert post(alice, body).getvalue()


def test_an_export_reads_batches_of_bytes(alice, commands):
    custom = {str(n): "😀" * 512 for n in range(16)}
    for n in range(12):
        created = conversation(alice, custom=custom)
        for edit in range(4):
            alice.patch(f"{PATH}/{created['id']}", {"custom": {"0": f"{n} {edit}"}})
    commands.clear()

    lines = exported(alice)

    finds = [command for command in commands if "find" in command]
    reads = [command for command in finds if "revisions" in command["projection"]]
    assert len(lines) == 12
    assert len(reads) >= 3
    assert all(command["filter"]["user_id"] == "alice" for command in finds)


def test_all_imports_of_a_pod_fit_the_temporary_folder():
    workers, folder = 2, 128 * 1024 * 1024  # see k8s/base/deployment.yaml

    assert workers * imports.total * NDJSONParser.max_bytes <= folder
