"""`manage.py run_neighbours`: stand-ins of the three upstreams, for development."""

import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from django.core.management import CommandError, call_command
from django.urls import path
from rest_framework.test import APIClient
from rest_framework.views import APIView
from standardwebhooks import Webhook

from conversation_service import clock
from conversation_service.development import process
from conversation_service.development.stand_ins.message import message
from conversation_service.development.stand_ins.receiver import SECRET, receiver
from conversation_service.http.authentication import claims_of
from conversation_service.http.rendering import JSONResponse
from conversation_service.upstreams import characters, messages
from tests.conversation_service import loopback
from tests.external_ids import IDS

ROOT = Path(__file__).resolve().parents[3]
CONVERSATION = "507f1f77bcf86cd799439014"


pytestmark = pytest.mark.urls(__name__)


class WhoAmI(APIView):
    def get(self, request):
        return JSONResponse({"id": request.user.id})


urlpatterns = [path("api/v1/me", WhoAmI.as_view())]


class ConversationService:
    """A server that records the activity reports of Message."""

    def __init__(self) -> None:
        self.pushed: list[tuple[str, str, dict]] = []

    def __call__(self, channel) -> None:
        request = b""
        while b"\r\n\r\n" not in request or not request.endswith(b"}"):
            request += channel.recv(65_536)
        head, _, body = request.partition(b"\r\n\r\n")
        line, _, token = head.decode().partition("Authorization: Bearer ")
        self.pushed.append((line.split("\r\n")[0], token.split("\r\n")[0], json.loads(body)))
        channel.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")


@pytest.fixture(scope="module")
def service():
    return ConversationService()


@pytest.fixture(scope="module")
def running(service):
    """The stand-ins, in their own process."""
    ports = [process.free_port() for _ in range(3)]
    with loopback.serving(service) as address:
        command = [
            *(sys.executable, "manage.py", "run_neighbours"),
            f"--ports={','.join(map(str, ports))}",
            f"--service-url=http://{address}",
        ]
        environment = os.environ | {"ENVIRONMENT": "development"}  # noqa: TID251
        environment.pop("DJANGO_SETTINGS_MODULE", None)
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        ) as server:
            lines = [server.stdout.readline() for _ in ports]
            auth, character, message = (f"http://127.0.0.1:{port}" for port in ports)
            yield SimpleNamespace(
                lines=lines, auth=auth, characters=character, message=message, server=server
            )
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0


@pytest.fixture
def upstreams(running, settings):
    settings.AUTH_SERVICE_URL = running.auth
    settings.CHARACTERS_SERVICE_URL = running.characters
    settings.MESSAGE_SERVICE_URL = running.message
    yield running
    for url in (running.auth, running.characters, running.message):
        switch(url, "ok")


def switch(url: str, mode: str) -> requests.Response:
    return requests.put(f"{url}/switch", json={"mode": mode}, timeout=60)


def log_in(url: str, **changed) -> requests.Response:
    body = {"username": "ana", "password": "demo"} | changed
    return requests.post(f"{url}/api/v1/auth/login", json=body, timeout=60)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_it_prints_the_address_of_each_upstream(upstreams):
    assert [line.split() for line in upstreams.lines] == [
        ["auth-service", upstreams.auth],
        ["characters-service", upstreams.characters],
        ["message-service", upstreams.message],
    ]


def test_it_listens_on_the_given_host_and_ports():
    command = [
        *(sys.executable, "manage.py", "run_neighbours"),
        *("--host=127.0.0.2", "--ports=0,0,0"),
    ]
    environment = os.environ | {"ENVIRONMENT": "development"}  # noqa: TID251
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        url = server.stdout.readline().split()[1]
        response = requests.get(f"{url}/health", timeout=60)
        server.terminate()

    assert url.startswith("http://127.0.0.2:")
    assert response.json()["status"] == "healthy"


