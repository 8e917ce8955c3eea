"""A row of config/upstreams.py is all that an upstream needs, besides the module of its client."""

import pytest
from django.test import Client

from config.upstreams import UPSTREAMS, Upstream
from conversation_service import health
from conversation_service.upstreams import http
from tests.conversation_service import loopback
from tests.conversations.admin.browser import staff, text


@pytest.fixture
def voices(settings, monkeypatch):
    """Another upstream, which responds with [1]."""
    row = Upstream("voices", "Voices", url="http://127.0.0.1:8005", read_timeout_s=1.0)
    monkeypatch.setitem(UPSTREAMS, row.name, row)
    monkeypatch.setattr(health, "_reports", health._Reports())
    for name, variable in row.variables().items():
        setattr(settings, name, variable.default)
    with loopback.serving(loopback.respond(b"[1]")) as address:
        settings.VOICES_SERVICE_URL = f"http://{address}"
        yield row


def test_a_row_declares_the_variables_of_an_upstream(voices):
    assert {*voices.variables()} == {
        "VOICES_SERVICE_URL",
        "VOICES_CONNECT_TIMEOUT_S",
        "VOICES_READ_TIMEOUT_S",
        "VOICES_RETRIES",
        "VOICES_BREAKER_THRESHOLD",
        "VOICES_BREAKER_RECOVERY_S",
    }


def test_a_row_gives_an_upstream_a_client_with_metrics(voices):
    assert http.client("voices").get("/x", http.UpstreamResponse.json) == [1]

    metrics = Client().get("/metrics").content.decode()
    assert 'upstream_requests_total{outcome="answered",upstream="voices"}' in metrics
    assert 'circuit_breaker_state{upstream="voices"} 0.0' in metrics


def test_a_row_adds_an_upstream_to_the_health_report(voices, patient_health):
    report = Client().get("/health").json()

    assert report["dependencies"]["voices_service"]["status"] == "healthy"


def test_a_row_adds_an_upstream_to_the_dashboard(voices, patient_health):
    page = text(staff("view_conversation").get("/admin/"))

    assert "Voices service healthy" in page
