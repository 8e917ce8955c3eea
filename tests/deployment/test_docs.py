"""The deployment guide: equal in both languages, and correct for this repository."""

import argparse
import re
from collections import Counter
from functools import cache

import pytest
import yaml
from django.core.management import get_commands, load_command_class

from config.env import BASE_DIR, env
from tests.deployment.manifests import VERSIONS, assignments, read, written
from tests.documented import DOCUMENT

DOCS = BASE_DIR / "docs"
TEXTS = {
    name: (DOCS / name).read_text(encoding="utf-8") for name in ("deployment.md", "despliegue.md")
}
ENGLISH, SPANISH = TEXTS.values()
IN_SPANISH = {
    "alerts.md": "alertas.md",
    "deployment.md": "despliegue.md",
    "despliegue.md": "deployment.md",
    "guide/browser.md": "guia/navegador.md",
    "guide/events.md": "guia/eventos.md",
    "guide/search.md": "guia/busqueda.md",
    "releases.md": "entregas.md",
}

both = pytest.mark.parametrize("text", TEXTS.values(), ids=["english", "spanish"])

BLOCK = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
FOLDERS = (
    "benchmarks|config|conversations|conversation_service|docker|docs|k8s|requirements|scripts"
)
FILE = re.compile(
    rf"(?<![\w./~-])(?:(?:{FOLDERS}|\.github)/[\w./-]*\w|\.env\.example|compose\.yaml)"
)
MADE = ("docker/secrets", "docker/.env")  # set by the reader of the guide
COMMAND = re.compile(r"manage\.py (\w+)([^`|&>#\n]*)")
SCRIPT = re.compile(r"scripts/([a-z0-9-]+\.sh)((?: +(?:\\\n +)?[^ `|&#\n]+)*)")
MAKE = re.compile(r"`make ([a-z-]+)`|^make ([a-z-]+)$", re.MULTILINE)
VARIABLE = re.compile(r"(?<![\w$<.])[A-Z][A-Z0-9]*_[A-Z0-9_]*[A-Z0-9]\b(?!:)")
RESOURCE = re.compile(r"(?<![\w/.-])(deployment|service|job|cronjob)/([a-z][a-z-]+)")
ALERT = re.compile(r"ConversationService\w+")
LINK = re.compile(r"\]\(([^)#]*)(?:#([^)]*))?\)")

# Not read by the service, but by the terminal of the reader, Compose and GitHub.
OTHERS = {
    *("BACKUP_URL", "NEW_URL", "KUBE_CONFIG", "GUNICORN_CMD_ARGS"),
    *("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"),
}
# Of mongod, mongodump and mongorestore.
MONGODB_OPTIONS = {
    "--db",
    "--oplog",
    "--oplogLimit",
    "--replSet",
    "--setParameter",
    "--wiredTigerCacheSizeGB",
    "--wiredTigerConcurrentReadTransactions",
}
# Created by deploy-k8s.sh from the Job of the release.
SMOKE = ("job", "conversation-service-smoke")


def test_both_have_the_same_headings():
    levels = [re.findall(r"^#+(?= )", prose(text), re.MULTILINE) for text in TEXTS.values()]

    assert len(levels[0]) > 40
    assert levels[0] == levels[1]


def test_both_show_the_same_commands():
    assert commands(ENGLISH)
    assert commands(SPANISH) == commands(ENGLISH)


def test_both_name_the_same_things_in_code():
    assert Counter(code(SPANISH)) == Counter(code(ENGLISH))


def test_both_link_to_the_same_places():
    english = [IN_SPANISH.get(file, file) for file, _ in LINK.findall(prose(ENGLISH))]

    assert [file for file, _ in LINK.findall(prose(SPANISH))] == english


def test_both_have_tables_of_the_same_form():
    assert tables(ENGLISH)
    assert tables(SPANISH) == tables(ENGLISH)


@both
def test_every_link_has_a_target(text):
    for file, anchor in LINK.findall(text):
        target = (DOCS / file).read_text(encoding="utf-8") if file else text
        assert not anchor or anchor in anchors(target), f"{file}#{anchor}"


@both
def test_every_named_file_exists(text):
    named = {name for name in FILE.findall(text) if not name.startswith(MADE)}

    assert "k8s/base/deployment.yaml" in named
    assert {name for name in named if not (BASE_DIR / name).exists()} == set()


@both
def test_every_make_target_exists(text):
    named = {one or other for one, other in MAKE.findall(text)}
    makefile = (BASE_DIR / "Makefile").read_text(encoding="utf-8")

    assert {"run", "check-image"} <= named
    assert named <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


@both
def test_every_management_command_takes_its_options(text):
    calls = set(COMMAND.findall(text))

    assert len({name for name, _ in calls}) > 8
    for name, line in calls:
        known = options(parser(name))
        assert set(re.findall(r"--[a-z-]+", line)) <= known, name


@both
def test_every_script_takes_its_options(text):
    calls = set(SCRIPT.findall(text))

    assert {"deploy-k8s.sh", "deploy-staging.sh", "diagnose.sh"} == {name for name, _ in calls}
    for name, line in calls:
        source = (BASE_DIR / "scripts" / name).read_text(encoding="utf-8")
        for option in re.findall(r"--[a-z-]+", line):
            assert re.search(rf"^ +(?:.*\| )?{option}(?: \||\))", source, re.MULTILINE), option


@both
def test_every_option_belongs_to_a_script_or_a_command(text):
    alone = {span.split()[0] for span in code(text) if span.startswith("--")}
    scripts = "".join(path.read_text("utf-8") for path in (BASE_DIR / "scripts").glob("*.sh"))
    known = {
        *re.findall(r"--[a-z-]+", scripts),
        *options(parser("setup_indexes")),
        *options(parser("restore")),
        *MONGODB_OPTIONS,
    }

    assert {"--token-secret", "--replace-conflicting"} <= alone
    assert alone <= known