def test_each_stand_in_is_healthy(upstreams):
    for url in (upstreams.auth, upstreams.characters, upstreams.message):
        assert requests.get(f"{url}/health", timeout=60).json()["status"] == "healthy"


@pytest.mark.parametrize("user", ["ana", *IDS])
def test_auth_issues_tokens_that_the_service_accepts(upstreams, settings, user):
    settings.AUTH_REMOTE_VALIDATION = True
    token = log_in(upstreams.auth, username=user).json()["access_token"]

    response = APIClient().get("/api/v1/me", headers=bearer(token))

    assert response.json() == {"id": user}


@pytest.mark.parametrize(
    ("changed", "status"),
    [({"password": "x"}, 401), ({"username": "an a"}, 422), ({"username": None}, 422)],
)
def test_auth_rejects_a_wrong_login(upstreams, changed, status):
    assert log_in(upstreams.auth, **changed).status_code == status


def test_auth_revokes_tokens(upstreams, settings):
    settings.AUTH_REMOTE_VALIDATION = True
    settings.AUTH_CACHE_TTL = 0
    token = log_in(upstreams.auth).json()["access_token"]
    assert APIClient().get("/api/v1/me", headers=bearer(token)).status_code == 200

    revoke = f"{upstreams.auth}/api/v1/auth/revoke"
    assert requests.post(revoke, headers=bearer(token), timeout=60).status_code == 200

    assert APIClient().get("/api/v1/me", headers=bearer(token)).status_code == 401
    assert requests.post(revoke, headers=bearer("x"), timeout=60).status_code == 401


def test_characters_has_the_characters_of_the_demo(upstreams):
    listed = requests.get(f"{upstreams.characters}/api/v1/characters", timeout=60).json()

    assert {entry["id"] for entry in listed} == {
        *("luna", "captain-nemo", "ada", "sherlock", "don-quijote", "scheherazade")
    }
    assert characters.get("captain-nemo").name == "Captain Nemo"
    assert characters.get("unknown") is None


def test_message_counts_messages_and_reports_activity(upstreams, service):
    conversation = f"{upstreams.message}/api/v1/conversations/{CONVERSATION}/messages"
    requests.post(conversation, json={"sender": "user", "text": "Hello, you!"}, timeout=60)
    said = {"sender": "character", "text": "Good evening."}
    response = requests.post(conversation, json=said, timeout=60)

    assert response.status_code == 201
    assert response.json()["pushed"] == {"status": 200, "applied": True}
    line, token, activity = service.pushed[-1]
    assert line == f"PUT /internal/v1/conversations/{CONVERSATION}/activity HTTP/1.1"
    assert claims_of(token)["scope"] == "conversations:activity"
    assert activity == response.json()["activity"]
    assert activity["sequence"] > service.pushed[0][2]["sequence"]
    assert (activity["message_count"], activity["total_tokens"]) == (2, 7)

    found = messages.stats(CONVERSATION)
    assert (found.message_count, found.total_input_tokens, found.total_output_tokens) == (2, 3, 4)
    assert found.first_message_at <= found.last_message_at


def test_message_accepts_messages_while_the_service_is_down():
    with message(0, service_url=f"http://{loopback.closed_port()}") as server:
        response = requests.post(
            f"{server.url}/api/v1/conversations/{CONVERSATION}/messages",
            json={"sender": "user", "text": "Hello?"},
            timeout=60,
        )

    assert response.status_code == 201
    assert response.json()["pushed"] == {"status": None, "error": "ConnectionError"}


def test_message_has_no_conversation_without_messages(upstreams):
    assert messages.stats("0" * 24) is None


def test_message_rejects_an_invalid_body(upstreams):
    conversation = f"{upstreams.message}/api/v1/conversations/{CONVERSATION}/messages"

    assert requests.post(conversation, json={"sender": "x"}, timeout=60).status_code == 422
    for body in (b"{", b"[]", b" " * 70_000):
        assert requests.post(conversation, data=body, timeout=60).status_code == 400


