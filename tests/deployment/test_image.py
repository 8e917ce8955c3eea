"""The image and the compose files agree with each other and with the service."""

import re
import runpy
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from config.env import env
from tests.config.processes import environment

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text("utf-8")
IGNORED = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
FILES = ("docker/compose.yaml", "docker/compose.staging.yaml")
COMPOSE = {file: yaml.safe_load((ROOT / file).read_text("utf-8")) for file in FILES}
STAGING = COMPOSE["docker/compose.staging.yaml"]["services"]
DEVELOPMENT = COMPOSE["docker/compose.yaml"]["services"]
ONE_SHOT = {"prepare", "mongodb-init"}
WORKERS = {"events": "publish_events", "webhooks": "deliver_webhooks"}
SECRETS = {"SECRET_KEY", "JWT_SECRET_KEY", "MONGODB_URL", "REDIS_URL"}

each_file = pytest.mark.parametrize("file", FILES)
each_service = pytest.mark.parametrize(
    ("file", "name"), [(file, name) for file in FILES for name in COMPOSE[file]["services"]]
)
each_lasting_service = pytest.mark.parametrize(
    ("file", "name"),
    [(file, name) for file in FILES for name in COMPOSE[file]["services"] if name not in ONE_SHOT],
)


def test_the_image_serves_on_the_default_port():
    assert re.findall(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE) == [_default("PORT")]


def test_the_health_check_of_the_image_uses_its_own_python():
    probe = re.search(r"^HEALTHCHECK .*\n +CMD (.*)$", DOCKERFILE, re.MULTILINE)

    assert probe
    assert yaml.safe_load(probe[1]) == [
        "python",
        "-m",
        "config.probe",
        "/health/live",
    ]


def test_the_image_runs_gunicorn_as_documented():
    command = yaml.safe_load(re.findall(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)[-1])

    assert " ".join(command) in (ROOT / "README.md").read_text("utf-8")


def test_the_user_of_the_image_is_the_number_in_staging():
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["1000:1000"]
    assert "--gid 1000" in DOCKERFILE
    assert "--uid 1000" in DOCKERFILE
    assert STAGING["conversation-service"]["user"] == "1000:1000"


def test_the_last_stage_installs_nothing_and_owns_no_files():
    last = DOCKERFILE.rpartition("\nFROM ")[2]

    assert not re.search(r"apt-get|pip |curl|chown", last)
    assert "/opt/venv" in last


def test_the_image_installs_the_locked_requirements():
    installs = re.findall(r"pip (?:install|wheel) .*(?:\\\n.*)?", DOCKERFILE)

    assert installs
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)
    assert "requirements/production.txt" in DOCKERFILE
    assert "local.txt" not in DOCKERFILE


def test_the_image_needs_no_remote_syntax():
    assert "syntax=" not in DOCKERFILE


def test_the_image_stops_by_the_signal_of_gunicorn():
    assert re.findall(r"^STOPSIGNAL (.*)$", DOCKERFILE, re.MULTILINE) == ["SIGTERM"]


def test_the_version_is_that_of_the_project():
    version = re.search(r"^ARG VERSION=(.*)$", DOCKERFILE, re.MULTILINE)

    assert version
    assert f'version = "{version[1]}"' in (ROOT / "pyproject.toml").read_text("utf-8")


@pytest.mark.parametrize(
    "path",
    [".env", ".git/config", "tests/conftest.py", "var/run.lock", "docker/secrets/secret_key"],
)
def test_files_that_are_not_listed_stay_out_of_the_image(path):
    assert not _sent(path)


@pytest.mark.parametrize(
    "path", ["manage.py", "config/wsgi.py", "docs/openapi.json", "requirements/production.txt"]
)
def test_files_that_the_service_needs_are_in_the_image(path):
    assert _sent(path)


@each_file
def test_every_variable_is_one_that_the_service_reads(file):
    environment = COMPOSE[file]["x-service"]["environment"]
    names = {name.removesuffix("_FILE") for name in environment}

    assert names <= set(env.scheme)
    assert {"ENVIRONMENT", "MONGODB_URL", "REDIS_URL"} <= names
    assert {f"{name}_SERVICE_URL" for name in ("AUTH", "CHARACTERS", "MESSAGE")} <= names


