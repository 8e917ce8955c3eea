"""Characters hangs: do those who list and read keep their pace?

    python -m benchmarks.hanging_upstream

Starts MongoDB, Valkey, one gunicorn worker and a stand-in for Characters on this machine, lets
four readers list and read for some seconds, then again while ten writers create conversations
with characters that are never found. Prints requests per second and the ratio; each half runs
ROUNDS times in turn, as a shared machine is never equally fast.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import requests

from conversation_service.development import process
from conversation_service.development.mongod import mongod
from conversation_service.development.valkey import valkey

SECONDS = 5.0
ROUNDS = 3
READERS = 4
WRITERS = 10
PATH = "/api/v1/conversations"


def main() -> None:
    with ExitStack() as started:
        folder = Path(started.enter_context(tempfile.TemporaryDirectory()))
        os.environ |= {
            "ENVIRONMENT": "development",
            "DEBUG": "false",
            "DJANGO_SETTINGS_MODULE": "config.settings.development",
            "MONGODB_URL": started.enter_context(mongod(folder / "mongodb")),
            "REDIS_URL": started.enter_context(valkey(folder / "valkey")),
            "CHARACTERS_SERVICE_URL": f"http://127.0.0.1:{process.free_port()}",
            "HOST": "127.0.0.1",
            "PORT": str(process.free_port()),
            "WEB_CONCURRENCY": "1",
            "RATE_LIMIT_ENABLED": "false",
            "CHARACTER_CHECK": "strict",
            # It would open at once and make the hanging harmless.
            "CHARACTERS_BREAKER_THRESHOLD": "1000000",
        }
        measure(started)


def measure(started: ExitStack) -> None:
    # Only now: they read the settings, and those the environment.
    from conversation_service.development.dev_database import prepare  # noqa: PLC0415
    from conversation_service.development.stand_ins.characters import characters  # noqa: PLC0415

    token = prepare()
    port = int(os.environ["CHARACTERS_SERVICE_URL"].rpartition(":")[2])
    stand_in = started.enter_context(characters(port))
    web = process.start(
        [
            *(sys.executable, "-m", "gunicorn", "-c", "config/gunicorn.conf.py"),
            "config.wsgi:application",
        ]
    )
    started.callback(process.stop, web, timeout_s=30)
    url = f"http://127.0.0.1:{os.environ['PORT']}{PATH}"
    wait_for(url, web)

    quiet, hanging = [], []
    for _ in range(ROUNDS):
        stand_in.mode = "ok"
        quiet.append(requests_per_second(url, token, writers=0))
        stand_in.mode = "hang"
        hanging.append(requests_per_second(url, token, writers=WRITERS))
    stand_in.switched.set()
    before, after = statistics.median(quiet), statistics.median(hanging)
    say(f"quiet    {before:8.0f} requests/s of {READERS} readers")
    say(f"hanging  {after:8.0f} requests/s, while {WRITERS} writers wait for Characters")
    say(f"ratio    {after / before:8.2f}")


def requests_per_second(url: str, token: str, *, writers: int) -> float:
    headers = {"Authorization": f"Bearer {token}"}
    counts = [0] * READERS
    end = time.monotonic() + SECONDS

    def read(number: int) -> None:
        with requests.Session() as session:
            rows = session.get(url, headers=headers, timeout=20).json()["conversations"]
            one = f"{url}/{rows[number]['id']}"
            while time.monotonic() < end:
                for address in (url, one):
                    session.get(address, headers=headers, timeout=20).raise_for_status()
                    counts[number] += 1

    def write() -> None:
        while time.monotonic() < end:
            body = {"character_id": f"unknown-{time.monotonic_ns()}"}
            answer = requests.post(url, json=body, headers=headers, timeout=20)
            assert answer.status_code == requests.codes.service_unavailable  # noqa: S101

    threads = [threading.Thread(target=read, args=(number,)) for number in range(READERS)]
    threads += [threading.Thread(target=write) for _ in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / SECONDS


def wait_for(url: str, web: "subprocess.Popen[bytes]") -> None:
    while web.poll() is None:
        try:
            requests.get(url, timeout=5)
        except requests.ConnectionError:
            time.sleep(0.1)
        else:
            return
    sys.exit("The service did not start; its last words are above.")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
