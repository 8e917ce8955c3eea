"""The pages of docs/ agree with the code."""

import re
from pathlib import Path

import pytest
import yaml
from django.core.management import get_commands

from config.env import BASE_DIR, env
from conversation_service.errors import ServiceError
from docs_site import configuration
from docs_site.reference import PLACE, reference
from docs_site.tabs import on_page_markdown as with_tabs
from tests.docs.guide import PAGES, PAGES_IN_SPANISH
from tests.documented import DOCUMENT, resolved

DOCS = BASE_DIR / "docs"
WRITTEN = [DOCS / "index.md", DOCS / "architecture.md", *PAGES, *PAGES_IN_SPANISH]
MARKDOWN = [
    *(
        Path(name)
        for name in ("README.md", "README.es.md", "CONTRIBUTING.md", "DECISIONS.md", "SECURITY.md")
    ),
    *(path.relative_to(BASE_DIR) for path in sorted(DOCS.rglob("*.md"))),
]
CODE = "".join(path.read_text("utf-8") for path in (BASE_DIR / "tests").rglob("*.py"))
FOLDERS = (
    "benchmarks|config|conversation_service|conversations|docker|docs|docs_site|k8s|requirements"
    "|scripts|tests"
)
# Examples in docs/changing-it.md.
NOT_THERE = {
    "conversation_service/upstreams/voices.py",
    "conversation_service/development/stand_ins/voices.py",
    "conversations/management/commands/count_conversations.py",
}
TEST_FILES = {path.stem for path in (BASE_DIR / "tests").rglob("test_*.py")}
PATH = re.compile(r"/(?:api|internal)/v1(?:/[\w{}]+)+")
VARIABLE = re.compile(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)`")
# Codes of the console, and of lines in the response to an import.
NOT_SHOWN = {"FORBIDDEN", "CONVERSATION_ID_TAKEN"}
# Variables of the terminal of the reader.
OTHERS = {"SERVICE_TOKEN"}

each = pytest.mark.parametrize("page", WRITTEN, ids=[page.stem for page in WRITTEN])


class Navigation(yaml.SafeLoader):
    """Reads mkdocs.yml without the tags of MkDocs."""


Navigation.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def test_the_pages_of_variables_are_the_output_of_their_program():
    assert configuration.PAGE.read_text("utf-8") == configuration.page(), "make configuration"
    assert configuration.EXAMPLE.read_text("utf-8") == configuration.example(), "make configuration"


def test_the_table_has_each_variable_once():
    rows = re.findall(r"^\| `([A-Z0-9_]+)` ", configuration.page(), re.MULTILINE)

    assert sorted(rows) == sorted(env.scheme)


@pytest.mark.parametrize("page", MARKDOWN, ids=str)
def test_every_file_and_test_that_a_page_names_exists(page: Path):
    text = (BASE_DIR / page).read_text(encoding="utf-8")
    files = set(re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", text)) - NOT_THERE
    tests = set(re.findall(r"`(test_\w+)(?:\.py)?`", text))

    assert {name for name in files if not (BASE_DIR / name).exists()} == set()
    assert {name for name in tests if not re.search(rf"def {name}\b", CODE)} - TEST_FILES == set()


def test_each_command_is_on_a_page():
    text = "".join(
        (BASE_DIR / page).read_text("utf-8") for page in MARKDOWN if page.name != "changing-it.md"
    )
    ours = {
        name
        for name, app in get_commands().items()
        if app in {"conversation_service", "conversations"}
    }

    assert {name for name in ours if name not in text} == set()


def test_each_variable_has_a_description():
    assert [name for name, variable in env.scheme.items() if not variable.description] == []


@each
def test_every_address_is_served(page: Path):
    text = page.read_text(encoding="utf-8")
    served = {re.sub(r"{\w+}", "{}", path) for path in DOCUMENT["paths"]}
    named = {re.sub(r"{\w+}", "{}", path) for path in PATH.findall(text)}

    assert named - {"/api/v1", "/internal/v1"} <= served


@each
def test_every_code_and_variable_exists(page: Path):
    named = set(VARIABLE.findall(page.read_text(encoding="utf-8")))

    assert named - OTHERS <= {*codes(ServiceError), *env.scheme}


def test_every_error_code_of_the_public_api_is_explained():
    text = "".join((DOCS / "guide" / name).read_text("utf-8") for name in ("errors.md", "sync.md"))
    responses = (
        resolved(response)
        for path, operations in DOCUMENT["paths"].items()
        if path.startswith("/api/")
        for operation in operations.values()
        for status, response in operation["responses"].items()
        if status >= "400"
    )
    given = {
        code for a in responses for code in re.findall(r"`([A-Z]+_[A-Z_]+)`", a["description"])
    }

    assert len(given) > 20
    assert given | (codes(ServiceError) - NOT_SHOWN) <= set(VARIABLE.findall(text))


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("guide/errors.md", ("seconds", "lists", "creations", "edits", "deletions", "requests")),
        (
            "guia/errores.md",
            ("segundos", "listas", "creaciones", "modificaciones", "borrados", "peticiones"),
        ),
    ],
)
def test_rate_limits_equal_the_settings(page: str, words: tuple[str, ...]):
    text = (DOCS / page).read_text(encoding="utf-8")
    named = re.search(r"[:,] ".join(rf"(\d+) {word}" for word in words), text)
    kinds = ("WINDOW_S", "LIST", "CREATE", "PATCH", "DELETE", "ALL")

    assert named
    assert [int(n) for n in named.groups()] == [env.scheme[f"RATE_LIMIT_{k}"][1] for k in kinds]


def test_the_reference_has_every_endpoint_and_every_object():
    text = "\n".join(reference(DOCUMENT))

    assert PLACE in (DOCS / "reference.md").read_text(encoding="utf-8")
    for path, operations in DOCUMENT["paths"].items():
        assert all(f"`{method.upper()} {path}`" in text for method in operations)
    for name in DOCUMENT["components"]["schemas"]:
        assert f"### {name} {{#{name.lower()}}}" in text


def test_equivalent_blocks_are_in_tabs():
    page = "```bash\nx\n```\n\n```python\ny\n```\n\n```text\nz\n```\n\n```bash\nalone\n```\n"

    assert with_tabs(page) == (
        '=== "curl"\n\n    ```bash\n    x\n    ```\n\n'
        '=== "Python"\n\n    ```python\n    y\n    ```\n\n'
        '```text title="prints"\nz\n```\n\n```bash\nalone\n```\n'
    )


def test_the_navigation_shows_every_page():
    text = (BASE_DIR / "mkdocs.yml").read_text(encoding="utf-8")
    pages = yaml.load(text, Loader=Navigation)["nav"]  # noqa: S506

    shown = set(re.findall(r"[\w/-]+\.md", str(pages)))
    written = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert {page for page in shown if not page.startswith("repository/")} == written


def codes(kind: type[ServiceError]) -> set[str]:
    return {kind.code}.union(*map(codes, kind.__subclasses__()))
