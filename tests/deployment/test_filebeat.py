"""Filebeat finds and parses the logs of our pods, and has its files and rights."""

import re
from fnmatch import fnmatch
from pathlib import PurePosixPath

import pytest
import yaml

from tests.deployment.monitoring import ROOT, run

FOLDER = ROOT / "k8s" / "components" / "logging"
TEXT = (FOLDER / "filebeat.yml").read_text()
CONFIG = yaml.safe_load(TEXT)
(INPUT,) = CONFIG["filebeat.inputs"]
POD = yaml.safe_load((FOLDER / "daemonset.yaml").read_text())["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
ID = "0" * 64  # of a container


def test_it_uses_the_input_of_current_versions():
    """Version 9 rejects the input `container`."""
    assert INPUT["type"] == "filestream"
    assert INPUT["id"]
    assert INPUT["prospector.scanner"]["symlinks"]
    # Filebeat rejects a fingerprint of less than 64 bytes.
    fingerprint = INPUT["prospector.scanner"]["fingerprint"]
    assert fingerprint["enabled"]
    assert 64 <= fingerprint["length"] <= 256
    assert "file_identity.fingerprint" in INPUT


def test_it_parses_the_container_format_and_then_json():
    (container, ndjson) = INPUT["parsers"]

    assert container == {"container": {"stream": "all", "format": "auto"}}
    assert ndjson["ndjson"]["target"] == ""
    assert ndjson["ndjson"]["expand_keys"]


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        (f"conversation-service-5d8f-x2x_conversation-service_conversation-service-{ID}.log", True),
        (f"purge-trash-29000-abcde_conversation-service_manage-{ID}.log", True),
        (f"message-service-77-abc_message-service_message-service-{ID}.log", False),
        (f"conversation-service-client_other_conversation-service-{ID}.log", False),
    ],
)
def test_it_reads_only_logs_of_our_namespace(name, ours):
    found = any(fnmatch(f"/var/log/containers/{name}", path) for path in INPUT["paths"])

    assert found is ours


def test_it_writes_into_a_data_stream_without_an_index_of_its_own():
    assert CONFIG["output.elasticsearch"]["index"].startswith("logs-")
    assert CONFIG["setup.ilm.enabled"] is False
    assert CONFIG["setup.template.enabled"] is False


def test_it_connects_to_elasticsearch_by_tls_with_credentials():
    output = CONFIG["output.elasticsearch"]

    assert all(host.startswith("https://") for host in output["hosts"])
    assert output["api_key"] == "${ELASTICSEARCH_API_KEY}"
    assert output["ssl.certificate_authorities"]
    assert "ssl.verification_mode" not in output


def test_it_gets_every_variable_that_it_reads():
    used = set(re.findall(r"\$\{(\w+)\}", TEXT))

    assert used == {variable["name"] for variable in CONTAINER["env"]}


def test_it_has_every_folder_that_it_reads_and_writes():
    mounted = {mount["mountPath"]: mount for mount in CONTAINER["volumeMounts"]}
    configured = CONTAINER["args"][CONTAINER["args"].index("-c") + 1]
    read = [
        *INPUT["paths"],
        *CONFIG["output.elasticsearch"]["ssl.certificate_authorities"],
        configured,
    ]

    for path in read:
        assert any(str(folder) in mounted for folder in PurePosixPath(path).parents)
    assert not mounted["/usr/share/filebeat/data"].get("readOnly")
    assert {mount["name"] for mount in mounted.values()} == {
        volume["name"] for volume in POD["volumes"]
    }


def test_it_reads_the_logs_of_the_node_and_keeps_its_registry_there():
    """Links in containers/ lead to pods/: both must have the paths of the node."""
    mounted = {mount["name"]: mount for mount in CONTAINER["volumeMounts"]}
    paths = {volume["name"]: volume["hostPath"]["path"] for volume in POD["volumes"][2:]}

    assert paths == {"logs": "/var/log", "registry": "/var/lib/filebeat"}
    assert mounted["logs"]["mountPath"] == "/var/log"
    assert mounted["logs"]["readOnly"] is True


def test_its_image_has_an_exact_version_and_its_memory_is_enough():
    resources = CONTAINER["resources"]

    assert re.fullmatch(r"docker\.elastic\.co/beats/filebeat:\d+\.\d+\.\d+", CONTAINER["image"])
    assert int(resources["requests"]["memory"].removesuffix("Mi")) >= 100
    assert int(resources["limits"]["memory"].removesuffix("Mi")) >= 200


def test_it_runs_as_root_without_capabilities():
    assert CONTAINER["securityContext"] == {
        "runAsUser": 0,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_it_looks_up_pods_and_changes_nothing():
    documents = list(yaml.safe_load_all((FOLDER / "rbac.yaml").read_text()))
    (role,) = (document for document in documents if document["kind"] == "ClusterRole")

    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}
    assert {resource for rule in role["rules"] for resource in rule["resources"]} >= {
        *("pods", "namespaces", "nodes"),
    }


@pytest.mark.deployment
@pytest.mark.parametrize("version", ["1.29", "1.36"])
def test_kubernetes_accepts_the_manifests(tmp_path, version):
    built = run("kubectl", "kustomize", FOLDER)
    assert built.returncode == 0, built.stderr
    path = tmp_path / "logging.yaml"
    path.write_text(built.stdout)

    checked = run("kubernetes-validate", "-k", version, "--strict", path)

    assert checked.returncode == 0, checked.stdout
    assert "WARN" not in checked.stdout + checked.stderr
    assert len({document["kind"] for document in yaml.safe_load_all(built.stdout)}) == 6
