"""The smoke test of a running gunicorn, with a proxy that spoils one response."""

import json
import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from threading import Thread
from types import SimpleNamespace

import pytest
import requests
from django.core.management import CommandError, call_command

import conversation_service.smoke
from conversations.jobs import smoke
from tests.config.test_gunicorn import serving
from tests.conversation_service.loopback import closed_port
from tests.factories import client_of, conversation, token

HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "date", "server", "keep-alive"}


@dataclass
class Response:
    """A response of the deployment, which the proxy can spoil."""

    request: str
    number: int
    status: int
    headers: dict[str, str]
    body: bytes

    def edit(self, old: str, new: str) -> None:
        assert old.encode() in self.body
        self.body = self.body.replace(old.encode(), new.encode())


@dataclass
class Proxy:
    """A proxy in front of the deployment that spoils its responses."""

    url: str
    spoil: Callable[[Response], object]
    address: str = ""
    received: list[str] = field(default_factory=list)

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Response:
        name = f"{method} {re.sub('[0-9a-f]{24}', '…', path.partition('?')[0])}"
        self.received.append(name)
        got = requests.request(method, self.url + path, headers=headers, data=body, timeout=60)
        kept = {k: v for k, v in got.headers.items() if k.lower() not in HOP_BY_HOP}
        response = Response(name, self.received.count(name), got.status_code, kept, got.content)
        self.spoil(response)
        return response


@contextmanager
def proxied(url: str, spoil: Callable[[Response], object]):
    proxy = Proxy(url, spoil)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet: a second packet would wait 40 ms for an ACK

        def response(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            response = proxy.forward(self.command, self.path, dict(self.headers), body)
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(response.body)))
            self.end_headers()
            self.wfile.write(response.body)

        do_GET = do_POST = do_PATCH = do_DELETE = response  # noqa: N815

        def log_message(self, *arguments): ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        proxy.address = "http://{}:{}".format(*server.server_address)
        yield proxy
        server.shutdown()


@pytest.fixture(scope="module")
def url(django_db_setup, tmp_path_factory):
    log = tmp_path_factory.mktemp("smoke") / "log"
    # A busy machine must not count as a slow client.
    with serving(log, "config.wsgi:application") as server:
        yield f"http://127.0.0.1:{server.port}"


def run(base_url: str, **options) -> tuple[str, int]:
    """Return the output, errors last, and the exit code."""
    out = StringIO()
    try:
        call_command("smoke_test", base_url=base_url, stdout=out, **options)
    except CommandError as error:
        return f"{out.getvalue()}{error}", error.returncode
    return out.getvalue(), 0


def run_spoiled(url: str, spoil: Callable[[Response], object], **options) -> tuple[str, int]:
    with proxied(url, spoil) as proxy:
        return run(proxy.address, **options)


def left(mongo) -> int:
    return mongo["conversations"].count_documents({"status": {"$ne": "purged"}})


def test_a_healthy_deployment_passes_and_no_data_is_left(url, mongo):
    printed, code = run(url, internal=True)

    assert code == 0, printed
    assert "31 of 31 steps passed on test 0.1.0, in " in printed
    assert left(mongo) == 0
    assert mongo["conversations"].count_documents({"user_id": {"$regex": "^smoke"}}) == 1


def test_a_step_has_a_line_with_expectation_status_and_time(url):
    printed, _ = run(url)

    [line] = [
        line for line in printed.splitlines() if line.startswith("it creates a conversation ")
    ]
    *_, status, milliseconds = line.split()
    assert "201, version 1, Location, ETag" in line
    assert status == "201"
    assert float(milliseconds) > 0


def test_json_output_has_a_line_per_step_and_a_last_line(url):
    printed, code = run(url, json=True)

    *steps, end = [json.loads(line) for line in printed.splitlines()]
    assert code == 0
    assert {step["fault"] for step in steps} == {None}
    assert all(step["milliseconds"] > 0 for step in steps)
    assert (end["passed"], end["steps"], end["left"]) == (len(steps), len(steps), [])


def test_json_output_names_the_fault(url):
    def spoil(response):
        if response.request == "GET /api/v1/tags":
            response.status = 500

    printed, code = run_spoiled(url, spoil, json=True)

    [wrong] = [line for line in printed.splitlines() if '"fault":"' in line]
    assert code == 1
    assert json.loads(wrong)["step"] == "its tag is counted"
    assert json.loads(wrong)["status"] == 500


def status(value):
    return lambda response: setattr(response, "status", value)


def without(header):
    return lambda response: response.headers.pop(header)


def edited(old, new):
    return lambda response: response.edit(old, new)


def says(body):
    return lambda response: setattr(response, "body", body)


def spoiler(request, change, number=1):
    """Change response number `number` to this request, and no other."""

    def spoil(response):
        if (response.request, response.number) == (request, number):
            change(response)

    return spoil


