"""GET /metrics of the real gunicorn: correct for several workers, and after one has died."""

import os
import signal
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.config.processes import eventually
from tests.config.test_gunicorn import serving
from tests.factories import token
from tests.running import started

APPLICATION = "config.wsgi:application"
LIST = "/api/v1/conversations"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    log = tmp_path_factory.mktemp("metrics") / "log"
    changes = {"WEB_CONCURRENCY": "2", "REVISION": "abc123", "CONNECTION_POOL_MAX": "15"}
    with serving(log, APPLICATION, **changes) as server:
        yield server


def samples(server, name: str, **labels: str) -> dict[tuple[str, ...], float]:
    """Return the values of one metric, by the labels that are not given."""
    text = server.get("/metrics").text
    return {
        tuple(value for label, value in sample.labels.items() if label not in labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    }


def send_requests(server, times: int, path: str = LIST, **options) -> None:
    """Use a new connection for each request, so that both workers get some."""
    url = f"http://127.0.0.1:{server.port}{path}"
    headers = {"Authorization": f"Bearer {token('alice')}"} | options.pop("headers", {})
    for _ in range(times):
        requests.get(url, timeout=60, headers=headers, **options)


def workers(server) -> list[int]:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


def total(server) -> float:
    counted = samples(server, "http_requests_total", route=LIST, method="GET", status="200")
    return sum(counted.values())


def test_every_scrape_counts_the_requests_of_all_workers(server):
    before = total(server)

    send_requests(server, 40)

    assert {total(server) - before for _ in range(10)} == {40}


def test_no_counter_decreases_when_a_worker_dies(server):
    send_requests(server, 20)
    before = total(server)
    dying = workers(server)[0]

    os.kill(dying, signal.SIGKILL)
    eventually(lambda: len(workers(server)) == 2 and dying not in workers(server))
    send_requests(server, 1)

    assert total(server) == before + 1
    eventually(lambda: samples(server, "http_requests_in_progress") == {(): 0})


def test_routes_are_templates_and_unknown_paths_share_one(server):
    send_requests(server, 1, f"{LIST}/64b7f0f0f0f0f0f0f0f0f0f0")
    send_requests(server, 1, "/wp-login.php")
    send_requests(server, 1, "/.git/config")

    routes = {labels[0] for labels in samples(server, "http_requests_total", status="404")} | {
        labels[1] for labels in samples(server, "http_requests_total", status="404")
    }

    assert {f"{LIST}/{{id}}", "<unmatched>"} <= routes
    assert not [route for route in routes if "wp-login" in route or "64b7" in route]


def test_an_unknown_method_is_counted_under_one_name(server):
    requests.request("BREW", f"http://127.0.0.1:{server.port}{LIST}", timeout=60)

    assert samples(server, "http_requests_total", method="OTHER")
    assert not samples(server, "http_requests_total", method="BREW")


def test_health_checks_and_scrapes_are_not_counted(server):
    server.get("/health/live")
    server.get("/metrics")

    routes = set(samples(server, "http_requests_total"))

    assert not [labels for labels in routes if "/metrics" in labels or "/health/live" in labels]


def test_latencies_are_counted_by_route(server):
    send_requests(server, 1)

    buckets = samples(server, "http_request_duration_seconds_bucket", method="GET", route=LIST)

    counted = samples(server, "http_requests_total", method="GET", route=LIST)
    assert buckets[("+Inf",)] == sum(counted.values())
    assert buckets[("0.5",)] > 0


def test_commands_and_connections_of_mongodb_are_counted(server):
    name = "mongodb_command_duration_seconds_count"
    before = sum(samples(server, name, command="find").values())

    send_requests(server, 5)

    found = samples(server, name, command="find", outcome="succeeded")
    assert sum(found.values()) == before + 5
    # Of both workers, the slower of which may still be starting.
    eventually(lambda: samples(server, "mongodb_pool_connections", state="open")[()] >= 2)
    eventually(lambda: samples(server, "mongodb_pool_connections", state="in_use")[()] == 0)
    # A worker may just be starting, after another test.
    eventually(lambda: samples(server, "mongodb_pool_connections", state="limit") == {(): 2 * 15})
    eventually(lambda: samples(server, "mongodb_writable") == {(): 1})


def test_rejected_tokens_are_counted_by_reason(server):
    send_requests(server, 1, headers={"Authorization": "Bearer a.b.c"})

    assert samples(server, "authentication_failures_total", reason="malformed")[()] >= 1


def test_the_build_is_exposed(server):
    assert samples(server, "build_info", revision="abc123") == {("0.1.0",): 1}


def test_a_restart_removes_old_metrics_and_no_other_file(tmp_path):
    folder = tmp_path / "metrics"
    folder.mkdir()
    (folder / "counter_1.db").write_bytes(b"\0" * 64)  # of a container that was killed
    (folder / "notes.txt").write_text("not ours")

    with serving(tmp_path / "log", APPLICATION, PROMETHEUS_MULTIPROC_DIR=str(folder)) as server:
        assert server.get("/metrics").status_code == 200
        assert not (folder / "counter_1.db").exists()

    assert (folder / "notes.txt").read_text() == "not ours"


def test_a_command_beside_the_workers_writes_no_metrics_files(tmp_path, mongo):
    command = started(mongo, "purge_trash", "--dry-run", PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    _, errors = command.communicate(timeout=60)

    assert command.returncode == 0, errors
    assert [*tmp_path.iterdir()] == []


def test_the_folder_is_removed_at_shutdown(tmp_path):
    with serving(tmp_path / "log", APPLICATION, WORKER_TMP_DIR=str(tmp_path)) as server:
        server.get("/metrics")
        assert [*tmp_path.glob("metrics-*")]

    assert not [*tmp_path.glob("metrics-*")]
