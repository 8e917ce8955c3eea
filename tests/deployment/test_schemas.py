"""The manifests that kubectl renders, validated by the schemas of Kubernetes."""

import json
import subprocess

import pytest
import yaml

from tests.deployment.manifests import (
    IMAGE,
    ROOT,
    TOOLS,
    VERSIONS,
    Manifest,
    containers,
    every,
    pods,
    read,
    render,
    run_tool,
)

pytestmark = pytest.mark.deployment

CONFIGURATION = "conversation-service-config"
CUSTOM = {"ServiceMonitor", "PrometheusRule", "ExternalSecret"}


def problems(manifests: list[Manifest], version: str, folder) -> list[str]:
    """Return violations of the schemas, and objects without a schema."""
    path = folder / "manifests.yaml"
    path.write_text(yaml.safe_dump_all(manifests))
    done = subprocess.run(
        [TOOLS / "bin/kubernetes-validate", "-k", version, "--strict", "--quiet", path],
        capture_output=True,
        text=True,
        check=False,
    )
    # The tool only warns about a kind without a schema.
    custom = [f"Couldn't find schema for kind {kind} " for kind in CUSTOM]
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if not any(text in line for text in custom)]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_valid_by_the_schema_of_kubernetes(rendered, traced, version, tmp_path):
    names = ("secret", "deployer", "backup")
    examples = [manifest for name in names for manifest in read(f"examples/{name}.yaml")]

    assert problems(rendered + traced + examples, version, tmp_path) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"prots": []}},
        {"apiVersion": "policy/v1beta1", "kind": "PodSecurityPolicy", "metadata": {"name": "x"}},
    ],
    ids=["a field that there is not", "a kind that is gone"],
)
def test_a_wrong_manifest_is_found(wrong, tmp_path):
    assert problems([wrong], "1.29", tmp_path)


CHECK = """
import { readFileSync } from "node:fs";
const packages = {
  "monitoring.coreos.com/v1": "prometheus-operator",
  "external-secrets.io/v1": "external-secrets",
};
for (const manifest of JSON.parse(readFileSync(0, "utf8"))) {
  const name = packages[manifest.apiVersion];
  const kinds = await import(`@kubernetes-models/${name}/${manifest.apiVersion}/index`);
  new kinds[manifest.kind](manifest).validate();
}
"""


def check_custom(manifests: list[Manifest]) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["node", "--input-type=module", "--eval", CHECK],  # noqa: S607 - comes with npm
        cwd=TOOLS / "schemas",
        input=json.dumps(manifests),
        capture_output=True,
        text=True,
        check=False,
    )


def test_custom_resources_are_valid_by_the_schemas_of_their_operators(rendered):
    custom = [manifest for manifest in rendered if manifest["kind"] in CUSTOM]

    done = check_custom(custom + read("examples/external-secret.yaml"))

    assert done.returncode == 0, done.stderr
    assert {manifest["kind"] for manifest in custom} == {"ServiceMonitor", "PrometheusRule"}


def test_a_wrong_custom_resource_is_found():
    [secret] = read("examples/external-secret.yaml")
    secret["spec"]["data"][0]["remoteRef"] = "conversation-service"

    assert "remoteRef" in check_custom([secret]).stderr


def test_yaml_is_written_in_one_style():
    folders = [folder for folder in ("k8s", "docker", ".github") if (ROOT / folder).is_dir()]

    run_tool("yamllint", "--strict", ".yamllint.yaml", ".checkov.yaml", *folders)


def test_every_pod_runs_the_image_of_the_release(rendered):
    images = {one["image"] for _, template in pods(rendered) for one in containers(template)}

    assert images == {IMAGE}


def test_a_changed_configuration_restarts_the_pods(environment, rendered, tmp_path):
    changed = render(
        environment,
        tmp_path,
        configMapGenerator=[
            {
                "name": CONFIGURATION,
                "behavior": "merge",
                "literals": ["LOG_LEVEL=DEBUG"],
            }
        ],
    )

    before, after = (every("Deployment", manifests) for manifests in (rendered, changed))
    assert [name for name in before if before[name] == after[name]] == []