def test_each_stand_in_can_be_made_to_fail(upstreams):
    health = f"{upstreams.characters}/health"

    switch(upstreams.characters, "error")
    assert requests.get(health, timeout=60).status_code == 500
    switch(upstreams.characters, "nonsense")
    assert requests.get(health, timeout=60).text.startswith("<html>")
    for mode in ("slow", "hang"):
        switch(upstreams.characters, mode)
        with pytest.raises(requests.Timeout):
            requests.get(health, timeout=0.2)
    switch(upstreams.characters, "ok")
    assert requests.get(health, timeout=60).status_code == 200


def test_a_switch_rejects_an_unknown_mode(upstreams):
    assert switch(upstreams.auth, "off").status_code == 422
    assert requests.get(f"{upstreams.auth}/switch", timeout=60).json() == {"mode": "ok"}


def test_unknown_addresses_are_404_and_unknown_methods_405(upstreams):
    assert requests.get(f"{upstreams.auth}/x", timeout=60).status_code == 404
    assert requests.delete(f"{upstreams.auth}/health", timeout=60).status_code == 405


def test_a_taken_port_is_named(settings):
    with loopback.serving(loopback.respond()) as address:
        port = address.partition(":")[2]
        settings.AUTH_SERVICE_URL = f"http://localhost:{port}"
        with pytest.raises(CommandError, match=f"Port {port} cannot be used: Address already in"):
            call_command("run_neighbours")


def test_three_ports_are_needed():
    with pytest.raises(CommandError, match="use 3 ports"):
        call_command("run_neighbours", "--ports=1,2")


def test_an_upstream_on_another_host_is_not_replaced(settings):
    settings.AUTH_SERVICE_URL = "https://auth.example.org"

    with pytest.raises(CommandError, match="not on this machine"):
        call_command("run_neighbours")


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"ENVIRONMENT": "production"}, "ENVIRONMENT=development"),
        ({"JWT_ALGORITHM": "RS256"}, "only the issuer can sign"),
    ],
)
def test_it_is_for_development_only(settings, changed, fault):
    for name, value in changed.items():
        setattr(settings, name, value)

    with pytest.raises(CommandError, match=fault):
        call_command("run_neighbours")


@pytest.fixture
def events():
    with receiver(0) as server:
        yield f"{server.url}/events"


def signed(body: str, *, secret: str = SECRET, age_s: int = 0) -> dict[str, str]:
    id_, at = f"{CONVERSATION}_v2", clock.now() - timedelta(seconds=age_s)
    return {
        "Webhook-Id": id_,
        "Webhook-Timestamp": str(int(at.timestamp())),
        "Webhook-Signature": f"v1,other {Webhook(secret).sign(id_, at, body)}",
    }


EVENT = json.dumps(
    {
        "id": f"{CONVERSATION}_v2",
        "type": "conversation.updated",
        "data": {"conversation_id": CONVERSATION, "version": 2, "fields": ["title", "tags"]},
    }
)


def test_a_signed_event_is_printed_in_one_line(events, capsys):
    done = requests.post(events, EVENT, headers=signed(EVENT), timeout=10)

    assert done.status_code == 200
    line = capsys.readouterr().out
    assert line == f"webhook  conversation.updated   {CONVERSATION} v2 title, tags\n"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        signed(EVENT.replace("title", "custom")),
        signed(EVENT, secret="whsec_" + "a" * 32),
        signed(EVENT, age_s=600),
        signed(EVENT) | {"Webhook-Timestamp": "now"},
        signed(EVENT) | {"Webhook-Signature": ""},
    ],
    ids=["nothing", "another body", "another secret", "old", "no time", "no signature"],
)
def test_an_event_with_another_signature_is_rejected(events, headers, capsys):
    done = requests.post(events, EVENT, headers=headers, timeout=10)

    assert done.status_code == 401
    assert capsys.readouterr().out == ""
