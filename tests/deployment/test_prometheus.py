"""A real Prometheus scrapes the real service: two workers, and a pod without MongoDB."""

import json
import os
import secrets
import signal
import subprocess
import sys
from contextlib import ExitStack
from types import SimpleNamespace

import jwt
import pytest
import requests

from conversation_service import clock
from conversation_service.development.process import free_port
from conversation_service.development.stand_ins.characters import characters
from tests.config.processes import environment, eventually
from tests.deployment.monitoring import ROOT, dashboard_queries, rules
from tests.deployment.watching import prometheus, serving, worker
from tests.factories import NewConversation

pytestmark = pytest.mark.deployment

SECRET = secrets.token_urlsafe(48)
PATH = "/api/v1/conversations"
# Copied from the guide.
FIRST_QUERIES = [
    'rate(http_requests_total{service="conversation-service"}[5m])',
    "histogram_quantile(0.95,"
    ' rate(http_request_duration_seconds_bucket{service="conversation-service"}[5m]))',
    'rate(http_requests_total{service="conversation-service",status=~"5.."}[5m])',
]


class User:
    """Sends requests as a user, and records the statuses."""

    def __init__(self, server, user_id: str) -> None:
        self.server = server
        expiry = int(clock.now().timestamp()) + 3600
        claims = {"user_id": user_id, "token_type": "access", "iat": expiry - 3600, "exp": expiry}
        self.headers = {"Authorization": f"Bearer {jwt.encode(claims, SECRET, 'HS256')}"}
        self.statuses: list[int] = []

    def call(self, method: str, path: str, **options) -> requests.Response:
        options = {"headers": self.headers} | options
        response = requests.request(method, f"{self.server.url}{path}", timeout=30, **options)
        self.statuses.append(response.status_code)
        return response

    def live(self, character_id: str = "luna") -> list[int]:
        """Send each kind of request, and exceed a rate limit."""
        made = self.call("POST", PATH, json=NewConversation(character_id=character_id)).json()
        self.call("GET", PATH)
        self.call("GET", f"{PATH}/{made['id']}")
        self.call("PATCH", f"{PATH}/{made['id']}", json={"title": "Luna"})
        self.call("POST", f"{PATH}/{made['id']}/archive")
        self.call("POST", f"{PATH}/{made['id']}/restore")
        self.call("GET", f"{PATH}/507f1f77bcf86cd799439011")
        self.call("GET", PATH, headers={"Authorization": "Bearer nonsense"})
        self.call("DELETE", f"{PATH}/{made['id']}")
        self.call("DELETE", f"{PATH}/{made['id']}?mode=purge")
        for _ in range(10):
            self.call("POST", PATH, json=NewConversation(character_id=character_id))
        return self.statuses


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """The service under load, a pod without MongoDB, and a Prometheus that scrapes both."""
    folder = tmp_path_factory.mktemp("prometheus")
    (ROOT / "var" / "static").mkdir(parents=True, exist_ok=True)  # as collectstatic does
    with ExitStack() as running:
        upstream = running.enter_context(characters(0))
        settings = production(
            CHARACTERS_SERVICE_URL=upstream.url, WEBHOOK_ALLOWED_HOSTS="127.0.0.1"
        )
        receiver = f"http://127.0.0.1:{free_port()}/in"
        for command in ("migrate", "setup_indexes", f"webhooks add {receiver}"):
            manage(command, settings)
        workers = {
            name: (
                f"conversation-service-{name}",
                running.enter_context(worker(program, folder / f"{name}.log", settings)),
            )
            for name, program in (("events", "publish_events"), ("webhooks", "deliver_webhooks"))
        }
        service = running.enter_context(serving(folder / "one.log", settings))
        settings |= {
            "MONGODB_URL": f"mongodb://127.0.0.1:{free_port()}/?replicaSet=rs0",
            "MONGODB_TIMEOUT_MS": "100",
        }
        lost = running.enter_context(serving(folder / "two.log", settings))
        api = {"one": service.port, "two": lost.port}
        pods = {name: ("conversation-service", port) for name, port in api.items()} | workers
        watcher = running.enter_context(prometheus(folder, pods))
        # Each with a character that is not cached, so that the upstream gets a request.
        for user_id, character_id in (("ana", "ada"), ("bea", "sherlock"), ("carla", "luna")):
            statuses = User(service, user_id).live(character_id)
            assert {200, 201, 401, 404, 429} <= set(statuses)
            assert {User(lost, user_id).call("GET", PATH).status_code for _ in range(5)} == {503}
            wait_for_scrapes(watcher)
        yield SimpleNamespace(service=service, lost=lost, prometheus=watcher)


