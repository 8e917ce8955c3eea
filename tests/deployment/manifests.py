"""The manifests in k8s/: as written, and as kubectl renders them for a release."""

import os
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
TOOLS = ROOT / ".tools"
ENVIRONMENTS = ["staging", "production"]
IMAGE = f"registry.example.org/conversation-service@sha256:{'5e' * 32}"

# The oldest that we support, the newest, and two between.
VERSIONS = ["1.29", "1.31", "1.34", "1.36"]

Manifest = dict[str, Any]

# For kubectl, which ends soon: garbage collection takes a fifth of its CPU time.
NO_GC = {"GOGC": "off"}


def read(path: str) -> list[Manifest]:
    return list(yaml.safe_load_all((K8S / path).read_text()))


@cache
def written() -> list[Manifest]:
    """Return all objects of base/, without kustomize."""
    listed = yaml.safe_load((K8S / "base/kustomization.yaml").read_text())["resources"]
    return [manifest for path in listed for manifest in read(f"base/{path}")]


def one(kind: str, manifests: list[Manifest]) -> Manifest:
    [found] = every(kind, manifests).values()
    return found


def every(kind: str, manifests: list[Manifest]) -> dict[str, Manifest]:
    """Return the objects of a kind by their names."""
    found = [manifest for manifest in manifests if manifest["kind"] == kind]
    return {manifest["metadata"]["name"]: manifest for manifest in found}


def configuration(manifests: list[Manifest]) -> Manifest:
    """Return the ConfigMap that the pods read."""
    [found] = (
        manifest
        for name, manifest in every("ConfigMap", manifests).items()
        if name.startswith("conversation-service-config-")
    )
    return found


def variables(environment: str) -> dict[str, str]:
    """Return the data of the ConfigMap of an environment."""
    return assignments("base/config.env") | assignments(f"overlays/{environment}/config.env")


def assignments(path: str) -> dict[str, str]:
    lines = (K8S / path).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@cache
def release(environment: str, *components: str) -> list[Manifest]:
    """Return the objects of a release to an environment, with further components."""
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        paths = [os.path.relpath(K8S / "components" / each, folder) for each in components]
        return render(environment, folder, components=paths)


def render(environment: str, folder: Path, **more: Any) -> list[Manifest]:
    """Render an environment as a deployment does: with an overlay of its own, for the image."""
    repository, digest = IMAGE.split("@")
    overlay = {
        "resources": [os.path.relpath(K8S / "overlays" / environment, folder)],
        "images": [
            {
                "name": "registry.invalid/conversation-service",
                "newName": repository,
                "digest": digest,
            }
        ],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay | more))
    rendered = run_tool("kubectl", "kustomize", folder)
    return list(yaml.load_all(rendered, yaml.CSafeLoader))


def run_tool(name: str, *arguments: object) -> str:
    """Run one of .tools and return its output, or fail with it."""
    done = subprocess.run(
        [TOOLS / "bin" / name, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | NO_GC,  # noqa: TID251
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Yield the name and the pod template of each object that creates pods."""
    for manifest in manifests:
        match manifest:
            case {"kind": "Deployment" | "Job", "spec": {"template": template}}:
                yield manifest["metadata"]["name"], template
            case {"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": template}}}}:
                yield manifest["metadata"]["name"], template


def containers(template: Manifest) -> list[Manifest]:
    return template["spec"].get("initContainers", []) + template["spec"]["containers"]


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    conditions = selector.get("matchExpressions", [])
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    assert {each["operator"] for each in conditions} <= {"In"}, "only In is understood here"
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in conditions
    )
