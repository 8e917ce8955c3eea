"""Clients generated from docs/openapi.json: they compile, and they work with the service."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from config.env import BASE_DIR
from tests.config.test_gunicorn import serving
from tests.factories import token

pytestmark = pytest.mark.clients

HERE = Path(__file__).parent
TOOLS = BASE_DIR / ".tools" / "clients"
DESCRIPTION = BASE_DIR / "docs" / "openapi.json"
COLLECTION = BASE_DIR / "docs" / "collection.json"
SERVICE = {
    "sub": "message",
    "token_type": "service",
    "scope": "conversations:authorize conversations:activity",
}


@pytest.fixture(scope="module")
def url(django_db_setup, tmp_path_factory):
    log = tmp_path_factory.mktemp("clients") / "log"
    with serving(log, "config.wsgi:application", CLIENT_HEAD_TIMEOUT_S="10") as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture
def folder(tmp_path):
    """A folder with the programs of this package, in which the tools are found."""
    for path in HERE.iterdir():
        if path.suffix in {".ts", ".json", ".py", ".ini"}:
            shutil.copy(path, tmp_path)
    (tmp_path / "node_modules").symlink_to(TOOLS / "node_modules")
    (tmp_path / "generated").mkdir()
    return tmp_path


def run(folder: Path, *command: object, **variables: str) -> str:
    """Return the output of a command of the tools. Fails if the command does."""
    path = f"{TOOLS / 'bin'}:{TOOLS / 'node_modules' / '.bin'}:{os.environ['PATH']}"  # noqa: TID251
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={"PATH": path, "HOME": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


GENERATED = {
    "openapi-fetch": ["openapi-typescript", DESCRIPTION, "--output", "generated/schema.d.ts"],
    "hey-api": [
        *("openapi-ts", "--input", DESCRIPTION, "--output", "generated/hey-api"),
        *("--client", "@hey-api/client-fetch"),
    ],
    "orval": [
        *("orval", "--input", DESCRIPTION, "--output", "generated/orval.ts"),
        *("--client", "fetch"),
    ],
}


@pytest.mark.parametrize("name", GENERATED)
def test_a_typescript_client_compiles_and_works(folder, url, name):
    run(folder, *GENERATED[name])
    for other in GENERATED.keys() - {name}:
        (folder / f"{other}.ts").unlink()

    run(folder, "tsc")
    run(
        folder,
        *("esbuild", f"{name}.ts", "--bundle", "--platform=node", "--format=esm"),
        "--outfile=out.mjs",
    )
    printed = run(folder, "node", "out.mjs", API=url, TOKEN=token(name))

    assert printed.endswith("followed the changes\n") or "read the statistics" in printed


def test_a_python_client_compiles_and_works(folder, url):
    generated = run(
        folder,
        *("openapi-python-client", "generate", "--path", DESCRIPTION),
        *("--output-path", "generated", "--overwrite", "--meta", "none"),
    )

    # The files of export and import are lines of JSON, for which it has no parser.
    warnings = [line for line in generated.splitlines() if line.startswith("WARNING")]
    assert {line.split()[3] for line in warnings} <= {
        "/api/v1/conversations/export",
        "/api/v1/conversations/import",
    }
    run(folder, "mypy", "python_client.py")
    printed = run(folder, "python", "python_client.py", API=url, TOKEN=token("python"))
    assert printed.endswith("followed the changes\n")


def test_every_request_of_the_collection_succeeds(folder, url):
    run(
        folder,
        *("newman", "run", COLLECTION, "--reporters", "cli,json"),
        *("--reporter-json-export", "report.json"),
        *("--env-var", f"baseUrl={url}", "--env-var", f"token={token('collection')}"),
        *("--env-var", f"serviceToken={token('message', **SERVICE)}"),
    )

    report = json.loads((folder / "report.json").read_text())["run"]
    assert report["failures"] == []
    assert len(report["executions"]) == sum(
        len(operations) for operations in json.loads(DESCRIPTION.read_text())["paths"].values()
    )
