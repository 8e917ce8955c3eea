"""A Docker engine without a network, in namespaces that end with all of its processes."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from config.env import BASE_DIR
from tests.image.material import DATA, FOLDER, PROGRAMS, TOOLS

START_S = 30.0
STOP_S = 60.0
PLUGINS = ("docker-compose", "docker-buildx")


def enter(module: str) -> int:
    """Run a module with its own network, mounts and processes.

    The kernel removes the rest of them at its end.
    """
    return subprocess.call(
        [
            *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *(sys.executable, "-m", module),
        ],
        cwd=BASE_DIR,
    )


@contextmanager
def engine() -> Iterator[None]:
    """Run dockerd, and let `docker` find it."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    prepare()
    with (FOLDER / "dockerd.log").open("w") as log:
        daemon = subprocess.Popen(
            [
                *("dockerd", "--data-root", DATA / "images", "--exec-root", DATA / "run"),
                *("--host", os.environ["DOCKER_HOST"], "--pidfile", DATA / "pid"),  # noqa: TID251
                *("--init-path", PROGRAMS / "usr/bin/tini-static"),
                *("--storage-driver", "overlay2", "--ip", "127.0.0.1", "--log-level", "warn"),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(daemon)
        yield
    finally:
        daemon.terminate()
        daemon.wait(STOP_S)


def prepare() -> None:
    """Set the paths of the engine, the plugins and the unpacked programs."""
    plugins = DATA / "client" / "cli-plugins"
    plugins.mkdir(parents=True)
    for name in PLUGINS:
        (plugins / name).symlink_to((TOOLS / name).resolve())
    path = os.pathsep.join([f"{PROGRAMS}/usr/sbin", f"{PROGRAMS}/usr/bin", os.environ["PATH"]])  # noqa: TID251
    os.environ |= {  # noqa: TID251
        "PATH": path,
        "DOCKER_HOST": f"unix://{DATA}/socket",
        "DOCKER_CONFIG": str(DATA / "client"),
    }


def wait_for(daemon: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_S
    while subprocess.run(["docker", "version"], capture_output=True, check=False).returncode:
        assert daemon.poll() is None, f"dockerd ended; see {FOLDER}/dockerd.log"
        assert time.monotonic() < deadline, f"dockerd does not respond; see {FOLDER}/dockerd.log"
        time.sleep(0.2)


def docker(*arguments: object) -> str:
    """Return the output, or raise with it."""
    done = subprocess.run(
        ["docker", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert not done.returncode, f"docker {arguments[0]}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout.strip()