def test_staging_runs_as_staging():
    values = STAGING["conversation-service"]["environment"]

    assert values["ENVIRONMENT"] == "staging"
    assert values["LOG_LEVEL"] == "INFO"
    assert STAGING["prepare"]["environment"] == values


def test_secrets_of_staging_are_mounted_files():
    service = STAGING["conversation-service"]
    files = {
        name.removesuffix("_FILE"): path
        for name, path in service["environment"].items()
        if name.endswith("_FILE")
    }

    assert set(files) == SECRETS
    assert set(files.values()) == {f"/run/secrets/{name}" for name in service["secrets"]}
    assert not SECRETS & set(service["environment"])


def test_secrets_of_staging_come_from_files_ignored_by_git():
    document = COMPOSE["docker/compose.staging.yaml"]
    used = {name for service in STAGING.values() for name in service.get("secrets", [])}

    assert used == set(document["secrets"])
    assert {secret["file"] for secret in document["secrets"].values()} == {
        f"${{SECRETS_DIR:-./secrets}}/{name}" for name in used
    }
    assert "docker/secrets/" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


@each_file
def test_the_stop_grace_period_exceeds_the_graceful_timeout(file):
    graceful_s = runpy.run_path(str(ROOT / "config/gunicorn.conf.py"))["graceful_timeout"]
    given = COMPOSE[file]["services"]["conversation-service"]["stop_grace_period"]

    assert int(given.removesuffix("s")) > graceful_s + 10


@each_file
@pytest.mark.parametrize("name", WORKERS)
def test_workers_of_events_run_until_they_are_stopped(file, name):
    services = COMPOSE[file]["services"]
    worker, service = services[name], services["conversation-service"]

    assert worker["command"] == ["python", "manage.py", WORKERS[name]]
    assert worker["image"] == service["image"]
    assert worker["environment"] == service["environment"]
    assert worker["depends_on"] == {"prepare": {"condition": "service_completed_successfully"}}
    port = f"PORT={_default('EVENTS_PORT')}"
    probe = ["CMD", "env", port, "python", "-m", "config.probe", "/healthz"]
    assert worker["healthcheck"]["test"] == probe
    assert worker["stop_grace_period"] == "60s"  # as in Kubernetes
    assert "ports" not in worker


def test_only_the_deliverer_of_staging_reaches_other_hosts_and_no_upstream():
    assert STAGING["events"]["networks"] == ["back"]
    assert STAGING["webhooks"]["networks"] == ["back", "outside"]
    assert [name for name, each in STAGING.items() if "outside" in each.get("networks", [])] == [
        "webhooks"
    ]


def test_the_gateway_has_the_timeout_of_the_service():
    gateway, service = STAGING["gateway"], STAGING["conversation-service"]

    assert gateway["stop_grace_period"] == service["stop_grace_period"]


@each_file
def test_the_health_check_of_the_service_is_readiness(file):
    check = COMPOSE[file]["services"]["conversation-service"]["healthcheck"]

    assert check["test"] == [
        "CMD",
        "python",
        "-m",
        "config.probe",
        "/health/ready",
    ]


@each_service
def test_ports_are_published_on_this_machine_only(file, name):
    ports = COMPOSE[file]["services"][name].get("ports", [])

    assert all(port.startswith("127.0.0.1:") for port in ports)


@each_file
def test_databases_publish_no_port(file):
    services = COMPOSE[file]["services"]

    assert "ports" not in services["mongodb"]
    assert "ports" not in services["redis"]


@each_file
def test_the_service_is_published_on_its_own_port(file):
    services = COMPOSE[file]["services"]
    door = services.get("gateway", services["conversation-service"])

    assert door["ports"] == [f"127.0.0.1:${{PORT:-{_default('PORT')}}}:{_default('PORT')}"]


def test_replicas_do_not_share_a_port():
    assert STAGING["conversation-service"]["deploy"]["replicas"] == 2
    assert "ports" not in STAGING["conversation-service"]
    assert f"conversation-service:{_default('PORT')}" in _text("docker/nginx.conf")
    assert f"listen {_default('PORT')};" in _text("docker/nginx.conf")


