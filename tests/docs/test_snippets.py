"""The API guide, run against a real server: every page in every language, from top to bottom."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from uuid import uuid4

import pytest
import requests
from django.conf import settings

from config.env import BASE_DIR
from conversation_service.development.process import free_port
from conversation_service.development.stand_ins.characters import characters
from conversation_service.tokens import user_token
from tests.config.processes import environment
from tests.config.test_gunicorn import serving
from tests.docs.guide import GUIDE, LANGUAGES, PAGES, Step, is_as_shown, steps, terminal

BETWEEN_STEPS = "\x1e"
MARKERS = {
    "bash": r"printf '\036'",
    "python": r"print('\x1e', end='', flush=True)",
    "javascript": r"process.stdout.write('\x1e');",
}
FILES = {"bash": "page.sh", "python": "page.py", "javascript": "page.mjs"}
PROGRAMS = {
    "bash": ["bash", "-eu"],
    "python": [sys.executable],
    "javascript": ["node"],
}

# The lines of a page in a new shell in the repository, and then its program.
READER = """\
set -eu
{terminal}
cd "$FOLDER"
exec env PYTHONWARNINGS=error "$@"
"""
# Values that the reader fills in; and a stream is not followed until Ctrl-C.
README_LINES = {"^TOKEN=….*": "", "^API=.*": ""}
MAKE_TOKEN = "$(make -s token)"
README_CURL = 'curl() { command curl -sS --fail --max-time 2 "$@" || [ $? = 28 ]; } 2>/dev/null\n'

FIRST_CALL, RETRIES = GUIDE / "first-call.md", GUIDE / "retries.md"

by_language = pytest.mark.parametrize("language", LANGUAGES)
by_page = pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])


@pytest.fixture(scope="module")
def address(django_db_setup, tmp_path_factory):
    """The service as in `make run`, with rate limits, on the database of the tests."""
    log = tmp_path_factory.mktemp("guide") / "log"
    with (
        characters(free_port()) as upstream,
        serving(
            log,
            "config.wsgi:application",
            DJANGO_SETTINGS_MODULE="config.settings.development",
            MONGODB_DATABASE=settings.DATABASES["default"]["NAME"],
            CHARACTERS_SERVICE_URL=upstream.url,
        ) as server,
    ):
        yield f"http://127.0.0.1:{server.port}"


@by_page
@by_language
def test_snippets_of_a_page_have_the_shown_results(
    page: Path, language: str, address: str, tmp_path: Path
):
    shown = steps(page)
    code = [step.code[language] for step in shown]
    printed = run(language, code, address, page=page, folder=tmp_path)

    assert len(printed) == len(shown)
    for step, output in zip(shown, printed, strict=True):
        if step.output:
            assert is_as_shown(output, step.output), f"{step.code[language]}\nprints\n{output}"


@by_page
def test_a_page_has_each_step_in_every_language(page: Path):
    assert steps(page)
    assert all(set(step.code) == set(LANGUAGES) for step in steps(page))


@by_page
def test_a_page_starts_with_a_new_user_and_the_same_lines(page: Path):
    lines = terminal(FIRST_CALL)

    assert lines.startswith("export API=")
    assert "export TOKEN=$(" in lines
    assert terminal(page).startswith(lines)
    assert steps(page)[0] == steps(FIRST_CALL)[0]


@by_language
@pytest.mark.parametrize("status", [429, 503])
def test_no_page_continues_after_an_error(status: int, language: str, address: str, tmp_path: Path):
    first, second, *_ = steps(FIRST_CALL)
    code = [step.code[language] for step in (first, second)]

    with failing_at_first(address, [status]) as proxy:
        ran = ran_as_reader(language, code, proxy.address, page=FIRST_CALL, folder=tmp_path)

    assert ran.returncode != 0
    assert str(status) in ran.stderr
    assert len(proxy.keys) == 1


@by_page
def test_curl_checks_the_status_unless_the_page_shows_an_error(page: Path):
    for step in steps(page):
        for command in re.findall(r"^.*\bcurl (?:.*\\\n)*.*$", step.code["bash"], re.MULTILINE):
            if "--fail-with-body" not in command:
                javascript = step.code["javascript"]
                assert "expected:" in javascript, f"{command}\nis not checked"


@by_page
def test_ids_of_earlier_steps_are_required(page: Path):
    """In a shell, an empty id would make a path of the list."""
    code = "".join(step.code["bash"] for step in steps(page))

    assert re.findall(r"conversations/\$\w+", code) == []
    assert re.findall(r"=\$\(.*jq -r \.id\b.*", code) == []


@by_language
def test_the_example_of_retries_repeats_a_request(language: str, address: str, tmp_path: Path):
    step, code = example_of_retries(language)
    failures = [503, 429] if language == "bash" else [503, 429, 409]  # curl repeats no 409

    with failing_at_first(address, failures) as proxy:
        ran = ran_as_reader(language, code, proxy.address, page=RETRIES, folder=tmp_path)

    assert ran.returncode == 0, ran.stderr
    assert is_as_shown(ran.stdout.split(BETWEEN_STEPS)[-2], step.output or "")
    assert len(proxy.keys) == len(failures) + 1
    assert len({*proxy.keys}) == 1


@by_language
def test_the_example_of_retries_fails_with_a_conflict_that_no_retry_solves(
    language: str, address: str, tmp_path: Path
):
    _step, code = example_of_retries(language)

    with failing_at_first(address, [409], headers={}) as proxy:
        ran = ran_as_reader(language, code, proxy.address, page=RETRIES, folder=tmp_path)

    assert ran.returncode != 0
    assert "409" in ran.stderr
    assert len(proxy.keys) == 1


def example_of_retries(language: str) -> tuple[Step, list[str]]:
    """Return the step of the guide, and its code after the start and the imports of the page."""
    start, once, *others = steps(RETRIES)
    [step] = [step for step in others if "--retry" in step.code["bash"]]
    imports = "\n".join(re.findall("^import .*", once.code[language], re.MULTILINE))
    return step, [start.code[language], f"{imports}\n{step.code[language]}"]


class Proxy(ThreadingHTTPServer):
    """Forwards each request to an address, after some failures."""

    def __init__(self, forward_to: str, failures: list[int], headers: dict[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), ProxyHandler)
        self.forward_to = forward_to
        self.failures = [*failures]
        self.headers = headers
        self.keys: list[str] = []
        self.address = f"http://127.0.0.1:{self.server_port}"


class ProxyHandler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: a second packet would wait 40 ms for an ACK

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.keys.append(self.headers["Idempotency-Key"])
        if self.server.failures:
            self._respond(self.server.failures.pop(0), b"{}", self.server.headers)
            return
        names = ("Authorization", "Content-Type", "Idempotency-Key")
        forwarded = {name: self.headers[name] for name in names}
        address = self.server.forward_to + self.path
        response = requests.post(address, body, headers=forwarded, timeout=60)
        self._respond(response.status_code, response.content, {})

    def _respond(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def failing_at_first(
    address: str, statuses: list[int], *, headers: dict[str, str] | None = None
) -> Iterator[Proxy]:
    """Run a proxy that first responds with these failures, by default with `Retry-After: 1`."""
    with Proxy(address, statuses, {"Retry-After": "1"} if headers is None else headers) as proxy:
        Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield proxy
        finally:
            proxy.shutdown()


def test_requests_of_the_readme_succeed(address: str, tmp_path: Path):
    text = (BASE_DIR / "README.md").read_text(encoding="utf-8")
    [calls] = [
        block for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if "API=" in block
    ]
    for line, done in README_LINES.items():
        assert re.search(line, calls, re.MULTILINE)
        calls = re.sub(line, done, calls, flags=re.MULTILINE)

    [printed] = run("bash", [README_CURL + calls], address, page=FIRST_CALL, folder=tmp_path)

    assert '"title":"Caf\xe9 con Luna"' in printed
    assert '"version":2' in printed
    assert "event: change" in printed


@pytest.mark.parametrize(
    ("printed", "shown", "same"),
    [
        ("a\nb\n", "a b\n", True),
        ('{"id":"6b05"}', '{\n  "id": "…"\n}\n', True),
        ("a b c", "a b", False),
        ("b", "a b", False),
        ("axb", "a.b", False),
    ],
)
def test_output_is_compared_to_the_end(printed: str, shown: str, same: bool):
    assert is_as_shown(printed, shown) == same


def run(language: str, code: list[str], address: str, *, page: Path, folder: Path) -> list[str]:
    """Run the steps of a page as one program without an error, and return the output of each."""
    with_make = page == FIRST_CALL  # each page has the same lines
    ran = ran_as_reader(language, code, address, page=page, folder=folder, with_make=with_make)
    assert (ran.returncode, ran.stderr) == (0, ""), f"{ran.stdout}\n{ran.stderr}"
    *printed, rest = ran.stdout.split(BETWEEN_STEPS)
    assert rest == ""
    return printed


def ran_as_reader(
    language: str,
    code: list[str],
    address: str,
    *,
    page: Path,
    folder: Path,
    with_make: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run steps in a new shell, after the first lines of the page.

    `with_make` creates the token as the page does. Without it, a new user gets a token from this
    process: `make token` takes longer than the steps.
    """
    program, *options = PROGRAMS[language]
    require("bash", "make", program, *(["curl", "jq"] if language == "bash" else []))
    script = folder / FILES[language]
    script.write_text("\n".join(f"{step}\n{MARKERS[language]}\n" for step in code), "utf-8")
    lines, count = re.subn("http://127.0.0.1:8003(?=/)", address, terminal(page))
    assert count
    assert MAKE_TOKEN in lines
    if not with_make:
        life = timedelta(hours=1)
        lines = lines.replace(MAKE_TOKEN, user_token(f"reader-{uuid4().hex}", life=life))
    return subprocess.run(
        ["bash", "-c", READER.format(terminal=lines), "", program, *options, script],  # noqa: S607
        cwd=BASE_DIR,
        env=environment(
            ENVIRONMENT="development",
            FOLDER=str(folder),
            MAKEFLAGS="",  # the reader's make is not part of a make that runs the tests
            NODE_NO_WARNINGS="1",  # of Node.js 18, of fetch
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def require(*programs: str) -> None:
    """Skip languages that are not installed; .ci/run installs all of them."""
    if missing := [program for program in programs if not shutil.which(program)]:
        assert not environment().get("CI"), f"not installed: {missing}"
        pytest.skip(f"not installed: {missing}")
