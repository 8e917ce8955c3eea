"""`make run`: the whole service on one machine, without installation or configuration.

Starts MongoDB and Valkey unless MONGODB_URL and REDIS_URL name others, prepares the database and
serves the API. Ctrl-C or SIGTERM stops these servers in reverse order.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NoReturn
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from config.env import choose_settings, env, own_address, with_port
from config.local_run import SERVERS, last_servers, var
from config.upstreams import UPSTREAMS
from config.validation import FaultyConfiguration, require_valid
from conversation_service.development import process
from conversation_service.development.mongod import mongod
from conversation_service.development.process import CannotStart
from conversation_service.development.stand_ins.receiver import receiver
from conversation_service.development.stand_ins.server import LOOPBACK
from conversation_service.development.valkey import valkey

VAR = var()
PORT = env("PORT")
ADDRESS = own_address()
USER = "demo"  # the owner of the demo data
URL = f"http://{with_port(ADDRESS)}"
START_S = 30.0
STOP_S = 30.0  # gunicorn lets running requests finish for 25
ANSWER_S = 5.0

STAND_INS = "The process with the stand-ins"
PUBLISHER, DELIVERER = "The publisher of events", "The deliverer of webhooks"
RECEIVER_PORT = 8005  # if it is free
LOOK_S = 0.5  # between two looks at the servers
MAX_LOG_BYTES = 10_000_000

BANNER = """
The Conversation Service is running; Ctrl-C stops it.

  Start    {url}/
  Docs     {url}/api/docs
  Console  {url}/admin/  (admin / admin)
  Webhooks {receiver} gets each event; this terminal shows a line for each
  MongoDB  {mongodb}
  Valkey   {redis}
  Auth, Characters, Message stand-ins: {upstreams}

Commands in another terminal use these servers: .venv/bin/python manage.py diagnose
Tokens of other users: make token USER=name

Try it, as the user "{user}". These lines are ready to paste:

{no_proxy}TOKEN={token}
API={url}/api/v1
{calls}
"""
CONSEQUENCES = {
    "MongoDB": "The API rejects requests (503).",
    "Valkey": "The API works without it.",
    STAND_INS: "New conversations have unverified characters.",
    PUBLISHER: "Changes are published when it runs again.",
    DELIVERER: "Events are delivered when it runs again.",
}
LOGS = {
    "MongoDB": "mongodb.log",
    "Valkey": "valkey.log",
    STAND_INS: "upstreams.log",
    PUBLISHER: "events.log",
    DELIVERER: "webhooks.log",
}
# The README has the same.
CALLS = """
# Create a conversation, and find it by the start of a word
curl -H "Authorization: Bearer $TOKEN" $API/conversations \\
     -H "Content-Type: application/json" -d '{"character_id": "luna", "title": "Café con Luna", "tags": ["casual"]}'
curl -H "Authorization: Bearer $TOKEN" "$API/conversations?search=caf&limit=5"

# Change the title and one setting, and add a tag, if the version is still 1
ID=$(curl -s -H "Authorization: Bearer $TOKEN" "$API/conversations?search=caf&limit=1" | grep -oE '[0-9a-f]{24}' | head -1)
curl -X PATCH -H "Authorization: Bearer $TOKEN" $API/conversations/$ID -H 'If-Match: "v1"' \\
     -H "Content-Type: application/json" -d '{"title": "Luna", "settings": {"temperature": 1.1}, "tags_add": ["night"]}'

# Stream changes until Ctrl-C: first all conversations, then each change from a second terminal
curl -N -H "Authorization: Bearer $TOKEN" $API/changes -H "Accept: text/event-stream"
"""  # noqa: E501


def main() -> int:
    process.die_with_parent()
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    try:
        with ExitStack() as started:
            return run(started)
    except (CannotStart, FaultyConfiguration) as error:
        print(error, file=sys.stderr)
        return 1


def stop(number: int, frame: Any) -> NoReturn:
    """End the launcher, which stops its servers. Later signals do not interrupt that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(1, f"\nStopping ({signal.Signals(number).name}) ...\n".encode())
    sys.exit(0)


