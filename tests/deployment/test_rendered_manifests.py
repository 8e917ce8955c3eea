"""The manifests that kubectl renders, validated by the schemas of Kubernetes."""

import json
import os
import shutil
import subprocess
from copy import deepcopy

import pytest
import yaml

from tests.deployment.manifests import (
    ENVIRONMENTS,
    IMAGE,
    K8S,
    ROOT,
    TOOLS,
    Manifest,
    containers,
    one,
    pods,
    read,
    render,
    run_tool,
    selects,
)

pytestmark = pytest.mark.deployment

# The oldest that we support, the newest, and two between.
VERSIONS = ["1.29", "1.31", "1.34", "1.36"]
CONFIGURATION = "conversation-service-config"
CUSTOM = {"ServiceMonitor", "PrometheusRule", "ExternalSecret"}


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def environment(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def rendered(environment, tmp_path_factory) -> list[Manifest]:
    return render(environment, tmp_path_factory.mktemp(environment))


@pytest.fixture(scope="module")
def traced(environment, tmp_path_factory) -> list[Manifest]:
    folder = tmp_path_factory.mktemp(f"{environment}-traced")
    tracing = f"{'../' * len(folder.parts)}{K8S.relative_to('/')}/components/tracing"
    return render(environment, folder, components=[tracing])


@pytest.fixture(scope="module")
def backed_up(environment, tmp_path_factory) -> list[Manifest]:
    """Return an environment with the example of a backup."""
    folder = tmp_path_factory.mktemp(f"{environment}-backed-up")
    shutil.copy(K8S / "examples/backup.yaml", folder)
    overlay = os.path.relpath(K8S / "overlays" / environment, folder)
    return render(environment, folder, resources=[overlay, "backup.yaml"])


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
    assert problems(rendered, version, tmp_path) == []
    assert problems(traced, version, tmp_path) == []
    assert problems(read("examples/secret.yaml"), version, tmp_path) == []
    assert problems(read("examples/backup.yaml"), version, tmp_path) == []


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


def test_policies_report_no_failure(backed_up, tmp_path):
    path = tmp_path / "manifests.yaml"
    path.write_text(yaml.safe_dump_all(backed_up))

    run_tool("checkov", "--config-file", ".checkov.yaml", "--file", path)


def test_yaml_is_written_in_one_style():
    folders = [folder for folder in ("k8s", "docker", ".github") if (ROOT / folder).is_dir()]

    run_tool("yamllint", "--strict", ".yamllint.yaml", ".checkov.yaml", *folders)


def test_every_pod_runs_the_image_of_the_release(rendered):
    images = {one["image"] for _, template in pods(rendered) for one in containers(template)}

    assert images == {IMAGE}


def test_every_pod_is_hardened_and_configured_like_the_serving_one(rendered):
    serving = one("Deployment", rendered)["spec"]["template"]["spec"]
    [api] = serving["containers"]

    assert serving["securityContext"]["runAsNonRoot"] is True
    assert serving["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert serving["automountServiceAccountToken"] is False
    assert serving["enableServiceLinks"] is False
    assert api["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for _, template in pods(rendered):
        for key in (
            "serviceAccountName",
            "automountServiceAccountToken",
            "enableServiceLinks",
            "securityContext",
            "volumes",
        ):
            assert template["spec"][key] == serving[key]
        for container in containers(template):
            for key in ("envFrom", "securityContext", "volumeMounts"):
                assert container[key] == api[key]


def test_memory_request_and_limit_are_equal_and_the_cpu_has_no_limit(rendered):
    for _, template in pods(rendered):
        for container in containers(template):
            resources = container["resources"]
            assert resources["limits"]["memory"] == resources["requests"]["memory"]
            assert "cpu" in resources["requests"]
            assert "cpu" not in resources["limits"]
            assert "ephemeral-storage" in resources["limits"]


def configuration(rendered: list[Manifest]) -> Manifest:
    maps = [manifest for manifest in rendered if manifest["kind"] == "ConfigMap"]
    return next(each for each in maps if each["metadata"]["name"].startswith(f"{CONFIGURATION}-"))


def test_objects_that_a_pod_refers_to_exist(rendered):
    name = configuration(rendered)["metadata"]["name"]
    account = one("ServiceAccount", rendered)["metadata"]["name"]

    for _, template in pods(rendered):
        assert template["spec"]["serviceAccountName"] == account
        for container in containers(template):
            assert container["envFrom"] == [{"configMapRef": {"name": name}}]


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

    assert one("Deployment", changed) != one("Deployment", rendered)


def test_secrets_are_readable_by_the_user_of_the_pod_only(rendered):
    volumes = one("Deployment", rendered)["spec"]["template"]["spec"]["volumes"]
    [secret] = (volume["secret"] for volume in volumes if "secret" in volume)

    assert secret["defaultMode"] == 0o440


def test_a_service_selects_only_serving_pods(rendered):
    serving = one("Deployment", rendered)["metadata"]["name"]
    selectors = [
        {"matchLabels": one("Service", rendered)["spec"]["selector"]},
        one("PodDisruptionBudget", rendered)["spec"]["selector"],
        one("Deployment", rendered)["spec"]["selector"],
    ]

    for selector in selectors:
        met = [name for name, pod in pods(rendered) if selects(selector, pod["metadata"]["labels"])]
        assert met == [serving]


def test_every_pod_may_call_its_dependencies(rendered):
    [called] = (
        manifest["spec"]["podSelector"]
        for manifest in rendered
        if manifest["kind"] == "NetworkPolicy" and manifest["metadata"]["name"] == "called"
    )

    assert all(selects(called, template["metadata"]["labels"]) for _, template in pods(rendered))


def test_the_service_monitor_selects_the_service(rendered):
    monitor, service = one("ServiceMonitor", rendered), one("Service", rendered)
    [endpoint] = monitor["spec"]["endpoints"]

    assert selects(monitor["spec"]["selector"], service["metadata"]["labels"])
    assert monitor["metadata"]["namespace"] == service["metadata"]["namespace"]
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]


def test_scheduled_jobs_do_not_overlap_or_accumulate(rendered):
    jobs = [manifest["spec"] for manifest in rendered if manifest["kind"] == "CronJob"]

    assert len(jobs) == 4
    for job in jobs:
        assert job["timeZone"] == "Etc/UTC"
        assert job["concurrencyPolicy"] == "Forbid"
        assert job["startingDeadlineSeconds"] > 10  # the controller checks every 10 seconds
        assert job["jobTemplate"]["spec"]["activeDeadlineSeconds"] > 0
        assert job["failedJobsHistoryLimit"] > 0


def test_the_backup_runs_as_another_scheduled_job_and_has_a_volume_in_addition(backed_up):
    cron_jobs = [deepcopy(each) for each in backed_up if each["kind"] == "CronJob"]
    jobs = {each["metadata"]["name"]: each for each in cron_jobs}
    backup, other = jobs["conversation-service-backup"], jobs["purge-trash"]
    schedule = backup["spec"]
    [(_, pod), (_, like)] = pods([backup, other])
    [container], [model] = containers(pod), containers(like)
    claim = one("PersistentVolumeClaim", backed_up)["metadata"]["name"]

    assert schedule["timeZone"] == other["spec"]["timeZone"]
    assert schedule["concurrencyPolicy"] == "Forbid"
    assert schedule["startingDeadlineSeconds"] > 10
    assert backup["metadata"]["namespace"] == other["metadata"]["namespace"]
    volume = {"name": "backups", "persistentVolumeClaim": {"claimName": claim}}
    assert pod["spec"]["volumes"] == [*like["spec"]["volumes"], volume]
    mount = {"name": "backups", "mountPath": "/backups"}
    assert container["volumeMounts"] == [*model["volumeMounts"], mount]
    del pod["spec"]["volumes"], like["spec"]["volumes"]
    for key in ("command", "volumeMounts", "resources"):
        del container[key], model[key]
    for label in set(like["metadata"]["labels"]) - set(pod["metadata"]["labels"]):
        del like["metadata"]["labels"][label]
    assert pod == like


def test_the_namespace_names_its_environment(environment, rendered):
    assert one("Namespace", rendered)["metadata"]["labels"]["environment"] == environment
    assert configuration(rendered)["data"]["ENVIRONMENT"] == environment
