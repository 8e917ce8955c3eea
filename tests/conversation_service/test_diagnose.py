"""`manage.py diagnose`: the state of a deployment on one screen, and as JSON."""

import json
from contextlib import ExitStack
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.core.management import CommandError, call_command

from config.env import SECRETS, env
from config.upstreams import UPSTREAMS
from conversation_service import diagnosis
from tests.config.test_settings import manage
from tests.conversation_service import loopback
from tests.conversation_service.http.test_jwks import public_jwk
from tests.conversations.admin.chromium import serving
from tests.factories import PATH, client_of, token

PASSWORD = "Zm9vYmFy"


@pytest.fixture(autouse=True)
def _upstreams(settings, monkeypatch, patient_health):
    """Upstreams that work, and no service on this machine. Each probe can take its time."""
    monkeypatch.setattr(diagnosis, "MONGODB_S", 60.0)
    monkeypatch.setattr(diagnosis, "SERVICE_S", 60.0)
    monkeypatch.setitem(env.overrides, "PORT", int(loopback.closed_port().rpartition(":")[2]))
    with ExitStack() as stack:
        for name in UPSTREAMS:
            address = stack.enter_context(loopback.serving(loopback.respond()))
            setattr(settings, f"{name.upper()}_SERVICE_URL", f"http://{address}")
        yield


def diagnosed(capsys) -> dict:
    """Run the command; return its JSON with the exit code."""
    try:
        call_command("diagnose", "--json")
        code = 0
    except CommandError as error:
        code = error.returncode
    return {"code": code, **json.loads(capsys.readouterr().out.splitlines()[-1])}


def test_nothing_is_wrong_with_a_healthy_deployment(mongo, capsys):
    found = diagnosed(capsys)

    assert (found["code"], found["wrong"]) == (0, [])
    assert {each["status"] for each in found["dependencies"].values()} == {"healthy"}
    assert found["mongodb"]["replica_set"] == "rs0"
    assert abs(found["mongodb"]["clock_skew_s"]) < 1
    assert found["redis"]["version"]
    assert found["indexes"]["states"].keys() == {"kept"}
    assert found["service"] == {
        "url": found["service"]["url"],
        "runs": False,
        "fault": None,
        "server_errors": {},
        "counters": {},
    }


def test_it_fits_on_a_screen(mongo, capsys):
    call_command("diagnose")

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 45
    for part in ("Dependencies", "MongoDB 6.", "Service: none runs", "more have their default"):
        assert any(part in line for line in lines)


def test_a_differing_index_is_named(mongo, capsys):
    mongo["conversations"].drop_index("staff_user")
    try:
        found = diagnosed(capsys)
    finally:
        call_command("setup_indexes", verbosity=0)

    assert found["code"] == 1
    [row] = found["indexes"]["differing"]
    assert (row["name"], row["state"]) == ("staff_user", "missing")
    assert found["wrong"] == [
        "1 indexes or validators differ: manage.py setup_indexes --dry-run shows them"
    ]


@pytest.mark.parametrize("ahead_s", [60, -60])
def test_a_clock_that_differs_is_wrong(mongo, capsys, monkeypatch, ahead_s):
    now = diagnosis.time
    monkeypatch.setattr(diagnosis, "time", lambda: now() + ahead_s)

    found = diagnosed(capsys)

    assert found["code"] == 1
    assert timedelta(seconds=found["mongodb"]["clock_skew_s"]).total_seconds() == pytest.approx(
        -ahead_s, abs=2
    )
    assert "Synchronize both clocks" in found["wrong"][0]


def test_a_dependency_that_fails_is_named_with_address_and_reason(mongo, capsys, settings):
    address = loopback.closed_port()
    settings.AUTH_SERVICE_URL = f"http://{address}"
    settings.REDIS_URL = f"redis://:{PASSWORD}@{address}/0"

    found = diagnosed(capsys)

    assert found["code"] == 1
    assert [text.partition(": ")[0] for text in found["wrong"]] == [
        f"redis at {address} is unhealthy",
        f"auth_service at {address} is unhealthy",
    ]
    assert all("refused" in text for text in found["wrong"])
    assert PASSWORD not in json.dumps(found)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<html>", ""),
        (b'{"keys": []}', ": No key is for RS256"),
        (b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', ": No key is for RS256"),
    ],
)
def test_keys_of_the_token_issuer_that_cannot_be_used_are_wrong(
    mongo, capsys, settings, body, reason
):
    settings.JWT_ALGORITHM = ["RS256"]
    with loopback.serving(loopback.respond(body)) as address:
        settings.JWT_JWKS_URL = f"http://{address}/keys?tenant=secret"
        found = diagnosed(capsys)

    [wrong] = found["wrong"]
    assert wrong.startswith(f"jwt_keys at {address} is unhealthy{reason}")
    assert "tenant" not in json.dumps(found["dependencies"])


