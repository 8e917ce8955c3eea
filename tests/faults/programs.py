"""Valkey and stand-ins for the upstreams as processes, which a test can kill and freeze."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
import requests

from config.upstreams import UPSTREAMS
from conversation_service.development import process, valkey
from conversation_service.development.stand_ins.server import LOOPBACK
from tests.config.processes import environment, eventually, is_open

NAMES = ["valkey", *UPSTREAMS]


class Program:
    """A server at a port of this machine. `full` lets it reject requests, or accept them again."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.port = process.free_port()
        self._log = folder / f"{name}.log"
        if name == "valkey":
            options = ("--bind", LOOPBACK, "--save", "", "--dir", str(folder))
            self._command = [valkey.find(), "--port", str(self.port), *options]
        else:
            self._command = [sys.executable, "-m", "tests.faults.stand_in", name, str(self.port)]
        self._process: subprocess.Popen[bytes]

    def start(self) -> None:
        variables = environment(DJANGO_SETTINGS_MODULE="config.settings.test")
        self._process = process.start(self._command, output=self._log, environment=variables)
        eventually(lambda: is_open(self.port), within_s=20, log=self._log)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def be_full(self, *, is_full: bool) -> None:
        if self.name == "valkey":
            with redis.Redis(port=self.port) as client:
                client.config_set("maxmemory", 1 if is_full else 0)
        else:
            mode = {"mode": "error" if is_full else "ok"}
            url = f"http://{LOOPBACK}:{self.port}/switch"
            requests.put(url, json=mode, timeout=10).raise_for_status()


@contextmanager
def running(name: str, folder: Path) -> Iterator[Program]:
    program = Program(name, folder)
    program.start()
    try:
        yield program
    finally:
        program.kill()