def spoiled(step, *fault):
    return pytest.param(step, spoiler(*fault), id=step.name)


HEALTH, API = "/health", "/api/v1/conversations"
DELETED = '"type":"deleted"', '"type":"forgotten"'


@pytest.mark.parametrize(
    ("step", "spoil"),
    [
        spoiled(smoke.it_is_alive, f"GET {HEALTH}/live", status(503)),
        spoiled(smoke.it_can_write_to_mongodb, f"GET {HEALTH}/ready", status(503)),
        spoiled(smoke.it_rejects_requests_without_a_token, f"GET {API}", says(b"<html>")),
        spoiled(smoke.a_response_has_its_request_id, f"GET {API}", without("X-Request-ID"), 2),
        spoiled(smoke.the_overview_has_a_feed_cursor, f"GET {API}/overview", says(b"{}")),
        spoiled(smoke.an_error_points_at_the_invalid_field, f"POST {API}", edited("/title", "/it")),
        spoiled(smoke.it_creates_a_conversation, f"POST {API}", status(500), 2),
        spoiled(
            smoke.a_repeated_create_is_replayed,
            f"POST {API}",
            without("Idempotency-Replayed"),
            3,
        ),
        spoiled(smoke.it_returns_the_created_conversation, f"GET {API}/…", without("ETag")),
        spoiled(smoke.a_list_has_it_once_and_is_revalidated, f"GET {API}", without("ETag"), 3),
        spoiled(smoke.a_search_finds_it_immediately, f"GET {API}", edited('"id"', '"_id"'), 5),
        spoiled(smoke.another_user_cannot_see_it, f"GET {API}/…", status(200), 2),
        spoiled(smoke.its_title_is_updated, f"PATCH {API}/…", edited("changed", "kept")),
        spoiled(smoke.an_update_of_an_old_version_is_rejected, f"PATCH {API}/…", status(200), 2),
        spoiled(
            smoke.its_history_has_the_update, f"GET {API}/…/history", says(b'{"revisions":[]}')
        ),
        spoiled(smoke.it_is_reverted, f"POST {API}/…/revert", edited('"version":3', '"version":2')),
        spoiled(smoke.it_is_archived, f"POST {API}/…/archive", edited("archived", "active")),
        spoiled(smoke.it_is_restored_from_the_archive, f"POST {API}/…/restore", status(409)),
        spoiled(smoke.it_is_pinned, f"POST {API}/…/pin", without("ETag")),
        spoiled(smoke.the_change_feed_has_it, "GET /api/v1/changes", edited("upsert", "x")),
        spoiled(smoke.the_overview_shows_it, f"GET {API}/overview", edited('"pinned":', '"x":'), 2),
        spoiled(
            smoke.the_summary_counts_it,
            f"GET {API}/summary",
            edited('"total_conversations":1', '"total_conversations":0'),
        ),
        spoiled(smoke.its_tag_is_counted, "GET /api/v1/tags", edited('"count":1', '"count":2')),
        spoiled(
            smoke.a_bulk_dry_run_changes_nothing,
            f"GET {API}/…",
            edited('"active"', '"archived"'),
            3,
        ),
        spoiled(
            smoke.the_export_is_complete, f"GET {API}/export", edited('"end"', '"conversation"')
        ),
        spoiled(
            smoke.a_service_can_check_access,
            "POST /internal/v1/authorize",
            edited('"writable":true', '"writable":false'),
            2,
        ),
        spoiled(smoke.it_is_moved_to_the_trash, f"DELETE {API}/…", edited("deleted", "active")),
        spoiled(smoke.it_is_restored_from_the_trash, f"POST {API}/…/restore", status(500), 2),
        spoiled(smoke.it_is_purged, f"GET {API}/…", status(200), 4),
        spoiled(
            smoke.the_change_feed_reports_the_purge, "GET /api/v1/changes", edited(*DELETED), 2
        ),
    ],
)
def test_a_fault_ends_the_test_at_its_step_and_no_data_is_left(url, mongo, step, spoil):
    printed, code = run_spoiled(url, spoil, internal=True)

    assert code == 1, printed
    assert printed.splitlines()[-1].startswith(f"{step.name}: ")
    assert left(mongo) == 0


def test_a_wrong_response_can_be_found_in_the_logs(url):
    spoil = spoiler(f"POST {API}/…/pin", status(500))

    printed, _ = run_spoiled(url, spoil)

    assert re.search(r"pin responded 500, not 200 \(X-Request-ID smoke\w+-\d+\)", printed)


