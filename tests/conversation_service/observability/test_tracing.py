"""Traces, received by a collector on this machine."""

import subprocess
import sys

import pytest
import requests
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from conversation_service.development.process import free_port
from tests.config.processes import eventually
from tests.config.test_gunicorn import serving
from tests.conversation_service.observability.conftest import attributes
from tests.factories import token
from tests.failpoints import failing

LIST = "/api/v1/conversations"
TRACE = "0af7651916cd43dd8448eb211c80319c"
ALICE = {"Authorization": f"Bearer {token('alice')}"}


def sending_to(collector) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_RESOURCE_ATTRIBUTES": "service.version=canary,team=chat",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }


@pytest.fixture(scope="module")
def server(collector, tmp_path_factory):
    options = sending_to(collector) | {
        "ACCESS_LOG": "true",
        "LOG_FORMAT": "ecs",
    }
    log = tmp_path_factory.mktemp("tracing") / "log"
    with serving(log, "config.wsgi:application", **options) as server:
        yield server


def trace_of(collector, trace_id: str) -> list:
    return [span for span in collector.spans if span.trace_id.hex() == trace_id]


def test_a_request_continues_the_trace_of_its_caller(server, collector):
    headers = ALICE | {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}

    server.get(f"{LIST}?search=rumpelstiltskin", headers=headers)

    eventually(lambda: len(trace_of(collector, TRACE)) >= 2)
    spans = {span.name: span for span in trace_of(collector, TRACE)}
    request = spans.pop(f"GET {LIST}")
    assert request.parent_span_id.hex() == "b7ad6b7169203331"
    assert attributes(request)["http.route"] == f'string_value: "{LIST}"\n'
    assert {span.parent_span_id for span in spans.values()} == {request.span_id}  # MongoDB's
    assert "rumpelstiltskin" not in str(trace_of(collector, TRACE))


def test_attributes_from_the_environment_take_precedence(server, collector):
    server.get(LIST, headers=ALICE)

    eventually(lambda: any("chat" in each.get("team", "") for each in collector.resources))
    [resource, *_] = [each for each in collector.resources if "chat" in each.get("team", "")]
    assert "conversation-service" in resource["service.name"]
    assert "canary" in resource["service.version"]


def test_log_lines_contain_the_trace(server):
    server.get(LIST, headers=ALICE | {"traceparent": f"00-{TRACE[::-1]}-b7ad6b7169203331-01"})

    assert f'"trace":{{"id":"{TRACE[::-1]}"}}' in server.log.read_text()


def test_a_request_without_a_trace_starts_one(server, collector):
    known = len(collector.spans)

    server.get(f"{LIST}/64b7f0f0f0f0f0f0f0f0f0f0", headers=ALICE)

    eventually(lambda: f"GET {LIST}/{{id}}" in [span.name for span in collector.spans[known:]])


def test_health_checks_are_not_traced(server, collector):
    server.get("/health/live")
    server.get("/metrics")
    server.get(LIST, headers=ALICE)

    eventually(lambda: collector.spans)
    assert not [span for span in collector.spans if "health" in span.name or "metrics" in span.name]


def test_spans_of_failures_have_no_texts(collector, tmp_path):
    options = sending_to(collector) | {
        "CHARACTER_CHECK": "lenient",
        "CHARACTERS_SERVICE_URL": f"http://127.0.0.1:{free_port()}",
    }
    collector.spans.clear()
    with serving(tmp_path / "log", "config.wsgi:application", **options) as server:
        url = f"http://127.0.0.1:{server.port}{LIST}"
        body = {"character_id": "rumpelstiltskin"}
        created = requests.post(url, json=body, headers=ALICE, timeout=60)
        with failing(errorCode=2):
            listed = server.get(LIST, headers=ALICE)

    assert (created.status_code, listed.status_code) == (201, 500)
    failed = {span.name for span in collector.spans if span.status.code == Status.STATUS_CODE_ERROR}
    assert {"GET", f"GET {LIST}"} < failed  # of Characters, and of this service
    texts = str(collector.spans)
    assert "127.0.0.1" in texts
    assert "rumpelstiltskin" not in texts
    assert "failCommand" not in texts


@pytest.mark.parametrize(
    "switch", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_PROPAGATORS": "none"}], ids=str
)
def test_variables_of_opentelemetry_break_no_request(collector, tmp_path, switch):
    options = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **switch}

    with serving(tmp_path / "log", "config.wsgi:application", **options) as server:
        assert server.get(LIST, headers=ALICE).status_code == 200


def test_without_a_collector_no_exporter_is_imported():
    program = "import sys, config.wsgi; print(*sys.modules)"

    modules = subprocess.check_output([sys.executable, "-c", program], text=True).split()

    assert "conversation_service.observability.tracing" in modules
    assert "opentelemetry.exporter.otlp" not in modules  # redis itself imports the SDK
