"""During a change of keys, every pod has the previous and the next keys as well."""

import pytest

from tests.deployment.manifests import (
    ENVIRONMENTS,
    K8S,
    assignments,
    containers,
    pods,
    render,
)

ADDED = assignments("components/former-keys/config.env")


@pytest.mark.deployment
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_pod_mounts_the_files_that_its_configuration_names(environment, tmp_path):
    component = f"{'../' * len(tmp_path.parts)}{K8S.relative_to('/')}/components/former-keys"
    manifests = render(environment, tmp_path, components=[component])
    named = {*ADDED.values(), *files(environment)}
    config = {
        item["metadata"]["name"]: item["data"]
        for item in manifests
        if item["kind"] == "ConfigMap" and "SECRET_KEY_FILE" in item["data"]
    }

    for name, template in pods(manifests):
        [volume] = (item for item in template["spec"]["volumes"] if "secret" in item)
        for container in containers(template):
            [reference] = container["envFrom"]
            assert ADDED.items() <= config[reference["configMapRef"]["name"]].items()
            [folder] = (
                mount["mountPath"]
                for mount in container["volumeMounts"]
                if mount["name"] == volume["name"]
            )
            paths = {f"{folder}/{item['path']}" for item in volume["secret"]["items"]}
            assert paths == named, name


def files(environment: str) -> set[str]:
    values = assignments("base/config.env") | assignments(f"overlays/{environment}/config.env")
    return {path for name, path in values.items() if name.endswith("_FILE")}
