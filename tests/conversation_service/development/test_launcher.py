"""The launcher of `make run` as a developer runs it, in a folder and on ports of its own."""

import json
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from config import local_run
from config.env import env
from conversation_service.development import launcher as local
from conversation_service.development import process
from conversation_service.development.process import free_port, responds
from conversation_service.development.stand_ins.auth import auth
from tests.config.processes import environment, eventually, listening, mentioning
from tests.conversation_service import loopback

COMMAND = [sys.executable, "-X", "dev", "-m", "conversation_service.development.launcher"]


class Launcher:
    def __init__(self, var: Path) -> None:
        self.var = var
        self.port = free_port()
        self.upstreams = {
            f"{name}_SERVICE_URL": f"http://127.0.0.1:{free_port()}"
            for name in ("AUTH", "CHARACTERS", "MESSAGE")
        }
        self.log = var.with_name("log")
        self.started: list[subprocess.Popen] = []

    def environment(self, **changes: str) -> dict[str, str]:
        own = {
            "ENVIRONMENT": "development",
            "DJANGO_SETTINGS_MODULE": "config.settings.development",
            "VAR_DIR": str(self.var),
            "PORT": str(self.port),
            "EMBEDDED_MONGODB_PORT": "0",
            "WEB_CONCURRENCY": "1",
            "MONGODB_URL": "",
            "REDIS_URL": "",
            **self.upstreams,
        }
        return environment(**own | changes)

    def start(self, **changes: str) -> subprocess.Popen:
        with self.log.open("wb") as output:
            started = subprocess.Popen(
                COMMAND, env=self.environment(**changes), stdout=output, stderr=output
            )
        self.started.append(started)
        return started

    def stop(self) -> None:
        for started in self.started:
            started.terminate()
            started.wait(60)

    def fail(self, **changes: str) -> str:
        """Run the launcher where it must not start, and return its output."""
        done = subprocess.run(
            COMMAND,
            env=self.environment(**changes),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        return done.stderr

    def says(self, text: str) -> bool:
        assert self.started[-1].poll() is None, self.log.read_text()
        return text in self.log.read_text()

    def runs(self) -> bool:
        return self.says("Ctrl-C stops it")

    def get(self, url: str) -> str:
        with requests.Session() as session:
            session.trust_env = False  # a proxy cannot reach this machine
            return session.get(url, timeout=60).text

    def paste(self, **proxies: str) -> list[int]:
        """Paste the lines of the banner into a shell; return the status of each request."""
        text = self.log.read_text().replace("\\\n", "")
        lines = text.partition("ready to paste:")[2].partition("/changes")[0] + "/changes"
        silent = " -sS --max-time 2 -o /dev/null -w '%{http_code} '"
        script = re.sub(r"^curl (.*)$", rf"curl \1{silent}", lines, flags=re.MULTILINE)
        done = subprocess.run(
            ["/bin/sh", "-c", script],
            env=self.environment(**proxies),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return [int(status) for status in done.stdout.split()]

    def manage(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            env=self.environment(**changes),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def urls(self) -> dict[str, str]:
        return json.loads((self.var / "servers.json").read_text())


STATUSES = [201, 200, 200, 200]


@pytest.fixture
def launcher(tmp_path):
    launcher = Launcher(tmp_path / "var")
    yield launcher
    launcher.stop()


def test_it_starts_again_on_the_same_ports_after_it_was_killed(launcher):
    killed = launcher.start()
    eventually(lambda: launcher.says("Listening at"))
    killed.kill()
    killed.wait()
    former = launcher.urls()

    running = launcher.start()
    eventually(launcher.runs)

    assert launcher.urls() == former
    assert launcher.paste() == STATUSES
    eventually(lambda: launcher.says("webhook  conversation.created "), log=launcher.log)
    eventually(lambda: launcher.says("webhook  conversation.updated "), log=launcher.log)
    for url in launcher.upstreams.values():
        assert "healthy" in launcher.get(f"{url}/health")
    assert f"as process {running.pid}" in launcher.fail()

    # A command in another terminal finds the servers.
    purged = launcher.manage("purge_trash", "--dry-run")
    assert (purged.returncode, purged.stderr) == (0, "")
    found = launcher.manage("diagnose", "--json", PORT="8003")
    assert json.loads(found.stdout)["service"]["runs"]
    assert "MongoDB" not in purged.stdout
    code = "from django.contrib.admin.models import LogEntry as L; print(L.objects.get().user)"
    assert launcher.manage("shell", "--no-imports", "-c", code).stdout == "admin\n"
    added = launcher.manage("webhooks", "add", "http://127.0.0.1:9/events")
    assert (added.returncode, added.stderr) == (0, "")

    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 0
    assert mentioning(launcher.var) == []
    assert "Error" not in launcher.log.read_text()


def test_during_the_start_a_command_does_not_use_the_servers_of_the_last_run(tmp_path, monkeypatch):
    own = {"ENVIRONMENT": "development", "MONGODB_URL": "", "REDIS_URL": "", "VAR_DIR": tmp_path}
    for name, value in own.items():
        monkeypatch.setitem(env.overrides, name, value)
    monkeypatch.setattr(local, "VAR", tmp_path)
    urls = {"MONGODB_URL": "mongodb://127.0.0.1:27017", "REDIS_URL": "redis://127.0.0.1:6379"}
    servers = {**urls, "HOST": "127.0.0.1", "PORT": 8003, "WEBHOOK_ALLOWED_HOSTS": ["127.0.0.1"]}
    (tmp_path / "servers.json").write_text(json.dumps(servers))
    found = []

    def mongod(*_arguments, **_options):
        found.append(local_run.running_servers())
        raise process.CannotStart

    monkeypatch.setattr(local, "mongod", mongod)
    with local.only_one(), pytest.raises(process.CannotStart):
        local.start_databases(ExitStack())

    assert found == [{}]


@pytest.mark.parametrize("command", ["purge_trash", "migrate", "seed_demo", "createsuperuser"])
def test_a_command_without_servers_says_how_to_get_them(launcher, command):
    done = launcher.manage(command)

    assert done.returncode == 3
    assert "MONGODB_URL is not set, and `make run` does not run in this folder" in done.stderr
    assert "Start `make run` in another terminal" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_ends_is_reported_and_logs_are_limited(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(local, "VAR", tmp_path)
    monkeypatch.setattr(local, "LOOK_S", 0.05)
    monkeypatch.setattr(local, "MAX_LOG_BYTES", 100)
    ends = f"while not os.path.exists('{tmp_path}/valkey.log.old'): time.sleep(0.1)"
    api = [sys.executable, "-c", f"import os, time\n{ends}\ntime.sleep(1)"]
    noisy = [sys.executable, "-c", "while True: print('x' * 60, flush=True)"]
    fake = {
        name: process.start(noisy, name=name, output=tmp_path / log)
        for name, log in local.LOGS.items()
    }
    fake["MongoDB"].kill()

    local.wait(process.start(api))

    for server in fake.values():
        process.stop(server, timeout_s=60)
    errors = capsys.readouterr().err
    assert errors.count("has ended") == 1
    assert "MongoDB has ended, by signal 9. The API rejects requests (503)." in errors
    assert f"{tmp_path}/mongodb.log" in errors
    assert (tmp_path / "valkey.log.old").exists()
    assert process.named == {}


def test_a_slow_api_is_not_reported_as_live(monkeypatch):
    monkeypatch.setattr(local, "ANSWER_S", 0.1)
    with loopback.serving(loopback.silence) as address:
        monkeypatch.setattr(local, "URL", f"http://{address}")

        assert not local.is_live()


def test_a_busy_port_is_named_before_anything_starts(launcher):
    with listening() as busy:
        port = busy.getsockname()[1]

        message = launcher.fail(PORT=str(port))

    assert f"Port {port} cannot be used: Address already in use" in message
    assert "make run" in message
    assert not (launcher.var / "mongodb").exists()


def test_a_mongodb_that_does_not_respond_is_reported(launcher):
    port = free_port()
    message = launcher.fail(MONGODB_URL=f"mongodb://127.0.0.1:{port}", MONGODB_TIMEOUT_MS="300")

    assert f"The MongoDB in MONGODB_URL cannot be used: 127.0.0.1:{port}" in message
    assert "Connection refused" in message


def test_a_folder_that_cannot_be_used_is_named(launcher, tmp_path):
    (tmp_path / "file").touch()

    message = launcher.fail(VAR_DIR=str(tmp_path / "file" / "var"))

    assert f"VAR_DIR is {tmp_path}/file/var" in message
    assert "Not a directory" in message


def test_it_is_for_development_only(launcher):
    assert "development only" in launcher.fail(ENVIRONMENT="production")


@pytest.fixture
def proxies():
    """Variables of a company network with a proxy that cannot be reached."""
    proxy = f"http://{loopback.closed_port()}"
    names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    return dict.fromkeys(names, proxy) | {"no_proxy": "10.0.0.0/8", "NO_PROXY": "10.0.0.0/8"}


def test_it_starts_and_its_commands_work_with_proxy_variables(launcher, proxies):
    launcher.start(MONGODB_URL=env("MONGODB_URL"), REDIS_URL=env("REDIS_URL"), **proxies)
    eventually(launcher.runs)

    assert launcher.paste(**proxies) == STATUSES
    message = launcher.upstreams["MESSAGE_SERVICE_URL"]
    assert "healthy" in launcher.get(f"{message}/health")


def test_without_a_proxy_its_commands_have_no_proxy_exceptions(monkeypatch):
    monkeypatch.setattr(local, "getproxies", dict)

    assert local.no_proxy() == ""


def test_a_benchmark_does_not_use_a_proxy_for_its_servers(monkeypatch, proxies):
    for name, value in proxies.items():
        monkeypatch.setenv(name, value)
    with auth(0) as server:
        assert responds(f"http://127.0.0.1:{server.server_address[1]}/health", timeout_s=60)


def test_it_listens_on_ipv6_and_without_stand_ins(launcher):
    with listening() as real:
        taken = real.getsockname()[1]
        launcher.start(
            HOST="[::]",
            MONGODB_URL=env("MONGODB_URL"),
            REDIS_URL=env("REDIS_URL"),
            AUTH_SERVICE_URL=f"http://127.0.0.1:{taken}",
        )
        eventually(launcher.runs)

    assert launcher.says(f"No stand-ins for the upstreams: 127.0.0.1:{taken} is not free.")
    assert launcher.paste() == STATUSES
    probe = [sys.executable, "-m", "config.probe", "/health/live"]
    for host in ("::", "::1"):
        environment = launcher.environment(HOST=host)
        assert subprocess.run(probe, env=environment, check=False).returncode == 0


@pytest.mark.parametrize(
    "host", ["x86_64-conda-linux-gnu", "arm64-apple-darwin20.0.0", "192.0.2.1"]
)
def test_a_host_that_is_not_local_is_named(launcher, host):
    message = launcher.fail(HOST=host)

    assert f"HOST is {host!r}" in message
    assert "127.0.0.1" in message
    assert "PORT" not in message
    assert not (launcher.var / "mongodb").exists()


def test_wrong_variables_are_listed_without_a_traceback(launcher):
    message = launcher.fail(TRASH_DAYS="-1", REDIS_URL="redis:1", RATE_LIMT_LIST="5")

    assert len(message.splitlines()) == 4
    assert all(name in message for name in ("TRASH_DAYS", "REDIS_URL", "RATE_LIMT_LIST"))
    assert not launcher.var.exists()


def test_the_readme_has_the_lines_of_the_banner():
    readme = Path("README.md").read_text()

    assert local.CALLS.strip() in readme


def test_a_taken_port_is_not_used_again():
    free = free_port()
    with listening() as busy:
        taken = busy.getsockname()[1]

        assert local.first_free([taken, free]) == free
        assert local.first_free([0, taken]) == 0


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("mongodb://127.0.0.1:5000/?replicaSet=rs0", 5000),
        ("redis://127.0.0.1:5001/0", 5001),
        ("mongodb://db.example.org:27017", 0),
        ("mongodb://a:1,b:2/", 0),
        ("", 0),
    ],
)
def test_only_the_ports_of_this_machine_are_used_again(url, port):
    assert local.port_in(url) == port


def make(*arguments: str) -> str:
    """Return the commands that make would run in an installation that is up to date."""
    command = ["make", "--dry-run", "--old-file=.venv/.local", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_make_token_is_for_a_given_user_or_a_new_one(monkeypatch):
    monkeypatch.setenv("USER", "root")  # shells set it

    assert "issue_token 'alice'" in make("token", "USER=alice")
    first, second = make("token"), make("token")
    assert re.search(r"issue_token reader-[0-9a-f]{8}$", first, re.MULTILINE)
    assert first != second