@both
def test_every_variable_is_read(text):
    named = set(VARIABLE.findall(text))
    known = {*env.scheme, *(f"{name}_FILE" for name in env.scheme), *OTHERS, *error_codes()}

    assert {"CONNECTION_POOL_MAX", "TOMBSTONE_DAYS"} <= named
    assert named - known == set()


@both
def test_every_resource_is_in_the_manifests(text):
    named = set(RESOURCE.findall(text))
    made = {(item["kind"].lower(), item["metadata"]["name"]) for item in written()}

    assert ("cronjob", "purge-trash") in named
    assert named - {SMOKE} <= made


@both
def test_every_alert_exists(text):
    rules = yaml.safe_load(
        (BASE_DIR / "k8s/components/monitoring/prometheusrule.yaml").read_text("utf-8")
    )
    alerts = {rule.get("alert") for group in rules["spec"]["groups"] for rule in group["rules"]}
    named = set(ALERT.findall(text))

    assert named
    assert named <= alerts


@both
def test_the_number_of_connections_is_correct(text):
    values = assignments("base/config.env")
    pool, workers = int(values["CONNECTION_POOL_MAX"]), int(values["WEB_CONCURRENCY"])
    [scaler] = (item for item in written() if item["kind"] == "HorizontalPodAutoscaler")
    pods = scaler["spec"]["maxReplicas"]

    jobs = sum(item["kind"] == "CronJob" for item in written()) + 2  # release and smoke test

    [of_events] = (spec["spec"] for spec in read("base/event-process.yaml"))
    each = of_events["replicas"] + of_events["strategy"]["rollingUpdate"]["maxSurge"]
    [publisher, _deliverer] = read("base/events.yaml")
    [variable] = publisher["spec"]["template"]["spec"]["containers"][0]["env"]
    small = int(variable["value"])

    total = (pool + 2) * (workers * (pods + 1) + jobs + each) + (small + 2) * each
    figure = f"({workers} * ({pods} + 1) + {jobs} + {each}) + ({small} + 2) * {each} = {total}"
    figure = f"({pool} + 2) * {figure}"
    assert figure in text
    assert figure in (BASE_DIR / "k8s/base/config.env").read_text(encoding="utf-8")


@both
def test_stated_values_equal_the_settings(text):
    now = re.findall(r"^\|[^|]*`([A-Z_]+)` \| ([\d,]+)[^|]*\|", text, re.MULTILINE)
    values = {name: float(value.replace(",", "")) for name, value in now}

    assert {"WEB_CONCURRENCY", "MONGODB_TIMEOUT_MS", "CHANGES_WAITING"} <= values.keys()
    assert values == {name: env.scheme[name][1] for name in values}


@both
def test_scheduled_jobs_run_at_the_stated_times(text):
    jobs = [item for item in written() if item["kind"] == "CronJob"]
    rows = dict(re.findall(r"^\| `cronjob/(\S+)` \| ([^|]+) \|", text, re.MULTILINE))

    assert rows.keys() == {job["metadata"]["name"] for job in jobs}
    for job in jobs:
        minute, hour, *_ = job["spec"]["schedule"].split()
        time = minute.removeprefix("*/") if hour == "*" else f"{int(hour):02}:{int(minute):02}"
        assert time in rows[job["metadata"]["name"]]


@both
def test_manifests_are_checked_against_the_stated_versions(text):
    [row] = re.findall(r"^\| Kubernetes, kubectl .*", text, re.MULTILINE)

    assert sorted({*re.findall(r"\b1\.\d+", row)}) == VERSIONS


@both
def test_the_stated_image_results_equal_the_recorded_ones(text):
    record = (DOCS / "image-check.md").read_text(encoding="utf-8")
    [memory] = re.findall(r"(\d+), (\d+), (\d+), (\d+) MiB", text)
    [(size, base)] = re.findall(r"(\d+ MB), (\d+) ", text)
    [start] = re.findall(r"`docker compose up --detach --wait` \| (\d+ s)", text)

    assert f"{' / '.join(memory)} MiB" in record
    assert f"{size}, {base} of them" in record
    assert f"{start} from nothing" in record


def prose(text: str) -> str:
    return BLOCK.sub("", text)


def code(text: str) -> list[str]:
    named = re.findall(r"`([^`]+)`", prose(text))
    return [" ".join(span.split()) for span in named]


def commands(text: str) -> list[list[str]]:
    """Return the lines of each block, without comments and the blank lines that remain."""
    blocks = [
        re.sub(r"(^|\s+)# .*", "", block, flags=re.MULTILINE) for block in BLOCK.findall(text)
    ]
    return [[line.strip() for line in block.splitlines() if line.strip()] for block in blocks]


def tables(text: str) -> list[tuple[int, int]]:
    """Return the rows and columns of each table, in their order."""
    found = re.findall(r"(?:^ *\|.*\|$\n?)+", prose(text), re.MULTILINE)
    shapes = []
    for table in found:
        rows = [re.sub(r"`[^`]*`", "", row).count("|") - 1 for row in table.splitlines()]
        assert len(set(rows)) == 1, table
        shapes.append((len(rows), rows[0]))
    return shapes


def anchors(text: str) -> set[str]:
    """Return the names that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def parser(name: str) -> argparse.ArgumentParser:
    return load_command_class(get_commands()[name], name).create_parser("manage.py", name)


def options(known: argparse.ArgumentParser) -> set[str]:
    return {option for action in known._actions for option in action.option_strings}


def error_codes() -> set[str]:
    return set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", str(DOCUMENT)))
