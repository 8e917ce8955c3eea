"""Programs, base images and packages for an engine without a registry. Kept in var/image."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import yaml

from config.env import BASE_DIR

FOLDER = BASE_DIR / "var" / "image"
# Files of one run, removed at its end.
DATA = FOLDER / "engine"
PROGRAMS = FOLDER / "programs"
PACKAGES = FOLDER / "packages"
TOOLS = BASE_DIR / ".tools" / "bin"

NEEDED = ("apt-get", "mmdebstrap", "npm", "unshare", "runc", "iptables", "ip", "mount")
# Docker 26 for Debian 13 needs only its C library, and that of Debian 12 suffices.
ENGINE = ("docker.io", "docker-cli", "containerd", "tini")
PYTHON = ("ca-certificates", "python3-venv", "python3-pip")
# In the lock for Pythons before 3.11.3; Debian has 3.11.2.
BACKPORT = "async-timeout==5.0.1"
COMPILER = ("gcc", "libc6-dev", "python3-dev")
SERVERS = ("ca-certificates", "libcurl4", "nodejs", "nginx-light", "redis-server")

LIKE_THE_REAL_PYTHON = (
    'ln -s python3 "$1/usr/bin/python"; rm "$1"/usr/lib/python3.*/EXTERNALLY-MANAGED'
)
LIKE_THE_REAL_SERVERS = (
    'mkdir -p "$1/data/db"; chown -R 999:999 "$1/data"; chmod 755 "$1/usr/bin/mongod"; '
    'ln -s ../lib/node_modules/mongosh/bin/mongosh.js "$1/usr/bin/mongosh"; '
    'ln -s redis-server "$1/usr/bin/valkey-server"; ln -s redis-cli "$1/usr/bin/valkey-cli"'
)


class CannotRun(Exception):
    """This machine lacks a requirement of the check; the image is not at fault."""


def gather() -> None:
    """Fetch missing files, or raise CannotRun."""
    require_machine()
    PACKAGES.mkdir(parents=True, exist_ok=True)
    try:
        fetch_engine()
        fetch_packages()
        fetch_mongosh()
        make_root("base.tar", PYTHON, LIKE_THE_REAL_PYTHON)
        make_root("build.tar", PYTHON + COMPILER, LIKE_THE_REAL_PYTHON)
        make_root("servers.tar", SERVERS, *server_files(), LIKE_THE_REAL_SERVERS)
    except subprocess.CalledProcessError as error:
        raise CannotRun(f"{error.cmd[0]} could not fetch what is needed: {error.stderr}") from None


def require_machine() -> None:
    if os.geteuid():
        raise CannotRun("a container engine needs root")
    if missing := [name for name in NEEDED if not shutil.which(name)]:
        raise CannotRun(f"there is no {', no '.join(missing)} (apt-get install them)")
    if not (TOOLS / "docker-compose").exists():
        raise CannotRun("there is no .tools (`make check-deploy` brings it)")
    if "overlay" not in Path("/proc/filesystems").read_text(encoding="utf-8"):
        raise CannotRun("the kernel has no overlay file system")


def fetch_engine() -> None:
    """Unpack the engine of another release of Debian beside the system."""
    if (PROGRAMS / "usr/sbin/dockerd").exists():
        return
    apt = FOLDER / "apt"
    for folder in ("lists/partial", "archives/partial", "parts"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(
        f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror()} trixie main\n",
        encoding="utf-8",
    )
    (apt / "apt.conf").write_text(
        f'Dir::State "{apt}";\nDir::State::status "{apt}/status";\nDir::Cache "{apt}";\n'
        f'Dir::Etc::SourceList "{apt}/sources.list";\nDir::Etc::SourceParts "{apt}/parts";\n'
        f'Dir::Etc::PreferencesParts "{apt}/parts";\nAPT::Sandbox::User "";\n',
        encoding="utf-8",
    )
    environment = {**os.environ, "APT_CONFIG": str(apt / "apt.conf")}  # noqa: TID251
    run("apt-get", "update", "--quiet=2", env=environment)
    run("apt-get", "download", "--quiet=2", *ENGINE, cwd=apt / "archives", env=environment)
    for package in (apt / "archives").glob("*.deb"):
        run("dpkg-deb", "--extract", package, PROGRAMS)
    shutil.rmtree(apt)


def mirror() -> str:
    for line in Path("/etc/apt/sources.list.d/debian.sources").read_text("utf-8").splitlines():
        if line.startswith("URIs:"):
            return line.removeprefix("URIs:").strip()
    raise CannotRun("debian.sources names no mirror")


def fetch_packages() -> None:
    """Fetch the locked packages; the build checks each hash."""
    download = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps")
    for lock in ("build", "production"):
        run(*download, "--dest", PACKAGES, "-r", BASE_DIR / f"requirements/{lock}.txt")
    run(*download, "--dest", PACKAGES, BACKPORT)


def fetch_mongosh() -> None:
    if not (FOLDER / "mongosh").exists():
        run(
            *("npm", "install", "--prefix", FOLDER / "mongosh", "--ignore-scripts", "--silent"),
            *("--omit=optional", "--legacy-peer-deps", "mongosh@2.3.8"),
        )


def server_files() -> tuple[str, ...]:
    mongod = Path(sysconfig.get_path("purelib")) / "fiftyone/db/bin/mongod"
    return (
        f"upload {mongod} /usr/bin/mongod",
        f"copy-in {FOLDER / 'mongosh/node_modules'} /usr/lib",
    )


def make_root(name: str, packages: tuple[str, ...], *hooks: str) -> None:
    """Create the root file system of an image, unless it exists."""
    if not (FOLDER / name).exists():
        run(
            *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}"),
            *(f"--dpkgopt=path-exclude=/usr/share/{kind}/*" for kind in ("man", "doc", "locale")),
            *(f"--customize-hook={hook}" for hook in hooks),
            *("--format=tar", "bookworm", FOLDER / f"{name}.part"),
        )
        (FOLDER / f"{name}.part").rename(FOLDER / name)


def run(*command: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    print("  ", *map(str, command[:3]), "...", flush=True)
    subprocess.run(
        [*map(str, command)], check=True, capture_output=True, text=True, cwd=cwd, env=env
    )


def images_of(*files: str) -> set[str]:
    """Return the images that compose files pull, by their names there."""
    documents = [yaml.safe_load((BASE_DIR / file).read_text("utf-8")) for file in files]
    services = [service for document in documents for service in document["services"].values()]
    return {
        service["image"] for service in services if "conversation-service" not in service["image"]
    }