def test_metrics_are_checked_where_they_are_reachable(url):
    def metrics(response):
        if response.request == "GET /metrics":
            response.status, response.body = 200, b"# TYPE build_info gauge\n"

    assert run_spoiled(url, metrics, metrics=True)[1] == 0
    printed, code = run_spoiled(url, spoiler("GET /metrics", status(404)), metrics=True)
    assert code == 1
    assert "it returns metrics: GET /metrics responded 404" in printed


def test_data_that_cannot_be_purged_is_named(url, mongo):
    def spoil(response):
        if response.request == f"DELETE {API}/…":
            response.status = 500

    printed, code = run_spoiled(url, spoil)

    [purged] = mongo["conversations"].find()
    assert code == 1
    assert f"Could not be purged: {purged['_id']}." in printed


def test_data_that_may_be_left_after_a_crash_of_the_service_is_named(url, mongo):
    down = []

    def spoil(response):
        down.extend([response.request] if response.request.endswith("/pin") else [])
        response.status = 503 if down else response.status

    printed, code = run_spoiled(url, spoil)

    [left] = mongo["conversations"].find()
    assert code == 1
    assert f"Could not be purged: {left['_id']}, all conversations with the tag smoke" in printed


def test_ctrl_c_ends_the_test_after_the_current_step_and_no_data_is_left(url, mongo):
    interrupt = spoiler(f"POST {API}/…/pin", lambda response: os.kill(os.getpid(), signal.SIGINT))

    printed, code = run_spoiled(url, interrupt)

    assert code == 4
    assert "Stopped before the end." in printed
    assert "its tag is counted" not in printed
    assert left(mongo) == 0


def test_the_test_waits_for_retry_after(url, monkeypatch):
    waits_s = []
    clock = SimpleNamespace(sleep=waits_s.append, monotonic=time.monotonic)
    monkeypatch.setattr(conversation_service.smoke, "time", clock)

    def limit(response):
        response.status, response.headers["Retry-After"] = 429, "7"

    printed, code = run_spoiled(url, spoiler(f"GET {API}", limit, 2))

    assert code == 0, printed
    assert waits_s == [7.0]


def test_the_test_fits_within_the_rate_limits(url, settings):
    with proxied(url, lambda response: None) as proxy:
        run(proxy.address)

    limits = settings.RATE_LIMITS
    changed = [name for name in proxy.received if "…" in name or "bulk" in name]
    assert len(proxy.received) <= limits["all"]
    assert proxy.received.count(f"POST {API}") <= limits["create"]
    assert proxy.received.count(f"GET {API}") <= limits["list"]
    assert proxy.received.count(f"DELETE {API}/…") <= limits["delete"]
    assert sum(name.startswith(("PATCH", "POST")) for name in changed) <= limits["patch"]


def test_an_unreachable_service_fails_at_the_first_step():
    printed, code = run(f"http://{closed_port()}")

    assert code == 4
    assert "it is alive: GET /health/live: ConnectionError (Connection refused)" in printed


def test_nothing_is_written_to_another_environment_than_given(url, mongo):
    with proxied(url, lambda response: None) as proxy:
        printed, code = run(proxy.address, environment="staging")

    assert code == 4
    assert "this is test, not staging" in printed
    assert {name.split("/")[1] for name in proxy.received} == {"health"}
    assert mongo["conversations"].count_documents({}) == 0


@pytest.mark.parametrize(("version", "code"), [("0.1.0", 0), ("0.2.0", 1)])
def test_environment_and_version_are_asserted(url, version, code):
    assert run(url, environment="test", expect_version=version)[1] == code


def test_with_public_keys_a_token_is_required(settings):
    settings.JWT_ALGORITHM = ["RS256"]

    printed, code = run(f"http://{closed_port()}")

    assert code == 4
    assert "Only the issuer has the private key for RS256" in printed
    assert "Send --token" in printed


def test_conversations_of_a_real_user_are_kept(url, mongo, settings):
    own = conversation(client_of("carol"))
    tokens = {"token": token("carol"), "other_token": token("dave")}
    settings.JWT_ALGORITHM = ["RS256"]  # here, so that none can be made

    printed, code = run(url, **tokens)

    [kept] = mongo["conversations"].find({"status": {"$ne": "purged"}})
    assert code == 0, printed
    assert str(kept["_id"]) == own["id"]


def test_a_token_is_read_from_a_file(url, tmp_path):
    file = tmp_path / "token"
    file.write_text(token("carol") + "\n")
    arguments = ["smoke_test", f"--base-url={url}", f"--token=@{file}"]

    call_command(*arguments, stdout=StringIO())


@pytest.mark.parametrize(
    "option",
    ["--base-url=chat.example.org", "--timeout=0", "--timeout=soon", "--token=@/nowhere/token"],
)
def test_a_wrong_option_is_rejected(option):
    with pytest.raises(CommandError):
        call_command("smoke_test", "--base-url=http://127.0.0.1:1", option)