def run(started: ExitStack) -> int:
    if env("ENVIRONMENT") != "development":
        raise CannotStart("This is for development only; unset ENVIRONMENT.")
    # For gunicorn and Django. The secrets are public: listen on this machine only.
    os.environ.setdefault("HOST", "127.0.0.1")
    # The receiver's address, for the API and the deliverer.
    os.environ["WEBHOOK_ALLOWED_HOSTS"] = ",".join({LOOPBACK, *env("WEBHOOK_ALLOWED_HOSTS")})
    choose_settings()
    require_valid(listens=True)
    started.enter_context(only_one())
    require_port()
    start_databases(started)
    upstreams = start_stand_ins(started)
    # Imported after the environment is complete: it reads the settings.
    from conversation_service.development.dev_database import prepare  # noqa: PLC0415

    webhooks = started.enter_context(receiver(first_free([RECEIVER_PORT])))
    print("Preparing the database ...", flush=True)
    receiver_url = f"{webhooks.url}/events"
    token = prepare(webhook=receiver_url)
    web = started.enter_context(gunicorn())
    start_command(started, PUBLISHER, "publish_events", "--port=0", stop_s=STOP_S)
    start_command(started, DELIVERER, "deliver_webhooks", "--port=0", stop_s=STOP_S)
    print(
        BANNER.format(
            url=URL,
            mongodb=env("MONGODB_URL"),
            redis=env("REDIS_URL"),
            upstreams=upstreams,
            receiver=receiver_url,
            user=USER,
            token=token,
            calls=CALLS.strip(),
            no_proxy=no_proxy(),
        ),
        flush=True,
    )
    return wait(web)


def wait(web: subprocess.Popen[bytes]) -> int:
    """Wait until the API ends. Meanwhile, report other servers that end, and limit their logs."""
    reported: set[str] = set()
    while True:
        with suppress(subprocess.TimeoutExpired):
            return web.wait(LOOK_S)
        for name, server in process.named.items():
            if name not in reported and server.poll() is not None:
                reported.add(name)
                print(ended(name, server.returncode), file=sys.stderr, flush=True)
        for log in VAR.glob("*.log"):
            process.limit_size(log, max_bytes=MAX_LOG_BYTES)


def ended(name: str, status: int) -> str:
    """Return the message that a server has ended. A negative status is a signal's number."""
    how = f"by signal {-status}" if status < 0 else f"with status {status}"
    return (
        f"\n{name} has ended, {how}. {CONSEQUENCES[name]} Its log is {VAR}/{LOGS[name]}. "
        "To start it again, stop this with Ctrl-C and run `make run`.\n"
    )


