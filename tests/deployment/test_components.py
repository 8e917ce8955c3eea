"""Components that an overlay can add, alone and together."""

import re

import pytest
import yaml

from tests.deployment.manifests import (
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
