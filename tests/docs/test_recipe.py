"""The Python client of docs/clients.md. tests/clients runs the one in TypeScript."""

import re
import subprocess
import sys

import pytest

from config.env import BASE_DIR
from tests.docs.test_snippets import address, failing_at_first
from tests.factories import token

__all__ = ["address"]  # a fixture

PAGE = (BASE_DIR / "docs" / "clients.md").read_text("utf-8")
USE = """
import sys
from functools import partial

client, repeating = (Conversations(url, lambda: sys.argv[3]) for url in sys.argv[1:3])
for title in ("A", "B", "C"):
    repeating.create(character_id="luna", title=title)
print([found["title"] for found in client.list(limit=2, sort="title", order="asc")])
changes = client.follow()
print(sorted(change["conversation"]["title"] for change in next(changes)["changes"]))
client.create(character_id="luna", title="D")
print([change["conversation"]["title"] for change in next(changes)["changes"]][-1])
read = next(client.list(search="d"))
print(client.update(read, title="E")["title"])
for request in (
    partial(client.update, read, title="F"),
    partial(client.create, title="without a character"),
    partial(client.request, "POST", "/../../admin/login/"),  # a response in HTML
):
    try:
        request()
    except ApiError as error:
        print(error.status, error.code)
path = f"/conversations/{read['id']}"
print(client.request("DELETE", path)["status"], client.request("DELETE", f"{path}?mode=purge"))
"""


@pytest.fixture
def recipe(tmp_path):
    [code] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    path = tmp_path / "recipe.py"
    path.write_text(code + USE, "utf-8")
    return path


def test_the_python_client_lists_repeats_and_follows(recipe, address):
    with failing_at_first(address, [503, 429, 409]) as proxy:
        ran = subprocess.run(
            [
                sys.executable,
                recipe,
                f"{address}/api/v1",
                f"{proxy.address}/api/v1",
                token("recipe"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert ran.stderr == ""
    assert ran.stdout.splitlines() == [
        "['A', 'B', 'C']",
        "['A', 'B', 'C']",
        "D",
        "E",
        "412 CONVERSATION_VERSION_CONFLICT",
        "400 VALIDATION_ERROR",
        "403 NO_JSON",
        "deleted None",
    ]
    assert len(proxy.keys) == 6
    assert len({*proxy.keys}) == 3


def test_the_python_client_has_correct_types(recipe):
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "", recipe],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout
