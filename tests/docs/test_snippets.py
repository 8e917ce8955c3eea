"""The API guide, done: every page in every language, from top to bottom, against a real server."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from conversation_service.authentication import service_token
from conversation_service.embedded.process import free_port
from conversation_service.stand_ins.characters import characters
from tests.config.processes import environment
from tests.config.test_gunicorn import serving
from tests.docs.guide import LANGUAGES, PAGES, is_as_shown, prelude, steps
from tests.factories import token

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

by_language = pytest.mark.parametrize("language", LANGUAGES)
by_page = pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])


@pytest.fixture(scope="module")
def address(django_db_setup, tmp_path_factory):
    """As `make run` serves it, rate limits included, on the database of the tests."""
    log = tmp_path_factory.mktemp("guide") / "log"
    with (
        characters(free_port()) as neighbour,
        serving(
            log,
            "config.wsgi:application",
            DJANGO_SETTINGS_MODULE="config.settings.development",
            MONGODB_DATABASE=settings.DATABASES["default"]["NAME"],
            CHARACTERS_SERVICE_URL=neighbour.url,
            CLIENT_HEAD_TIMEOUT_S="10",  # a machine that is busy is no client that is slow
        ) as server,
    ):
        yield f"http://127.0.0.1:{server.port}"


@by_page
@by_language
def test_a_page_does_what_it_shows(page: Path, language: str, address: str, tmp_path: Path):
    shown = steps(page)
    printed = run(
        language, [step.code[language] for step in shown], page.stem, address, folder=tmp_path
    )

    assert len(printed) == len(shown)
    for step, output in zip(shown, printed, strict=True):
        if step.output:
            assert is_as_shown(output, step.output), f"{step.code[language]}\nprints\n{output}"


@by_page
def test_a_page_says_each_step_in_every_language(page: Path):
    assert steps(page)
    assert all(set(step.code) == set(LANGUAGES) for step in steps(page))


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


def run(language: str, code: list[str], page: str, address: str, *, folder: Path) -> list[str]:
    """Run the steps as one program, and return what each printed."""
    program, *options = PROGRAMS[language]
    for needed in [program, *(["curl", "jq"] if language == "bash" else [])]:
        assert shutil.which(needed), f"The guide needs {needed}: .ci/run installs it"
    script = folder / FILES[language]
    begin = [] if page == "first-call" else [prelude(language)]
    marked = [f"{step}\n{MARKERS[language]}\n" for step in code]
    script.write_text("\n".join([*begin, *marked]), encoding="utf-8")
    user = f"{page}-{language}"
    ran = subprocess.run(
        [program, *options, script],
        cwd=folder,
        env=environment(
            API=f"{address}/api/v1",
            INTERNAL=f"{address}/internal/v1",
            TOKEN=token(user),
            SERVICE_TOKEN=service_token(
                "message", "conversations:authorize", "conversations:activity"
            ),
            PYTHONWARNINGS="error",
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, ""), f"{ran.stdout}\n{ran.stderr}"
    *printed, rest = ran.stdout.split(BETWEEN_STEPS)
    assert rest == ""
    return printed
