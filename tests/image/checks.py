"""The checks of the image, in order, with a running engine."""

import json
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from config.env import BASE_DIR
from tests.image import system
from tests.image.engine import docker, engine
from tests.image.material import DATA, FOLDER, PACKAGES, TOOLS, images_of

DEVELOPMENT = ("compose", "--file", BASE_DIR / "compose.yaml")
STAGING = (
    *("compose", "--file", BASE_DIR / "docker/compose.staging.yaml"),
    *("--env-file", DATA / "staging.env"),
)
IMAGE = "conversation-service:development"
RELEASE = "registry.company.com/conversation-service:check"
UPSTREAMS = ("auth-service", "characters-service", "message-service")
UP_S = 180
WITHOUT_NETWORK = ("--build-context", f"packages={PACKAGES}", "--build-arg", "PIP_NO_INDEX=1")


def main() -> None:
    with engine():
        with timed("Base images are made"):
            import_base_images()
        run(registry=False)


def run(*, registry: bool) -> None:
    """Run all checks. Without a registry, base images exist and packages are in a folder."""
    with timed("The image is built" if registry else "The image is built, without a network"):
        build(*[] if registry else WITHOUT_NETWORK)
    with timed("It is what it should be"):
        require_structure()
    check_development()
    check_staging()
    print("All of it holds.")