@contextmanager
def only_one() -> Iterator[None]:
    """Hold the lock on this folder; the lock ends with the process."""
    try:
        VAR.mkdir(parents=True, exist_ok=True)
        file = (VAR / "run.lock").open("a+")
    except OSError as error:
        raise CannotStart(
            f"VAR_DIR is {VAR}, which this user cannot use: {error.strerror}. Remove the folder, "
            "or set VAR_DIR to another one."
        ) from None
    with file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            pid = lock.read()
            raise CannotStart(
                f"The service already runs in this folder, as process {pid}. "
                f"Stop it with Ctrl-C in its terminal, or with `kill {pid}`."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def require_port() -> None:
    former = VAR / "gunicorn.pid"
    process.wait_for_former(former, mark=f"--pid={former}", timeout_s=STOP_S)
    if trouble := process.port_trouble(0, host=env("HOST")):
        raise CannotStart(
            f"HOST is {env('HOST')!r}, where nothing can listen: {trouble}. Unset HOST, or choose "
            "an address of this machine with `HOST=127.0.0.1 make run`."
        )
    if trouble := process.port_trouble(PORT, host=env("HOST")):
        raise CannotStart(
            f"Port {PORT} cannot be used: {trouble}. Choose another one with "
            f"`PORT={PORT + 7} make run`."
        )


def start_databases(started: ExitStack) -> None:
    """Start MongoDB and Valkey, on the same ports as last time if they are free."""
    servers, file = last_servers(), VAR / "servers.json"
    file.unlink(missing_ok=True)  # another program can have these ports now
    if not env("MONGODB_URL"):
        print("Starting MongoDB ...", flush=True)
        variable, former = "EMBEDDED_MONGODB_PORT", port_in(servers.get("MONGODB_URL", ""))
        wanted = env(variable)
        is_default = wanted == env.scheme[variable].default
        choice = [former, wanted] if is_default else [wanted, former]
        port = first_free(choice)
        if wanted and not port:
            print(f"Port {wanted} is taken; MongoDB gets another one.", flush=True)
        server = mongod(VAR / "mongodb", port=port, binary=env("MONGOD_BIN"))
        os.environ["MONGODB_URL"] = started.enter_context(server)
    if not env("REDIS_URL"):
        print("Starting Valkey ...", flush=True)
        port = first_free([port_in(servers.get("REDIS_URL", ""))])
        os.environ["REDIS_URL"] = started.enter_context(valkey(VAR / "valkey", port=port))
    file.touch(mode=0o600)  # a URL can contain a password
    file.write_text(json.dumps({name: env(name) for name in SERVERS}), encoding="utf-8")


def first_free(ports: list[int]) -> int:
    """Return the first free port that is not 0, or 0."""
    return next((port for port in ports if port and not process.port_trouble(port)), 0)


def port_in(url: str) -> int:
    """Return the port in a URL on this machine, or 0."""
    try:
        parts = urlsplit(url)
        return parts.port or 0 if parts.hostname == LOOPBACK else 0
    except ValueError:  # several hosts
        return 0


def start_stand_ins(started: ExitStack) -> str:
    """Start a stand-in for each upstream, if all their ports on this machine are free.

    Returns their URLs for the banner.
    """
    urls = [urlsplit(env(f"{name.upper()}_SERVICE_URL")) for name in UPSTREAMS]
    for url in urls:
        if url.hostname not in {"localhost", "127.0.0.1"} or process.port_trouble(url.port or 80):
            print(f"No stand-ins for the upstreams: {url.netloc} is not free.", flush=True)
            return "none (*_SERVICE_URL choose other ports)"
    print("Starting stand-ins for the upstreams ...", flush=True)
    start_command(started, STAND_INS, "run_neighbours", f"--service-url={URL}", stop_s=ANSWER_S)
    return " ".join(url.geturl() for url in urls)


def start_command(started: ExitStack, name: str, *arguments: str, stop_s: float) -> None:
    server = process.start(
        [sys.executable, "manage.py", *arguments], name=name, output=VAR / LOGS[name]
    )
    started.callback(process.stop, server, timeout_s=stop_s)


@contextmanager
def gunicorn() -> Iterator[subprocess.Popen[bytes]]:
    print("Starting the API ...", flush=True)
    web = process.start(
        [
            *(sys.executable, "-m", "gunicorn", "-c", "config/gunicorn.conf.py"),
            *(f"--pid={VAR / 'gunicorn.pid'}", "config.wsgi:application"),
        ]
    )
    try:
        process.wait_until(
            is_live, web, name="The API", timeout_s=START_S, otherwise="See its output above."
        )
        yield web
    finally:
        process.stop(web, timeout_s=STOP_S)


def is_live() -> bool:
    return process.responds(f"{URL}/health/live", timeout_s=ANSWER_S)


def no_proxy() -> str:
    """Return a line for the shell if curl would send requests for this machine to a proxy."""
    if "http" not in getproxies() or proxy_bypass(ADDRESS):
        return ""
    return f'export no_proxy="$no_proxy,{ADDRESS}"\n'


if __name__ == "__main__":
    sys.exit(main())
