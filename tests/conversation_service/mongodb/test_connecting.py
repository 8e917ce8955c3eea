"""Responses and logs while MongoDB cannot be reached, or MONGODB_URL is wrong."""

import re
import socket
import threading
from contextlib import contextmanager
from urllib.parse import urlsplit

import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest
from django.db import DEFAULT_DB_ALIAS, connections
from django.test import Client
from django_mongodb_backend.base import DatabaseWrapper

from config.env import env
from conversation_service.mongodb import reachability
from conversation_service.mongodb.connection import collection
from conversation_service.mongodb.engine.base import CONNECTING
from conversation_service.mongodb.monitor import topology
from conversation_service.observability import metrics
from tests.config.test_gunicorn import serving
from tests.conversation_service import loopback
from tests.factories import PATH, NewConversation, conversation
from tests.failpoints import failing
from tests.running import started

SRV = "mongodb+srv://cluster.mongo.test/?replicaSet=rs0&tls=false&srvAllowedHostsSuffix=0.0.1"
PASSWORD = "open-sesame"


def address() -> str:
    """The host:port of the tests' MongoDB."""
    return urlsplit(env("MONGODB_URL")).netloc


class Names:
    """A name server on the loopback interface."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self.answer = self.well

    def serve(self) -> None:
        while True:
            data, client = self._channel.recvfrom(4096)
            if not data:
                return
            if response := self.answer(dns.message.from_wire(data)):
                self._channel.sendto(response.to_wire(), client)

    def well(self, query):
        return self._with(query, f"0 0 {address().partition(':')[2]} 127.0.0.1.")

    def elsewhere(self, query):
        return self._with(query, "0 0 27017 another.example.")

    def failing(self, query):
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.SERVFAIL)
        return response

    def unknown(self, query):
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.NXDOMAIN)
        return response

    def silent(self, query):
        return None

    def _with(self, query, target):
        response = dns.message.make_response(query)
        [question] = query.question
        if question.rdtype == dns.rdatatype.SRV:
            response.answer = [dns.rrset.from_text(question.name, 0, "IN", "SRV", target)]
        return response


@pytest.fixture
def names(monkeypatch):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.bind(("127.0.0.1", 0))
        names = Names(channel)
        server = threading.Thread(target=names.serve)
        server.start()
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], channel.getsockname()[1]
        monkeypatch.setattr(dns.resolver, "default_resolver", resolver)
        yield names
        channel.sendto(b"", channel.getsockname())
        server.join()


@contextmanager
def connected(url: str):
    """Reconnect the service to this URL, with a time limit of 0.5 s."""

    connection = connections[DEFAULT_DB_ALIAS]

    def forget() -> None:
        connection.connection = None
        vars(connection).pop("database", None)

    with pytest.MonkeyPatch.context() as patch:
        pools: dict = {}
        patch.setattr(DatabaseWrapper, "_connection_pools", pools)
        patch.setitem(connection.settings_dict, "HOST", url)
        patch.setitem(connection.settings_dict["OPTIONS"], "timeoutMS", 500)
        patch.setitem(metrics.every_second, "mongodb", metrics.every_second.get("mongodb"))
        patch.setattr(topology, "_failures", {})
        forget()
        yield
        for thread in threading.enumerate():
            if thread.name == CONNECTING:
                thread.join()
        for client in pools.values():
            client.close()
        forget()


def unavailable(response) -> bool:
    return (
        response.status_code == 503
        and response.json()["error"]["code"] == "DATABASE_UNAVAILABLE"
        and response.headers["Retry-After"] == "2"
    )


@pytest.mark.parametrize("answer", ["failing", "unknown", "silent", "elsewhere"])
def test_without_name_resolution_the_database_is_503(alice, names, log, answer):
    names.answer = getattr(names, answer)
    with connected(SRV):
        assert unavailable(alice.get(PATH))
        assert unavailable(alice.post(PATH, NewConversation()))
        assert Client().get("/health/ready").status_code == 503
        assert Client(raise_request_exception=False).get("/admin/login/").status_code in {200, 503}
        names.answer = names.failing  # ends the look-up that waits for a response

    reasons = re.findall("MongoDB at MONGODB_URL cannot be used: (.*)", log.getvalue())
    assert len(reasons) == len({*reasons}) > 0
    assert "Traceback" not in log.getvalue()


def test_the_service_connects_as_soon_as_names_resolve(alice, names):
    names.answer = names.failing
    with connected(SRV):
        assert unavailable(alice.get(PATH))
        names.answer = names.well

        assert alice.get(PATH).status_code == 200
        assert Client().get("/health/ready").status_code == 200


def test_a_host_that_does_not_resolve_is_503(alice, log):
    with connected("mongodb://nowhere.invalid/?replicaSet=rs0"):
        assert unavailable(alice.get(PATH))
        assert Client().get("/health/ready").status_code == 503

    assert "MongoDB at nowhere.invalid:27017 cannot be used" in log.getvalue()


def test_a_host_with_a_hanging_name_resolution_is_503(alice, monkeypatch):
    released = threading.Event()
    resolve = socket.getaddrinfo

    def hang(host, *arguments, **options):
        if host == "hanging.invalid":
            released.wait(60)
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        with connected("mongodb://hanging.invalid/?replicaSet=rs0"):
            assert unavailable(alice.get(PATH))
            assert unavailable(alice.post(PATH, NewConversation()))
            released.set()
    finally:
        released.set()


@pytest.mark.parametrize(
    "url",
    [
        f"mongodb://user:%zz{PASSWORD}@127.0.0.1/",
        f"mongodb://127.0.0.1:{PASSWORD}/",
        f"mongo://user:{PASSWORD}@127.0.0.1/",
        f"mongodb+srv://user:{PASSWORD}@127.0.0.1:1/",
    ],
)
def test_an_invalid_url_is_503_and_not_logged(alice, log, url):
    with connected(url):
        assert unavailable(alice.get(PATH))
        assert Client().get("/health/ready").status_code == 503

    assert PASSWORD not in log.getvalue()
    assert "Traceback" not in log.getvalue()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda url: url.replace("://", f"://user:{PASSWORD}@"), "AuthenticationFailed"),
        (lambda url: f"{url}&tls=true", "SSL handshake failed"),
        (lambda url: url.replace("=rs0", "=another"), "replica set 'another'"),
        (lambda url: f"mongodb://{loopback.closed_port()}/", "Connection refused"),
    ],
    ids=["password", "TLS", "replica set", "port"],
)
def test_the_reason_is_logged_once_and_not_per_request(alice, log, change, reason):
    with connected(change(env("MONGODB_URL"))):
        for _ in range(4):
            assert unavailable(alice.get(PATH))

    lines = log.getvalue().splitlines()
    assert sum(reason in line for line in lines if "cannot be used" in line) == 1
    assert PASSWORD not in log.getvalue()
    assert "Traceback" not in log.getvalue()


def test_reads_go_to_the_primary_with_any_url(alice, commands):
    url = env("MONGODB_URL") + "&readPreference=secondaryPreferred"
    created = conversation(alice)
    with connected(f"{url}&readPreferenceTags=role:reports&maxStalenessSeconds=120"):
        for path in (
            *(PATH, f"{PATH}?search=a", f"{PATH}/overview", f"{PATH}/summary", "/api/v1/tags"),
            *("/api/v1/changes", f"{PATH}/{created['id']}", f"{PATH}/export"),
        ):
            assert alice.get(path).status_code == 200
        body = {"action": "archive", "ids": [created["id"]]}
        assert alice.post(f"{PATH}/bulk", body).json()["summary"]["ok"] == 1

        assert collection("conversations").read_preference.name == "Primary"
        # A client of a replica set sends this to all members but the primary.
        assert [command for command in commands if "$readPreference" in command] == []


def test_a_command_exits_with_the_reason(mongo):
    url = env("MONGODB_URL")
    with (
        loopback.serving(loopback.silence) as silent,
        loopback.serving(lambda channel: None) as closing,
    ):
        expected = {
            url.replace("://", f"://user:{PASSWORD}@"): (5, "AuthenticationFailed"),
            f"{url}&tls=true": (5, "SSL handshake failed"),
            url.replace("=rs0", "=another"): (5, 'replica set name "another"'),
            f"mongodb://{loopback.closed_port()}/": (3, "Connection refused"),
            f"mongodb://{silent}/": (3, f"{silent}: accepts the connection, but does not reply"),
            f"mongodb://{closing}/": (3, "may require TLS"),
            "mongodb://nowhere.invalid/": (3, "nowhere.invalid:27017"),
            f"mongodb+srv://user:{PASSWORD}@nowhere.invalid/": (3, "MONGODB_URL: "),
        }
        running = {
            url: started(mongo, "setup_indexes", "--check", MONGODB_URL=url) for url in expected
        }
        for url, process in running.items():
            out, err = process.communicate(timeout=120)
            code, reason = expected[url]
            assert process.returncode == code, (url, out, err)
            assert reason in err
            assert PASSWORD not in out + err
            assert "Traceback" not in out + err


def test_a_worker_logs_at_its_start_how_far_a_connection_gets(tmp_path):
    with (
        loopback.serving(loopback.silence) as silent,
        serving(
            tmp_path / "log", "config.wsgi:application", MONGODB_URL=f"mongodb://{silent}/"
        ) as server,
    ):
        log = server.log.read_text()

    assert f"cannot be used yet: {silent}: accepts the connection, but does not reply" in log


def test_a_missing_permission_is_the_reason_of_a_command(mongo):
    with failing(errorCode=13, commands=["listCollections", "listIndexes", "find", "aggregate"]):
        for command in (["setup_indexes", "--check"], ["diagnose"]):
            process = started(mongo, *command)
            out, err = process.communicate(timeout=120)

            assert process.returncode == 5, (out, err)
            assert "(Unauthorized). The account in MONGODB_URL lacks a permission." in err


def test_a_name_server_that_does_not_respond_is_the_reason(monkeypatch):
    released = threading.Event()

    def hang(*arguments, **options):
        released.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "late")

    monkeypatch.setattr(reachability, "EXPLANATION_S", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", hang)

    reason = reachability.explain_silence([("a.test", 1), ("b.test", 2)])
    released.set()

    expected = "a.test:1: the name server does not respond, b.test:2: the name server"
    assert reason.startswith(expected)