@each_service
def test_every_image_has_an_exact_version(file, name):
    image = COMPOSE[file]["services"][name]["image"]

    assert re.fullmatch(r"\S+:\d+\.\d+\.\d+\S*|conversation-service:development", image) or (
        "/conversation-service:${VERSION:?" in image
    )


def test_base_images_have_exact_versions_of_one_python():
    images = re.findall(r"^ARG \w+_IMAGE=\S+/python:(\S+)$", DOCKERFILE, re.MULTILINE)

    assert len(images) == 2
    assert all(re.fullmatch(r"3\.13\.\d+-(slim-)?bookworm", image) for image in images)
    assert len({image.replace("slim-", "") for image in images}) == 1


@each_service
def test_every_mounted_file_exists(file, name):
    volumes = COMPOSE[file]["services"][name].get("volumes", [])
    sources = [volume.split(":")[0] for volume in volumes]
    mounted = [source for source in sources if source.startswith(".")]

    assert all((ROOT / "docker" / source).is_file() for source in mounted)
    assert set(sources) - set(mounted) <= set(COMPOSE[file]["volumes"])


@each_service
def test_every_container_has_no_privileges_and_bounded_logs(file, name):
    service = COMPOSE[file]["services"][name]

    assert service["read_only"] is True
    assert service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    options = service["logging"]["options"]
    assert options.keys() == {"max-size", "max-file", "mode", "max-buffer-size"}
    assert options["mode"] == "non-blocking"  # a worker would wait for the reader of its stdout
    assert "privileged" not in service


@each_service
def test_every_container_has_limits(file, name):
    service = COMPOSE[file]["services"][name]
    limits = service.get("deploy", {}).get("resources", {}).get("limits", {})

    assert "pids_limit" in service or {"cpus", "memory", "pids"} <= set(limits)


@pytest.mark.parametrize("name", STAGING)
def test_every_container_of_staging_has_a_memory_limit(name):
    assert STAGING[name]["deploy"]["resources"]["limits"]["memory"]


def test_memory_limits_leave_room_for_the_processes():
    limits = {
        name: service["deploy"]["resources"]["limits"]["memory"]
        for name, service in STAGING.items()
    }

    assert limits == {
        "gateway": "64M",
        "conversation-service": "512M",  # as in Kubernetes
        "events": "384M",
        "webhooks": "384M",
        "prepare": "512M",
        "mongodb": "1G",
        "mongodb-init": "256M",
        "redis": "128M",
    }
    assert DEVELOPMENT["conversation-service"]["mem_limit"] == "512m"


@each_lasting_service
def test_every_server_has_a_health_check_and_a_restart_policy(file, name):
    service = COMPOSE[file]["services"][name]

    assert service["healthcheck"]["test"]
    assert "curl" not in str(service["healthcheck"])
    assert service["restart"] == "unless-stopped"


@each_service
def test_every_container_waits_for_its_dependencies(file, name):
    needs = COMPOSE[file]["services"][name].get("depends_on", {})
    wanted = {
        other: "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
        for other in needs
    }
    # It makes the server healthy.
    wanted |= {"mongodb": "service_started"} if name == "mongodb-init" else {}

    assert {other: need["condition"] for other, need in needs.items()} == wanted


@each_file
def test_the_database_is_prepared_before_the_service_starts(file):
    services = COMPOSE[file]["services"]
    command = " ".join(services["prepare"]["command"])

    assert command.index("manage.py migrate") < command.index("manage.py setup_indexes")
    assert "prepare" in services["conversation-service"]["depends_on"]
    assert {"mongodb", "mongodb-init"} == set(services["prepare"]["depends_on"])


@each_file
def test_mongodb_has_the_replica_set_name_of_the_url(file):
    server = COMPOSE[file]["services"]["mongodb"]

    assert "--replSet rs0" in " ".join(server["command"])
    assert '_id: "rs0"' in _text("docker/mongo-init.js")
    assert "mongodb://" in _text(file)
    assert "replicaSet=rs0" in _text(file)


def test_mongodb_of_staging_requires_authentication():
    assert "--keyFile" in " ".join(STAGING["mongodb"]["command"])


