"""The log of production: one JSON object per line."""

import json
import logging

import pytest
import requests
from pymongo.errors import DuplicateKeyError

from conversation_service.observability.logs import EcsObjects
from tests.config.test_gunicorn import serving
from tests.factories import token
from tests.failpoints import failing

LIST = "/api/v1/conversations"
SECRET_WORDS = "rumpelstiltskin"  # text of a user, which must not be logged
ALICE = {"Authorization": f"Bearer {token('alice')}", "User-Agent": "tests"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    log = tmp_path_factory.mktemp("logs") / "log"
    options = {"LOG_FORMAT": "ecs", "ACCESS_LOG": "true"}
    with serving(log, "config.wsgi:application", **options) as server:
        yield server


def lines(server) -> list[dict]:
    return [json.loads(line) for line in server.log.read_text().splitlines()]


def lines_of(server, request_id: str) -> list[dict]:
    return [
        line
        for line in lines(server)
        if line.get("http", {}).get("request", {}).get("id") == request_id
    ]


def fetch(server, request_id: str, path: str = LIST, method: str = "GET", **options):
    headers = {"X-Request-ID": request_id} | options.pop("headers", ALICE)
    url = f"http://127.0.0.1:{server.port}{path}"
    return requests.request(method, url, headers=headers, timeout=60, **options)


def test_every_line_is_a_json_object(server):
    assert {line["service"]["name"] for line in lines(server)} == {"conversation-service"}
    assert any("Starting gunicorn" in line["message"] for line in lines(server))


@pytest.mark.parametrize(
    ("path", "levels"), [(LIST, ["info"]), ("/a", ["info"]), ("/health/live", [])]
)
def test_head_logs_no_warning(server, path, levels):
    request_id = f"head{path.replace('/', '-')}"
    fetch(server, request_id, path, "HEAD")

    assert [line["log.level"] for line in lines_of(server, request_id)] == levels


def test_a_wrong_host_of_the_console_logs_a_warning_without_a_traceback(server):
    response = fetch(server, "wrong-host", "/admin/login/", headers={"Host": "evil.example"})

    warning, access = lines_of(server, "wrong-host")
    assert response.status_code == 400
    assert warning["log.level"] == "warning"
    assert "ALLOWED_HOSTS" in warning["message"]
    assert "error" not in warning
    assert access["http"]["response"]["status_code"] == 400


def test_a_request_logs_one_line(server):
    fetch(server, "one-line", f"{LIST}/64b7f0f0f0f0f0f0f0f0f0f0")

    [line] = lines_of(server, "one-line")

    assert line["log.level"] == "info"
    assert line["http"]["request"]["method"] == "GET"
    assert line["http"]["response"]["status_code"] == 404
    assert line["labels"]["route"] == f"{LIST}/{{id}}"
    assert line["url"]["path"] == f"{LIST}/64b7f0f0f0f0f0f0f0f0f0f0"
    assert line["event"]["duration"] > 0  # nanoseconds
    assert "request_id" not in line  # it is http.request.id


def test_a_user_is_logged_as_a_stable_hash(server):
    fetch(server, "hash-1")
    fetch(server, "hash-2")
    fetch(server, "hash-3", headers={"Authorization": f"Bearer {token('bob')}"})

    hashes = [lines_of(server, f"hash-{n}")[0]["user"]["hash"] for n in (1, 2, 3)]

    assert hashes[0] == hashes[1] != hashes[2]
    assert len(hashes[0]) == 16
    assert "alice" not in server.log.read_text()


def test_the_trace_of_the_caller_is_logged(server):
    trace = "0af7651916cd43dd8448eb211c80319c"

    fetch(server, "traced", headers=ALICE | {"traceparent": f"00-{trace}-b7ad6b7169203331-01"})

    assert lines_of(server, "traced")[0]["trace"]["id"] == trace


@pytest.mark.parametrize(
    ("name", "authorization", "reason"),
    [
        ("missing", "", "missing"),
        ("garbage", "Bearer garbage", "malformed"),
        ("service", f"Bearer {token(token_type='service', sub='message')}", "kind"),
        ("spaced", f"Bearer {token('not visible')}", "claim"),
    ],
)
def test_the_line_of_a_401_has_its_reason(server, name, authorization, reason):
    fetch(server, f"rejected-{name}", headers={"Authorization": authorization})

    line = lines_of(server, f"rejected-{name}")[-1]

    assert line["http"]["response"]["status_code"] == 401
    assert line["event"]["reason"] == reason
    assert line["message"].endswith(f"({reason})")


def test_the_next_request_on_the_same_connection_has_no_reason(server):
    with requests.Session() as session:
        url = f"http://127.0.0.1:{server.port}{LIST}"
        session.get(url, headers={"X-Request-ID": "no-token"}, timeout=60)
        session.get(f"{url}/x", headers=ALICE | {"X-Request-ID": "no-route"}, timeout=60)

    assert lines_of(server, "no-token")[-1]["event"]["reason"] == "missing"
    assert "reason" not in lines_of(server, "no-route")[-1]["event"]


def test_health_checks_are_not_logged(server):
    fetch(server, "probe", "/health/live")

    assert lines_of(server, "probe") == []


def test_texts_and_tokens_are_not_logged(server):
    body = {"character_id": "luna", "title": SECRET_WORDS, "custom": {"note": SECRET_WORDS}}
    fetch(server, "words-1", method="POST", json=body)
    fetch(server, "words-2", method="POST", json=body | {"settings": {"temperature": SECRET_WORDS}})
    fetch(server, "words-3", f"{LIST}?search={SECRET_WORDS}")
    fetch(server, "words-4", headers={"Authorization": f"Bearer {SECRET_WORDS}.b.c"})

    logged = server.log.read_text()

    assert lines_of(server, "words-1")[0]["http"]["response"]["status_code"] == 201
    assert SECRET_WORDS not in logged
    assert ALICE["Authorization"].split()[1] not in logged


def test_the_query_string_of_a_failed_request_is_not_logged(server):
    with failing(errorCode=2):  # BadValue: a fault of the service, not of the database
        response = fetch(server, "failed", f"{LIST}?search={SECRET_WORDS}")

    assert response.status_code == 500
    assert "INTERNAL_ERROR" in "".join(line["message"] for line in lines_of(server, "failed"))
    assert SECRET_WORDS not in server.log.read_text()


def test_a_document_in_a_mongodb_error_is_removed():
    logger, formatter = logging.getLogger("a"), EcsObjects()
    error = DuplicateKeyError(f"E11000 duplicate key error dup key: {{ title: {SECRET_WORDS!r} }}")

    record = logger.makeRecord(
        "a", logging.ERROR, "", 0, "%s", (error,), (type(error), error, None)
    )

    assert "dup key left out" in formatter.format(record)
    assert SECRET_WORDS not in formatter.format(record)
