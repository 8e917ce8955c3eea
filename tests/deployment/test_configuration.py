"""The configuration in k8s/: the service reads it, and starts with it."""

import pytest
from django.core.management import get_commands, load_command_class

from config.env import env
from tests.config.test_settings import manage
from tests.deployment.manifests import (
    ENVIRONMENTS,
    K8S,
    assignments,
    containers,
    pods,
    read,
    variables,
    written,
)

SECRETS = read("examples/secret.yaml")[0]["stringData"]


@pytest.mark.parametrize(
    "path",
    sorted(str(path.relative_to(K8S)) for path in K8S.rglob("*.env")),
)
def test_a_variable_in_the_configuration_is_one_that_the_service_reads(path):
    assert {name.removesuffix("_FILE") for name in assignments(path)} <= set(env.scheme)


def files_of(values: dict[str, str], folder, environment: str) -> dict[str, str]:
    """Write secrets to files, and return an environment's variables with the paths of those."""
    given = variables(environment)
    for name, value in values.items():
        (folder / name).write_text(value)
        given[f"{name}_FILE"] = str(folder / name)
    return given


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_service_starts_with_the_environment_of_a_pod(environment, tmp_path):
    strong = {name: f"{name}: long enough for Django, which requires 50" for name in SECRETS}
    urls = {name: SECRETS[name] for name in ("MONGODB_URL", "REDIS_URL")}

    done = manage(
        *("check", "--deploy", "--fail-level", "INFO"),
        **files_of(strong | urls, tmp_path, environment),
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_service_rejects_the_unchanged_template_of_the_secret(environment, tmp_path):
    done = manage("check", **files_of(SECRETS, tmp_path, environment))

    assert done.returncode != 0
    assert "SECRET_KEY is not set." in done.stderr
    assert "JWT_SECRET_KEY is not set." in done.stderr


def test_production_needs_only_the_values_of_the_secret():
    given = variables("production")
    missing = manage(
        "check", **{name: value for name, value in given.items() if not name.endswith("_FILE")}
    ).stderr
    lacking = {line.split()[1] for line in missing.splitlines() if line.endswith("is not set.")}

    assert lacking == {"SECRET_KEY", "JWT_SECRET_KEY", "MONGODB_URL"}
    assert lacking <= SECRETS.keys()


def commands() -> list[list[str]]:
    return [
        container["command"]
        for name, template in pods(written())
        if name != "conversation-service"
        for container in containers(template)
    ]


@pytest.mark.parametrize("command", commands(), ids=lambda command: command[2])
def test_each_job_runs_an_existing_command_with_valid_options(command):
    name = command[2]
    parser = load_command_class(get_commands()[name], name).create_parser("manage.py", name)

    assert command[:2] == ["python", "manage.py"]
    parser.parse_args(command[3:])
