"""Components that an overlay can add, alone and together."""

import os
import re
import shutil
from copy import deepcopy

import pytest
import yaml

from tests.deployment.manifests import (
    K8S,
    ROOT,
    Manifest,
    assignments,
    configuration,
    containers,
    every,
    one,
    pods,
    release,
    render,
    run_tool,
)

pytestmark = pytest.mark.deployment

FORMER_KEYS = assignments("components/former-keys/config.env")


def assert_that_pods_mount_what_the_configuration_names(manifests: list[Manifest]) -> None:
    data = configuration(manifests)["data"]
    named = {path for name, path in data.items() if name.endswith("_FILE") and path}
    for name, template in pods(manifests):
        [volume] = (item for item in template["spec"]["volumes"] if "secret" in item)
        for container in containers(template):
            [folder] = (
                mount["mountPath"]
                for mount in container["volumeMounts"]
                if mount["name"] == volume["name"]
            )
            paths = {f"{folder}/{item['path']}" for item in volume["secret"]["items"]}
            assert paths == named, name


def test_with_former_keys_every_pod_has_the_previous_and_the_next_keys(environment):
    manifests = release(environment, "former-keys")

    assert FORMER_KEYS.items() <= configuration(manifests)["data"].items()
    assert_that_pods_mount_what_the_configuration_names(manifests)


@pytest.fixture
def backed_up(environment, tmp_path) -> list[Manifest]:
    """Return an environment with the example of a backup."""
    shutil.copy(K8S / "examples/backup.yaml", tmp_path)
    overlay = os.path.relpath(K8S / "overlays" / environment, tmp_path)
    return render(environment, tmp_path, resources=[overlay, "backup.yaml"])


def test_policies_report_no_failure_for_an_environment_and_its_backup(backed_up, tmp_path):
    path = tmp_path / "manifests.yaml"
    path.write_text(yaml.safe_dump_all(backed_up))

    run_tool("checkov", "--config-file", ".checkov.yaml", "--file", path)


def test_the_backup_runs_as_another_scheduled_job_and_has_a_volume_in_addition(backed_up):
    jobs = deepcopy(every("CronJob", backed_up))
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


def test_without_redis_no_pod_needs_its_address_or_may_connect_to_it(environment):
    manifests = release(environment, "without-redis")

    assert configuration(manifests)["data"]["REDIS_URL_FILE"] == ""
    assert_that_pods_mount_what_the_configuration_names(manifests)
    egress = every("NetworkPolicy", manifests)["called"]["spec"]["egress"]
    before = every("NetworkPolicy", release(environment))["called"]["spec"]["egress"]
    assert [rule for rule in before if rule not in egress] == [
        rule for rule in before if rule["ports"][0]["port"] == 6379
    ]


@pytest.mark.parametrize(
    "components",
    [("former-keys", "without-redis", "tracing"), ("tracing", "without-redis", "former-keys")],
)
def test_components_can_be_added_in_any_order(environment, components):
    manifests = release(environment, *components)

    assert FORMER_KEYS.items() <= configuration(manifests)["data"].items()
    assert configuration(manifests)["data"]["REDIS_URL_FILE"] == ""
    assert_that_pods_mount_what_the_configuration_names(manifests)
    assert "tracing" in every("NetworkPolicy", manifests)


@pytest.mark.parametrize("page", ["docs/releases.md", "docs/entregas.md"])
def test_the_kustomization_of_the_guide_makes_objects_for_argo_cd(page, tmp_path):
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    [text] = (block for block in blocks if block.startswith("resources:"))
    given = yaml.safe_load(text.replace("sha256:DIGEST", f"sha256:{'5e' * 32}"))
    assert given["resources"][0].endswith("//k8s/overlays/production?ref=COMMIT")
    del given["resources"]

    manifests = render("production", tmp_path, **given)

    waves = {
        manifest["kind"]: manifest["metadata"]
        .get("annotations", {})
        .get("argocd.argoproj.io/sync-wave", "0")
        for manifest in manifests
    }
    first = {"Namespace", "ServiceAccount", "ConfigMap", "NetworkPolicy"}
    assert {kind for kind, wave in waves.items() if wave == "-2"} == first
    assert {kind for kind, wave in waves.items() if wave == "-1"} == {"Job"}
    hook = one("Job", manifests)["metadata"]["annotations"]
    assert hook["argocd.argoproj.io/hook-delete-policy"] == "BeforeHookCreation"
    images = {each["image"] for _, pod in pods(manifests) for each in containers(pod)}
    assert images == {f"registry.company.com/conversation-service@sha256:{'5e' * 32}"}