def test_keys_of_the_token_issuer_are_healthy(mongo, capsys, settings):
    body = json.dumps({"keys": [public_jwk(ec.generate_private_key(ec.SECP256R1()))]}).encode()
    settings.JWT_ALGORITHM = ["HS256", "ES256"]
    with loopback.serving(loopback.respond(body)) as address:
        settings.JWT_JWKS_URL = f"http://{address}"
        found = diagnosed(capsys)

    assert found["wrong"] == []
    assert found["dependencies"]["jwt_keys"]["status"] == "healthy"


def test_the_service_on_this_machine_reports_its_errors(mongo, capsys, monkeypatch, settings):
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    with serving() as url:
        monkeypatch.setitem(env.overrides, "PORT", int(url.rpartition(":")[2]))
        settings.CHARACTER_CHECK, characters = "strict", settings.CHARACTERS_SERVICE_URL
        settings.CHARACTERS_SERVICE_URL = f"http://{loopback.closed_port()}"
        assert client_of("alice").post(PATH, {"character_id": "x"}).status_code == 503
        settings.CHARACTERS_SERVICE_URL = characters
        client_of("alice").get(PATH, headers={"Authorization": f"Bearer {token()}x"})

        service = diagnosed(capsys)["service"]

    assert (service["runs"], service["fault"]) == (True, None)
    assert any(name.startswith("503 POST ") for name in service["server_errors"])
    assert any(name.startswith("authentication_failures ") for name in service["counters"])


@pytest.mark.parametrize(
    ("talk", "fault"),
    [
        (loopback.respond(status="503 Down"), "not ready, /health/ready returns 503"),
        (loopback.silence, "no usable response"),
        (loopback.respond(b"<html>"), "another program uses this port"),
        (
            loopback.respond(b'http_requests_total{code="200"} 1\n'),
            "another program uses this port",
        ),
        (
            loopback.respond(b'http_requests_total{status=""} 1\n'),
            "another program uses this port",
        ),
    ],
)
def test_a_service_that_does_not_work_is_wrong(mongo, capsys, monkeypatch, talk, fault):
    if talk is loopback.silence:
        monkeypatch.setattr(diagnosis, "SERVICE_S", 0.2)
    with loopback.serving(talk) as address:
        monkeypatch.setitem(env.overrides, "PORT", int(address.rpartition(":")[2]))

        found = diagnosed(capsys)

    assert found["code"] == 1
    assert fault in found["wrong"][0]


def test_without_mongodb_it_prints_the_rest_and_exits_with_3():
    address = loopback.closed_port()
    url = f"mongodb://user:{PASSWORD}@{address}/?replicaSet=rs0"

    done = manage("diagnose", "--json", MONGODB_URL=url)

    assert done.returncode == 3
    found = json.loads(done.stdout)
    assert found["mongodb"] is None
    assert found["wrong"][0].startswith(f"mongodb at {address} is unhealthy: {address}: ")
    assert found["versions"]["service"]
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stdout + done.stderr


def test_each_setting_has_its_source_and_secrets_are_masked(tmp_path):
    secret_file = tmp_path / "secret"
    secret_file.write_text(PASSWORD * 8)
    done = manage(
        "diagnose",
        "--json",
        MONGODB_URL=f"mongodb://user:{PASSWORD}@{loopback.closed_port()}/?replicaSet=rs0",
        REDIS_URL=f"redis://:{PASSWORD}@{loopback.closed_port()}/0?socket_timeout=1",
        JWT_JWKS_URL=f"https://user:{PASSWORD}@auth.example.org/keys?key={PASSWORD}",
        JWT_ALGORITHM="HS256,RS256",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"https://user:{PASSWORD}@collector.example.org",
        SECRET_KEY_FILE=str(secret_file),
        SECRET_KEY_FALLBACKS=f"{PASSWORD * 5},{PASSWORD * 6}",
        JWT_SECRET_KEY=PASSWORD * 7,
        TRASH_DAYS="7",
    )

    assert PASSWORD not in done.stdout + done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["settings"]}
    assert rows.keys() == env.scheme.keys()
    assert rows["SECRET_KEY"] == {
        "name": "SECRET_KEY",
        "value": "set, 64 bytes",
        "is_default": False,
        "source": f"file {secret_file}",
    }
    assert rows["SECRET_KEY_FALLBACKS"]["value"] == "set, 40 bytes, set, 48 bytes"
    assert rows["JWT_JWKS_URL"]["value"] == "https://***@auth.example.org?…"
    assert (rows["TRASH_DAYS"]["value"], rows["TRASH_DAYS"]["source"]) == (7, "environment")
    assert rows["TOMBSTONE_DAYS"]["source"] == "default"
    assert rows["MONGODB_TIMEOUT_MS"]["source"] == "this command"


def test_every_secret_is_masked():
    named = {name for name in env.scheme if "SECRET" in name or "PASSWORD" in name}

    assert named == {*SECRETS}
