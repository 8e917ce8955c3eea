"""A Prometheus configured as in the cluster: the same paths, limits, rules and labels."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import requests
import yaml

from conversation_service.development.process import free_port
from tests.config.processes import environment, eventually
from tests.deployment.monitoring import CLUSTER, COMPONENT, ROOT, TOOLS, write_rules

MONITOR = yaml.safe_load((COMPONENT / "servicemonitor.yaml").read_text())["spec"]
PATH = "/metrics"


START_S = 60  # on an overloaded machine


class Service:
    """Gunicorn, as in the image."""

    def __init__(self, process: subprocess.Popen, port: int, log: Path) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.log = log

    def workers(self) -> set[int]:
        pid = self.process.pid
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


@contextmanager
def serving(log: Path, settings: dict[str, str]) -> Iterator[Service]:
    port = free_port()
    gunicorn = [sys.executable, "-m", "gunicorn", "-c", "config/gunicorn.conf.py"]
    settings = settings | {"HOST": "127.0.0.1", "PORT": str(port)}
    with running([*gunicorn, "config.wsgi:application"], log, environment(**settings)) as process:
        eventually(
            lambda: responds(process, f"http://127.0.0.1:{port}/health/live"), within_s=START_S
        )
        yield Service(process, port, log)


@contextmanager
def running(
    command: list[str | Path], log: Path, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def responds(process: subprocess.Popen, url: str) -> bool:
    assert process.poll() is None, f"{url} will not respond: the process ended"
    try:
        return requests.get(url, timeout=5).ok
    except (requests.ConnectionError, requests.Timeout):
        return False


class Prometheus:
    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **parameters: str) -> Any:
        response = requests.get(f"{self.url}/api/v1/{path}", parameters, timeout=10).json()
        assert response["status"] == "success", response
        return response["data"]

    def values(self, query: str) -> list[float]:
        """Return the current values of a query, without NaN."""
        values = [float(series["value"][1]) for series in self.get("query", query=query)["result"]]
        return [value for value in values if value == value]  # noqa: PLR0124

    def scrapes(self) -> int:
        """Return the lowest number of scrapes of a pod."""
        counts = self.values('count_over_time(up{job="conversation-service"}[1h])')
        return int(min(counts, default=0))

    def alerts(self) -> set[str]:
        """Return the names of firing and pending alerts."""
        return {alert["labels"]["alertname"] for alert in self.get("alerts")["alerts"]}

    def counters(self) -> list[str]:
        """Return the names of all series of the service that must not decrease."""
        matching = {"match[]": '{job="conversation-service"}'}
        names = self.get("label/__name__/values", **matching)
        return [name for name in names if name.endswith(("_total", "_count", "_bucket", "_sum"))]

    def resets(self, counter: str) -> float:
        return max(self.values(f'resets({counter}{{job="conversation-service"}}[1h])'))

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]


@contextmanager
def prometheus(folder: Path, pods: dict[str, tuple[str, int]]) -> Iterator[Prometheus]:
    """Scrape pods with these names, by their Services and ports, and metrics of their cluster."""
    port = free_port()
    with cluster() as cluster_port:
        config = folder / "prometheus.yaml"
        config.write_text(yaml.safe_dump(configuration(folder, pods, cluster_port)))
        command: list[str | Path] = [
            TOOLS / "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with running(command, folder / "prometheus.log") as process:
            url = f"http://127.0.0.1:{port}"
            eventually(lambda: responds(process, f"{url}/-/ready"), within_s=START_S)
            yield Prometheus(url)


def configuration(
    folder: Path, pods: dict[str, tuple[str, int]], cluster_port: int
) -> dict[str, Any]:
    """Return the operator's configuration for the ServiceMonitor, with a shorter interval."""
    ours = {
        "job_name": "serviceMonitor/conversation-service/conversation-service/0",
        "metrics_path": PATH,
        "sample_limit": MONITOR["sampleLimit"],
        "static_configs": [
            {"targets": [f"127.0.0.1:{port}"], "labels": labels_of(pod, service)}
            for pod, (service, port) in pods.items()
        ],
    }
    others = {
        "job_name": "kube-state-metrics",
        "static_configs": [{"targets": [f"127.0.0.1:{cluster_port}"]}],
    }
    return {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "1s"},
        "rule_files": [str(write_rules(folder))],
        "scrape_configs": [ours, others],
    }


def labels_of(pod: str, service: str) -> dict[str, str]:
    return {
        "job": "conversation-service",
        "service": service,
        "namespace": "conversation-service",
        "pod": pod,
    }


@contextmanager
def worker(name: str, log: Path, settings: dict[str, str]) -> Iterator[int]:
    """Run a command that publishes or delivers events; yield the port of its metrics."""
    port = free_port()
    arguments: list[str | Path] = [sys.executable, "manage.py", name, f"--port={port}"]
    with running(arguments, log, environment(HOST="127.0.0.1", **settings)) as process:
        eventually(lambda: responds(process, f"http://127.0.0.1:{port}/healthz"), within_s=START_S)
        yield port


@contextmanager
def cluster() -> Iterator[int]:
    """Serve the metrics of kube-state-metrics and cAdvisor; yield the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(CLUSTER.read_bytes())

        def log_message(self, *arguments: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