def test_the_service_has_rights_on_its_database_only():
    script = _text("docker/mongo-init.js")
    granted = re.findall(r"(?:roles|actions): (\[.*\])", script)

    assert f'"{_default("MONGODB_DATABASE")}"' in script
    assert granted == [
        '["root"]',
        '["collMod"]',
        '[{ role: "readWrite", db: DATABASE }]',
        "[ROLE]",
    ]


def test_redis_of_staging_requires_a_password():
    assert 'requirepass "$$password"' in STAGING["redis"]["command"][-1]


@each_file
def test_redis_has_a_size_limit_and_evicts(file):
    command = " ".join(COMPOSE[file]["services"]["redis"]["command"])

    assert "--maxmemory 64mb" in command
    assert "--maxmemory-policy allkeys-lru" in command


def test_the_gateway_leaves_limits_and_errors_to_the_service():
    directives = re.findall(r"^ +(\w+) +(.*);", _text("docker/nginx.conf"), re.MULTILINE)
    values = dict(directives)

    assert len([name for name, _ in directives if name.startswith("proxy_next")]) == 2
    # Without `non_idempotent`: a write could be carried out twice.
    assert values["proxy_next_upstream"] == "error timeout"
    assert values["proxy_next_upstream_tries"] == "2"
    # Longer than a request for changes, and than the silence of a stream.
    assert int(values["proxy_read_timeout"].removesuffix("s")) >= 40
    assert values["client_max_body_size"] == "0"
    number, size = values["large_client_header_buffers"].split()
    assert int(number) * int(size.removesuffix("k")) > 64
    headers = {value for name, value in directives if name == "proxy_set_header"}
    assert headers == {
        'Connection ""',
        "Host $http_host",
        "X-Forwarded-For $proxy_add_x_forwarded_for",
        "X-Forwarded-Proto $scheme_of_client",
    }


def test_the_gateway_hides_internal_paths():
    locations = re.findall(r"location (.*) \{\n(.*)", _text("docker/nginx.conf"))

    assert [(path, first.strip()) for path, first in locations][:2] == [
        ("= /metrics", "return 404;"),
        ("/internal/", "return 404;"),
    ]
    assert [path for path, _ in locations][2:] == ["/"]


def test_databases_of_staging_are_on_an_internal_network():
    networks = COMPOSE["docker/compose.staging.yaml"]["networks"]

    assert networks["back"] == {"internal": True}
    assert STAGING["mongodb"]["networks"] == STAGING["redis"]["networks"] == ["back"]


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_a_check_of_the_image_that_cannot_run_fails_in_ci_only(ci, code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.image"],
        cwd=ROOT,
        env=environment(PATH=str(tmp_path), CI=ci),
        capture_output=True,
        text=True,
        check=False,
    )

    assert "SKIPPED: " in done.stdout
    assert done.returncode == code


def test_a_deployment_without_a_version_is_rejected():
    assert "${VERSION:?" in STAGING["conversation-service"]["image"]


def test_upstreams_of_development_are_in_its_file():
    service = DEVELOPMENT["conversation-service"]
    urls = [
        service["environment"][f"{name}_SERVICE_URL"] for name in ("AUTH", "CHARACTERS", "MESSAGE")
    ]
    ports = [url.removeprefix("http://upstreams:") for url in urls]

    assert f"--ports={','.join(ports)}" in DEVELOPMENT["upstreams"]["command"]
    assert DEVELOPMENT["upstreams"]["ports"] == [f"127.0.0.1:{port}:{port}" for port in ports]


def test_compose_in_the_root_includes_development():
    assert yaml.safe_load(_text("compose.yaml"))["include"] == ["docker/compose.yaml"]


@each_file
def test_no_file_of_the_first_compose_is_left(file):
    assert "version" not in COMPOSE[file]
    assert "external: true" not in _text(file).partition("\nsecrets:")[2]


def _default(name: str) -> str:
    return str(env.scheme[name][1])


def _text(file: str) -> str:
    return (ROOT / file).read_text("utf-8")


def _sent(path: str) -> bool:
    """Return True if a file is in the build context, by the last matching line of .dockerignore."""
    sent = True
    for line in IGNORED:
        pattern = line.removeprefix("!").rstrip("/")
        if (
            line
            and not line.startswith("#")
            and (fnmatch(path, pattern) or path.startswith(f"{pattern}/"))
        ):
            sent = line.startswith("!")
    return sent