def wait_for_scrapes(watcher) -> None:
    """Wait until each pod has served a scrape that started after this call."""
    before = watcher.scrapes()
    eventually(lambda: watcher.scrapes() > before + 1)


def production(**changes: str) -> dict[str, str]:
    return {
        "ENVIRONMENT": "production",
        "DJANGO_SETTINGS_MODULE": "config.settings.production",
        "ALLOWED_HOSTS": "conversations.company.com",
        "SECRET_KEY": SECRET,
        "JWT_SECRET_KEY": SECRET,
        "MONGODB_DATABASE": "test_watched",
        "WEB_CONCURRENCY": "2",
    } | changes


def manage(command: str, settings: dict[str, str]) -> None:
    subprocess.run(
        [sys.executable, "manage.py", *command.split()],
        env=environment(**settings),
        cwd=ROOT,
        check=True,
        capture_output=True,
    )


@pytest.mark.parametrize("query", FIRST_QUERIES)
def test_the_queries_of_the_guide_give_data(watched, query):
    eventually(lambda: any(watched.prometheus.values(query)))


@pytest.mark.parametrize("query", dashboard_queries())
def test_every_query_of_the_dashboard_gives_data(watched, query):
    eventually(lambda: watched.prometheus.values(query))


@pytest.mark.parametrize("series", rules("record"))
def test_every_recorded_series_has_data(watched, series):
    eventually(lambda: watched.prometheus.values(series))


def test_every_rule_is_evaluated_without_error(watched):
    eventually(lambda: all(rule["health"] != "unknown" for rule in watched.prometheus.rules()))

    known = watched.prometheus.rules()
    assert {rule["name"] for rule in known} == {*rules("alert"), *rules("record")}
    assert [rule for rule in known if rule["health"] != "ok"] == []


def test_a_pod_without_mongodb_lowers_the_ratio_and_raises_no_outage_alert(watched):
    burning = "ConversationServiceErrorBudgetBurnFast"
    eventually(lambda: burning in watched.prometheus.alerts())

    assert watched.prometheus.values('mongodb_writable{pod="two"}') == [0]
    eventually(lambda: watched.prometheus.values('mongodb_writable{pod="one"}') == [1])
    # Before, no pod had a primary, and rules are evaluated once a second.
    alarm = "ConversationServiceMongoDBWithoutPrimary"
    eventually(lambda: alarm not in watched.prometheus.alerts())


def test_both_workers_are_one_target(watched):
    """Each worker returns the metrics of both, so each request is counted once."""
    total = 'sum(http_requests_total{pod="one"})'
    before = settled(watched.prometheus, total)

    called = len(User(watched.service, "dora").live())

    eventually(lambda: watched.prometheus.values(total) == [before + called])


def test_no_counter_decreases_after_a_worker_is_killed(watched):
    total = 'sum(http_requests_total{pod="one"})'
    before = settled(watched.prometheus, total)
    (killed, *_) = former = watched.service.workers()

    os.kill(killed, signal.SIGKILL)
    eventually(lambda: len(watched.service.workers() - former) == 1)
    called = len(User(watched.service, "elena").live())

    eventually(lambda: watched.prometheus.values(total) == [before + called])
    assert watched.prometheus.scrapes() > 10
    resets = {name: watched.prometheus.resets(name) for name in watched.prometheus.counters()}
    assert {"http_requests_total", "mongodb_command_duration_seconds_count"} <= resets.keys()
    assert resets == dict.fromkeys(resets, 0)
    eventually(lambda: watched.prometheus.values('mongodb_writable{pod="one"}') == [1])


def settled(watcher, query: str) -> float:
    wait_for_scrapes(watcher)
    (value,) = watcher.values(query)
    return value


def test_a_pod_has_far_fewer_series_than_the_sample_limit(watched):
    counts = watched.prometheus.values('scrape_samples_scraped{job="conversation-service"}')

    assert 100 < max(counts) < 5_000


def test_every_log_line_has_the_format_that_filebeat_expects(watched):
    lines = watched.lost.log.read_text().splitlines()

    assert lines
    for line in lines:
        event = json.loads(line)
        assert {"@timestamp", "message", "log.level", "ecs.version"} <= event.keys()
        assert event["service"]["environment"] == "production"
