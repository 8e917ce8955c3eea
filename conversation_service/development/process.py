"""Child processes that do not outlive the process that started them."""

import ctypes
import importlib.util
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext, suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

PR_SET_PDEATHSIG = 1

# Requests a SIGTERM from the kernel when the parent dies, then becomes the server. preexec_fn could
# deadlock, as PyMongo starts threads in the parent.
MORTAL = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, {int(signal.SIGTERM)})
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


# The servers that this process has started with a name, and has not stopped.
named: dict[str, subprocess.Popen[bytes]] = {}


class CannotStart(Exception):
    """A server did not start. The message has the reason and the remedy."""


def find(program: str, wheel: str, pattern: str, *, otherwise: str, also: str = "") -> str:
    """Return a program's path: from its wheel, or else from PATH, under its name or `also`.

    Raises CannotStart, with the remedy `otherwise`.
    """
    package = importlib.util.find_spec(wheel)  # found, not imported: only its files are used
    for folder in (package and package.submodule_search_locations) or []:
        for executable in Path(folder).glob(pattern):
            if not os.access(executable, os.X_OK):  # some wheels lack the mode
                with suppress(OSError):  # another user owns the installation
                    executable.chmod(0o755)
            if os.access(executable, os.X_OK):
                return str(executable)
    if installed := shutil.which(program) or shutil.which(also):
        return installed
    raise CannotStart(
        f"No {program} that this user can run is on the PATH or in a wheel. Either "
        f"requirements/local.txt is not installed, or it has no wheel for {platform.system()} on "
        f"{platform.machine()}. {otherwise}"
    )


def start(
    command: list[str],
    *,
    name: str = "",
    output: Path | None = None,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a server in its own session, so that Ctrl-C reaches only its parent.

    On Linux it gets SIGTERM when this process dies, even by SIGKILL. Call this from the main
    thread: the kernel sends the signal when the calling thread ends. `output` is emptied first, and
    may be truncated while the server runs.
    """
    if sys.platform == "linux":
        shim = [sys.executable, "-I", "-S", "-c", MORTAL, str(os.getpid())]
        command = [*shim, *command]
    if output:
        output.write_bytes(b"")
    with output.open("ab") if output else nullcontext() as stream:
        server = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream and subprocess.STDOUT,
            start_new_session=True,
            cwd=folder,
            env=environment,
        )
    if name:
        named[name] = server
    return server


def wait_until(
    ready: Callable[[], bool],
    server: subprocess.Popen[bytes],
    *,
    name: str,
    timeout_s: float,
    otherwise: str,
) -> None:
    """Wait until a server is ready.

    Raises CannotStart, with the remedy `otherwise`, if the server stops or is late.
    """
    deadline = time.monotonic() + timeout_s
    while not ready():
        if server.poll() is not None:
            raise CannotStart(f"{name} stopped with status {server.returncode}. {otherwise}")
        if time.monotonic() > deadline:
            raise CannotStart(
                f"{name} did not become ready within {timeout_s:.0f} seconds. {otherwise}"
            )
        time.sleep(0.02)


def stop(process: subprocess.Popen[bytes], *, timeout_s: float) -> None:
    """Send SIGTERM to a server, and kill it after `timeout_s`."""
    for name in [name for name, server in named.items() if server is process]:
        del named[name]
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def limit_size(log: Path, *, max_bytes: int) -> None:
    """Move a log's content above `max_bytes` to NAME.old, while a server writes to it."""
    if log.is_file() and log.stat().st_size > max_bytes:
        shutil.copyfile(log, log.with_name(f"{log.name}.old"))
        os.truncate(log, 0)


def die_with_parent() -> None:
    """Have the kernel send this process a SIGTERM when its parent dies. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))


def wait_for_former(pid_file: Path, *, mark: str, timeout_s: float) -> None:
    """Wait until a server that a killed launcher left behind has stopped, or raise CannotStart.

    The system reuses process ids: the process is ours only if `mark` is a word in its command line.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            pid = int(pid_file.read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return
        if os.fsencode(mark) not in words:
            return
        if time.monotonic() > deadline:
            raise CannotStart(
                f"A server of an earlier run (process {pid}) does not stop. "
                f"End it with `kill {pid}` and try again."
            )
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_trouble(port: int, *, host: str = "127.0.0.1") -> str:
    """Return why no server can listen on a port, such as "Address already in use", or "".

    `host` is a name or an address, IPv4 or IPv6. Port 0 checks the host alone.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def responds(url: str, *, timeout_s: float) -> bool:
    """Return True if a GET of an http URL returns 200. No proxy is used."""
    parts = urlsplit(url)
    try:
        with closing(HTTPConnection(parts.netloc, timeout=timeout_s)) as connection:
            connection.request("GET", parts.path)
            return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):  # refused, reset, late, or not HTTP
        return False