@contextmanager
def timed(sentence: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    print(f"{time.monotonic() - started:6.1f} s  {sentence}", flush=True)


def import_base_images() -> None:
    docker("import", FOLDER / "build.tar", argument("BUILD_IMAGE"))
    docker("import", FOLDER / "base.tar", argument("BASE_IMAGE"))
    made = docker("import", FOLDER / "servers.tar")
    for image in images_of("docker/compose.yaml", "docker/compose.staging.yaml"):
        docker("tag", made, image)


def build(*options: str) -> None:
    docker(
        *("build", "--file", BASE_DIR / "docker/Dockerfile", "--tag", IMAGE, "--tag", RELEASE),
        *options,
        *("--build-arg", "REVISION=0000000", "--build-arg", "CREATED=2000-01-01T00:00:00Z"),
        BASE_DIR,
    )
    if not options:  # BuildKit keeps the base images that it pulls to itself
        docker("pull", "--quiet", argument("BASE_IMAGE"))
    print(f"          {megabytes(IMAGE)} MB, {megabytes(argument('BASE_IMAGE'))} of them the base")


def argument(name: str) -> str:
    """Return the default of an argument of the Dockerfile."""
    dockerfile = (BASE_DIR / "docker/Dockerfile").read_text("utf-8")
    return dockerfile.partition(f"ARG {name}=")[2].split()[0]


def megabytes(image: str) -> int:
    return round(int(docker("inspect", "--format", "{{.Size}}", image)) / 1e6)


def require_structure() -> None:
    done = subprocess.run(
        [
            *(TOOLS / "container-structure-test", "test", "--no-color", "--image", IMAGE),
            *("--config", BASE_DIR / "docker/structure.yaml"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stdout + done.stderr


def check_development() -> None:
    with timed("Development: `docker compose up` gives a working system"):
        docker(*DEVELOPMENT, "up", "--detach", "--wait", "--wait-timeout", UP_S)
    with timed("  every part is healthy"):
        system.eventually(everything_is_healthy, within_s=30)
    token = demo_token()
    with timed("  a user logs in, and sends a message to a character"):
        system.talk(token)
        assert b"/static/" in system.get(f"{system.URL}/admin/login/")[1]
    with timed("  the smoke test, from inside, with /metrics and /internal"):
        smoke_test(DEVELOPMENT, "development", "http://127.0.0.1:8003", "--metrics", "--internal")
    with timed("  no rights, no writable root, nothing published beyond this machine"):
        system.require_contained(container(DEVELOPMENT, "conversation-service"))
        system.require_loopback_only(*docker("ps", "--quiet").split())
    with timed("  without MongoDB it is live and not ready, with it ready again"):
        check_without_mongodb()
    with timed("  a request in flight gets its response before the stop"):
        check_graceful_stop(token)
    with timed("  `up` again starts what stopped, and nothing is lost"):
        docker(*DEVELOPMENT, "up", "--detach", "--wait", "--wait-timeout", UP_S)
        assert b"In flight" in system.get(f"{system.API}?search=flight", token=token)[1]
    print_memory()
    docker(*DEVELOPMENT, "down", "--volumes")


def smoke_test(compose: tuple, environment: str, url: str, *options: str) -> None:
    command = ("python", "manage.py", "smoke_test", f"--base-url={url}", *options)
    docker(*compose, "exec", "conversation-service", *command, f"--environment={environment}")


def everything_is_healthy() -> bool:
    parts = json.loads(system.get(f"{system.URL}/health")[1])["dependencies"].values()
    return {part["status"] for part in parts} == {"healthy"}


def demo_token() -> str:
    status, body = system.call(
        "POST",
        "http://127.0.0.1:8001/api/v1/auth/login",
        {"username": "demo", "password": "demo"},
    )
    assert status == 200, body
    return json.loads(body)["access_token"]


def container(compose: tuple, service: str) -> str:
    return docker(*compose, "ps", "--all", "--quiet", service).split()[0]


def check_without_mongodb() -> None:
    docker(*DEVELOPMENT, "stop", "mongodb")
    system.eventually(lambda: health("ready") == 503, within_s=20)
    assert health("live") == 200
    docker(*DEVELOPMENT, "start", "mongodb")
    system.eventually(lambda: health("ready") == 200, within_s=60)


def health(name: str) -> int:
    return system.get(f"{system.URL}/health/{name}")[0]


def check_graceful_stop(token: str) -> None:
    service = container(DEVELOPMENT, "conversation-service")
    upload = system.Upload(token)
    time.sleep(0.5)  # it arrives
    with subprocess.Popen(["docker", "stop", service], stdout=subprocess.DEVNULL) as stopping:
        time.sleep(1)
        assert stopping.poll() is None, "it did not wait"
        assert upload.finish() == 201
    assert system.exit_code(service) == "0"


def print_memory() -> None:
    usage = docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.PIDs}}")
    for line in sorted(usage.splitlines()):
        print(f"          {line} processes and threads")


def check_staging() -> None:
    prepare_staging()
    with timed("Staging: two replicas, with users, secrets as files and limits"):
        docker(*STAGING, "up", "--detach", "--wait", "--wait-timeout", UP_S)
    token = docker(
        *STAGING, "exec", "conversation-service", "python", "manage.py", "issue_token", "demo"
    )
    with timed("  a user sends a message to a character, through the gateway"):
        system.talk(token)
    with timed("  the smoke test, from a replica through the gateway"):
        smoke_test(STAGING, "staging", "http://gateway:8003")
    with timed("  the gateway hides what is for the inside"):
        assert system.get(f"{system.URL}/metrics")[0] == 404
        assert system.get(f"{system.URL}/internal/v1/authorize")[0] == 404
    with timed("  no rights, no writable root, nothing published beyond this machine"):
        for replica in replicas():
            system.require_contained(replica)
        system.require_loopback_only(*docker("ps", "--quiet").split())
    with timed("  databases reject other clients, and the service has no other rights"):
        check_database_users()
    with timed("  every container has limits"):
        check_limits()
    with timed("  a replica stops, and every request succeeds"):
        check_one_replica_less(token)
    with timed("  a second deployment, and a new start of MongoDB, change nothing"):
        docker(*STAGING, "restart", "mongodb")
        docker(*STAGING, "up", "--detach", "--wait", "--wait-timeout", UP_S)
        system.eventually(lambda: health("ready") == 200, within_s=60)
        system.talk(token)
    print_memory()
    docker(*STAGING, "down", "--volumes")


def prepare_staging() -> None:
    """Prepare a machine for staging, and run the upstreams on the shared network."""
    folder = DATA / "secrets"
    folder.mkdir(mode=0o700)
    words = {name: secrets.token_hex() for name in ("service", "root", "redis")}
    for name, value in {
        "secret_key": secrets.token_hex(),
        "jwt_secret_key": secrets.token_hex(),
        "mongodb_root_password": words["root"],
        "mongodb_url": f"mongodb://conversation_service:{words['service']}@mongodb:27017/"
        "?replicaSet=rs0",
        "redis_url": f"redis://:{words['redis']}@redis:6379/0",
    }.items():
        (folder / name).write_text(f"{value}\n", encoding="utf-8")
        (folder / name).chmod(0o444)
    (DATA / "staging.env").write_text(
        f"VERSION=check\nALLOWED_HOSTS=console.example.org\nSECRETS_DIR={folder}\n",
        encoding="utf-8",
    )
    docker("network", "create", "staging-network")
    docker(
        *("run", "--detach", "--network", "staging-network"),
        *(f"--network-alias={name}" for name in UPSTREAMS),
        *(IMAGE, "python", "manage.py", "run_neighbours", "--host=0.0.0.0"),
        "--ports=8001,8002,8004",
    )


def replicas() -> list[str]:
    found = docker(*STAGING, "ps", "--quiet", "conversation-service").split()
    assert len(found) == 2, found
    return found


def check_database_users() -> None:
    other_user = "try { db.users.findOne() } catch (error) { print(error.codeName) }"
    assert docker(*STAGING, "exec", "mongodb", "mongosh", "--quiet", "--eval", other_user) == (
        "Unauthorized"
    )
    service = (
        "from conversation_service.mongodb.connection import database; client = database().client\n"
        "from pymongo.errors import OperationFailure\n"
        "for attempt in (lambda: client.admin['system.users'].find_one(), "
        "lambda: client.other.things.find_one(), lambda: client.drop_database(database().name)):\n"
        "    try: attempt(); print('allowed')\n"
        "    except OperationFailure as error: print(error.code)\n"
    )
    codes = docker(
        *(*STAGING, "exec", "conversation-service", "python", "manage.py", "shell"),
        *("--no-imports", "--command", service),
    )
    assert codes.split() == ["13", "13", "13"], codes
    assert "NOAUTH" in docker(*STAGING, "exec", "redis", "valkey-cli", "ping")


def check_limits() -> None:
    for name in docker(*STAGING, "ps", "--quiet").split():
        host = json.loads(docker("inspect", name))[0]["HostConfig"]
        assert host["Memory"], name
        assert host["NanoCpus"], name
        assert host["PidsLimit"], name
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert host["LogConfig"]["Config"]["max-size"], name


def check_one_replica_less(token: str) -> None:
    docker("stop", replicas()[0])
    for _ in range(20):
        assert system.get(f"{system.API}?limit=1", token=token)[0] == 200


if __name__ == "__main__":
    main()
