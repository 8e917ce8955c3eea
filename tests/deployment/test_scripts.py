"""The help of the scripts, and the names that they share with the manifests."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from django.core.management import load_command_class

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = (ROOT / "scripts/deploy-k8s.sh").read_text()
STAGING = (ROOT / "scripts/deploy-staging.sh").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker/compose.staging.yaml").read_text())
POD = yaml.safe_load((ROOT / "k8s/base/deployment.yaml").read_text())["spec"]["template"]["spec"]

each_script = pytest.mark.parametrize(
    "script", ["deploy-k8s.sh", "deploy-staging.sh", "diagnose.sh"]
)


def help_of(script: str) -> str:
    command = [str(ROOT / "scripts" / script), "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@each_script
def test_help_names_every_option(script):
    text = (ROOT / "scripts" / script).read_text()
    cases = text.partition("case $1 in")[2].partition("esac")[0]
    options = set(re.findall(r"(--[a-z-]+)(?: \||\))", cases))

    assert {"--help"} < options
    assert options <= set(re.findall(r"--[a-z-]+", help_of(script)))


@each_script
def test_help_names_every_exit_code(script):
    text = (ROOT / "scripts" / script).read_text()
    used = set(re.findall(r"\b(?:stop|exit) (\d)", text))

    assert used
    assert used <= set(re.findall(r"\b\d\b", help_of(script).partition("Exit codes:")[2]))


def test_the_checked_secret_is_the_mounted_one():
    mounted = next(volume["secret"] for volume in POD["volumes"] if "secret" in volume)

    assert f"secret={mounted['secretName']}\n" in DEPLOY


def test_the_replaced_image_is_the_one_in_the_manifests():
    assert f"name: {POD['containers'][0]['image']}, newName" in DEPLOY


def test_services_that_staging_calls_are_in_its_compose_file():
    called = {
        *re.findall(r"^readonly service=(\S+)", STAGING, re.MULTILINE),
        *re.findall(r"run --rm --no-TTY (\S+)", STAGING),
        *re.findall(r"--base-url http://([a-z-]+):8003", STAGING),
    }

    assert len(called) == 3
    assert called <= set(COMPOSE["services"])


@pytest.mark.parametrize("text", [DEPLOY, STAGING], ids=["kubernetes", "staging"])
def test_the_smoke_test_accepts_the_options_of_the_scripts(text):
    call = text.partition("smoke_test")[2].partition("\n}")[0]
    smoke_test = load_command_class("conversations", "smoke_test")
    usage = smoke_test.create_parser("manage.py", "smoke_test").format_help()

    given = set(re.findall(r"--[a-z][a-z-]+", call))
    assert {"--base-url", "--environment"} <= given
    assert given <= set(re.findall(r"--[a-z-]+", usage))
