"""The service as a container, seen from outside."""

import json
import socket
import time
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

from tests.image.engine import docker

URL = "http://127.0.0.1:8003"
API = f"{URL}/api/v1/conversations"
NO_CAPABILITY = "0000000000000000"


def get(url: str, *, token: str = "", host: str = "") -> tuple[int, bytes]:
    return call("GET", url, token=token, host=host)


def call(
    method: str, url: str, body: Any = None, *, token: str = "", host: str = ""
) -> tuple[int, bytes]:
    """Return any status and body."""
    headers = {"Content-Type": "application/json"}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    headers |= {"Host": host} if host else {}
    data = None if body is None else json.dumps(body).encode()
    parts = urlsplit(url)
    # Not urllib.request: it would use the proxy of the environment.
    with closing(HTTPConnection(parts.netloc, timeout=30)) as connection:
        connection.request(method, url.removeprefix(f"http://{parts.netloc}"), data, headers)
        response = connection.getresponse()
        return response.status, response.read()


def eventually(condition: Callable[[], bool], *, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.2)


def talk(token: str) -> None:
    """Create a conversation, read it, update it, and purge it."""
    status, body = call("POST", API, {"character_id": "luna", "title": "Noche"}, token=token)
    assert status == 201, body
    one = f"{API}/{json.loads(body)['id']}"
    status, body = call("PATCH", one, {"title": "Luna"}, token=token)
    assert (status, json.loads(body)["title"]) == (200, "Luna")
    status, body = get(f"{API}?search=lun", token=token)
    assert (status, b"Luna" in body) == (200, True)
    for address in (one, f"{one}?mode=purge"):
        status, body = call("DELETE", address, token=token)
        assert status in {200, 204}, body
    assert get(one, token=token)[0] == 404


class Upload:
    """A request with an incomplete body."""

    def __init__(self, token: str) -> None:
        body = json.dumps({"character_id": "luna", "title": "In flight"}).encode()
        head = (
            f"POST /api/v1/conversations HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._rest = body[10:]
        self._connection = socket.create_connection(("127.0.0.1", 8003), timeout=30)
        self._connection.sendall(head.encode() + body[:10])

    def finish(self) -> int:
        """Send the rest and return the status of the response."""
        with self._connection:
            self._connection.sendall(self._rest)
            response = HTTPResponse(self._connection)
            response.begin()
            return response.status


def require_contained(container: str) -> None:
    """Check inside a container: a user without rights and a read-only root."""
    status = docker("exec", container, "cat", "/proc/self/status")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["Uid"].split() == ["1000"] * 4, facts["Uid"]
    assert facts["Gid"].split() == ["1000"] * 4, facts["Gid"]
    assert (facts["CapEff"], facts["CapBnd"]) == (NO_CAPABILITY, NO_CAPABILITY)
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    found = docker(
        *("exec", container, "sh", "-c"),
        "for folder in / /app /app/var /etc /opt/venv; do touch $folder/new 2>&1; done; true",
    )
    assert found.count("Read-only file system") == 5, found


def require_loopback_only(*containers: str) -> None:
    for container in containers:
        published = json.loads(docker("inspect", container))[0]["NetworkSettings"]["Ports"]
        hosts = {binding["HostIp"] for bindings in published.values() for binding in bindings or []}
        assert hosts <= {"127.0.0.1"}, (container, published)


def exit_code(container: str) -> str:
    return docker("inspect", "--format", "{{.State.ExitCode}}", container)
