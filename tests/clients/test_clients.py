"""Clients generated from docs/openapi.json: they compile, and they work with the service."""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from config.env import BASE_DIR
from conversations.webhooks import secrets
from conversations.webhooks.signing import sign
from tests.config.test_gunicorn import serving
from tests.docs.test_snippets import failing_at_first
from tests.factories import token

pytestmark = pytest.mark.clients

HERE = Path(__file__).parent
TOOLS = BASE_DIR / ".tools" / "clients"
DESCRIPTION = BASE_DIR / "docs" / "openapi.json"
COLLECTION = BASE_DIR / "docs" / "collection.json"
SERVICE = {
    "sub": "message",
    "token_type": "service",
    "scope": "conversations:authorize conversations:activity events:read webhooks:manage",
}


USE_OF_RECIPE = """
const { API, REPEATING, TOKEN } = process.env;
const client = new Conversations(API!, () => TOKEN!);
const repeating = new Conversations(REPEATING!, () => TOKEN!);
for (const title of ["A", "B", "C"]) await repeating.create({ character_id: "luna", title });
const order = { limit: "2", sort: "title", order: "asc" };
for await (const { title } of client.list(order)) console.log(title);
let pages = 0;
for await (const { changes } of client.follow()) {
  const last = changes.at(-1)!;
  if (pages++ === 0) {
    console.log(changes.length);
    await client.create({ character_id: "luna", title: "D" });
  } else {
    if (last.type === "upsert") console.log(last.conversation.title);
    break;
  }
}
for await (const read of client.list({ search: "d" })) {
  console.log((await client.update(read, { title: "E" })).title);
  const report = (error: ApiError) => console.log(error.status, error.code);
  await client.update(read, { title: "F" }).catch(report);
  await client.create({ character_id: "" }).catch(report);
  await client.request("POST", "/../../admin/login/").catch(report);
  await client.request("DELETE", `/conversations/${read.id}`);
  console.log(await client.request("DELETE", `/conversations/${read.id}?mode=purge`));
}
"""


@pytest.fixture(scope="module")
def url(django_db_setup, tmp_path_factory):
    log = tmp_path_factory.mktemp("clients") / "log"
    with serving(log, "config.wsgi:application") as server:
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


def test_the_typescript_client_of_the_documentation_compiles_and_works(folder, url):
    for program in folder.glob("*.ts"):
        program.unlink()
    page = (BASE_DIR / "docs" / "clients.md").read_text("utf-8")
    [code] = re.findall(r"^```ts\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (folder / "recipe.ts").write_text(code + USE_OF_RECIPE, "utf-8")

    run(folder, "tsc")
    run(folder, "esbuild", "recipe.ts", "--platform=node", "--format=esm", "--outfile=out.mjs")
    with failing_at_first(url, [503, 429, 409]) as proxy:
        variables = {"API": f"{url}/api/v1", "REPEATING": f"{proxy.address}/api/v1"}
        printed = run(folder, "node", "out.mjs", TOKEN=token("recipe"), **variables)

    assert printed.split() == [
        *("A", "B", "C", "3", "D", "E"),
        *("412", "CONVERSATION_VERSION_CONFLICT", "400", "VALIDATION_ERROR", "400", "NO_JSON"),
        "undefined",
    ]
    assert len(proxy.keys) == 6
    assert len({*proxy.keys}) == 3


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


def test_the_official_library_for_node_verifies_our_signatures(folder):
    guide = (BASE_DIR / "docs" / "guide" / "events.md").read_text()
    [snippet] = re.findall(r"^```js\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    given = "const { secret, headers, body } = JSON.parse(process.env.REQUEST);\n"
    (folder / "receiver.mjs").write_text(f"{given}{snippet}console.log(event.type);\n")
    secret, at, body = secrets.generate(), int(time.time()), '{"type": "conversation.updated"}'
    headers = {
        "webhook-id": "a_v1",
        "webhook-timestamp": str(at),
        "webhook-signature": sign([secrets.generate(), secret], "a_v1", at, body.encode()),
    }
    request = {"secret": secret, "headers": headers, "body": body}

    printed = run(folder, "node", "receiver.mjs", REQUEST=json.dumps(request))

    assert printed == "conversation.updated\n"
    changed = json.dumps(request | {"body": f"{body} "})
    with pytest.raises(AssertionError, match="WebhookVerificationError"):
        run(folder, "node", "receiver.mjs", REQUEST=changed)
