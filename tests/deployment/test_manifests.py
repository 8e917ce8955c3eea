"""The manifests that each environment gets: their rules, and values that other files repeat.

tests/deployment/test_mutations.py also runs these tests, with faults in k8s/.
"""

import copy
import runpy
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from django.urls import resolve

from config.env import env
from config.upstreams import UPSTREAMS
from conversation_service import health
from conversation_service.outbound import addresses
from conversations.webhooks.deliverer import STOP_S
from conversations.webhooks.leases import OPERATION_S
from tests.deployment.manifests import (
    K8S,
    ROOT,
    VERSIONS,
    Manifest,
    assignments,
    configuration,
    containers,
    every,
    one,
    pods,
    read,
    selects,
)

pytestmark = pytest.mark.deployment

NAME = "app.kubernetes.io/name"
SERVICE = "conversation-service"
COMPONENT = "app.kubernetes.io/component"
API = {NAME: SERVICE, COMPONENT: "api"}
# The Deployments beside the API: their command and their component.
WORKERS = {
    f"{SERVICE}-events": ("publish_events", "events"),
    f"{SERVICE}-webhooks": ("deliver_webhooks", "webhooks"),
}
EVENTS_PORT = 9103
# Our own limit, far from MongoDB's: the smallest dedicated cluster of Atlas (M10) takes 1,500
# connections to a server, and the upstreams need theirs.
MOST_CONNECTIONS = 750
MONITORS = 2  # connections of each process, beside its pool
# Variables that describe a site. All others are limits and protections.
SITE = {
    *("ENVIRONMENT", "SERVICE_NAME", "PORT", "WEB_CONCURRENCY"),
    *("AUTH_SERVICE_URL", "CHARACTERS_SERVICE_URL", "MESSAGE_SERVICE_URL"),
    *("ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS", "CORS_ALLOWED_ORIGINS"),
    *("CONNECTION_POOL_MIN", "CONNECTION_POOL_MAX", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    *("JWT_ALGORITHM", "JWT_JWKS_URL", "JWT_ISSUER", "JWT_AUDIENCE", "JWT_USER_ID_CLAIM"),
}
JOBS = {
    "purge-trash": ["purge_trash", "--json"],
    "apply-retention": ["apply_retention", "--json"],
    "verify-characters": ["verify_characters"],
    "check-indexes": ["setup_indexes", "--check"],
    "reconcile-activity": ["reconcile_activity", "--rate", "50"],
}


def deployment(rendered: list[Manifest], name: str = SERVICE) -> Manifest:
    return every("Deployment", rendered)[name]["spec"]


def pod_of(rendered: list[Manifest]) -> Manifest:
    return deployment(rendered)["template"]["spec"]


def api(rendered: list[Manifest]) -> Manifest:
    [container] = pod_of(rendered)["containers"]
    return container


def service_of(rendered: list[Manifest], name: str = SERVICE) -> Manifest:
    return every("Service", rendered)[name]["spec"]


def worker(rendered: list[Manifest], name: str) -> Manifest:
    """Return the container of a Deployment beside the API."""
    [container] = deployment(rendered, name)["template"]["spec"]["containers"]
    return container


def scaling(rendered: list[Manifest]) -> Manifest:
    return one("HorizontalPodAutoscaler", rendered)["spec"]


def policies(manifests: list[Manifest]) -> dict[str, Manifest]:
    return {name: each["spec"] for name, each in every("NetworkPolicy", manifests).items()}


def mebibytes(quantity: str) -> int:
    return int(quantity.removesuffix("Mi"))


def test_all_objects_are_in_one_namespace_and_have_the_labels_of_the_service(rendered, environment):
    for manifest in rendered:
        metadata = manifest["metadata"]
        assert metadata.get("namespace") == (None if manifest["kind"] == "Namespace" else SERVICE)
        assert metadata["labels"][NAME] == SERVICE
        assert metadata["labels"]["environment"] == environment
    for _, template in pods(rendered):
        assert template["metadata"]["labels"]["environment"] == environment


def test_the_release_has_these_objects(rendered):
    assert sorted(manifest["kind"] for manifest in rendered) == sorted(
        [
            *("Namespace", "ServiceAccount", "ConfigMap", "ConfigMap"),
            *["Service", "Deployment", "PodDisruptionBudget"] * (1 + len(WORKERS)),
            *("HorizontalPodAutoscaler", "Job", *["CronJob"] * len(JOBS)),
            *["NetworkPolicy"] * len(POLICIES),
            *("ServiceMonitor", "PrometheusRule"),
        ]
    )


# Configuration


def test_the_environment_is_that_of_the_overlay(rendered, environment):
    assert configuration(rendered)["data"]["ENVIRONMENT"] == environment


def test_limits_and_protections_have_their_defaults(rendered):
    """A variable that describes a site belongs to SITE; review any other before adding it."""
    data = configuration(rendered)["data"]
    others = {name for name in data if not name.endswith("_FILE")} - SITE

    changed = [name for name in others if env.scheme[name].read(data[name]) != env.scheme[name][1]]
    assert changed == []


def test_no_origin_and_no_host_is_a_wildcard(rendered):
    data = configuration(rendered)["data"]

    for name in ("ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS", "CORS_ALLOWED_ORIGINS"):
        assert "*" not in data[name]


def test_all_manifests_use_one_port(rendered):
    service = service_of(rendered)["ports"]
    ports = [
        *[port["containerPort"] for port in api(rendered)["ports"]],
        *[port["port"] for port in service],
        *[
            port["port"]
            for rule in policies(rendered)["callers"]["ingress"]
            for port in rule["ports"]
        ],
        int(configuration(rendered)["data"]["PORT"]),
        env.scheme["PORT"][1],
    ]

    assert set(ports) == {8003}
    assert {port["targetPort"] for port in service} == {
        port["name"] for port in api(rendered)["ports"]
    }


def test_all_pods_together_stay_below_the_connection_limit_of_mongodb(rendered):
    data = configuration(rendered)["data"]
    each = int(data["CONNECTION_POOL_MAX"]) + MONITORS
    surge = deployment(rendered)["strategy"]["rollingUpdate"]["maxSurge"]
    serving = int(data["WEB_CONCURRENCY"]) * (scaling(rendered)["maxReplicas"] + surge)
    jobs = len(every("CronJob", rendered)) + 2  # release and smoke test
    workers = 0
    for name in WORKERS:
        spec, variables = deployment(rendered, name), environment_of(worker(rendered, name))
        pods_at_most = spec["replicas"] + spec["strategy"]["rollingUpdate"]["maxSurge"]
        pool = int(variables.get("CONNECTION_POOL_MAX", data["CONNECTION_POOL_MAX"]))
        workers += pods_at_most * (pool + MONITORS)

    assert each * (serving + jobs) + workers <= MOST_CONNECTIONS


def environment_of(container: Manifest) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container["env"]}


def test_every_secret_is_mounted_read_only_and_in_the_templates(rendered):
    secret, external = read("examples/secret.yaml")[0], read("examples/external-secret.yaml")[0]
    [volume] = (volume["secret"] for volume in pod_of(rendered)["volumes"] if "secret" in volume)
    [mount] = (mount for mount in api(rendered)["volumeMounts"] if mount["name"] == "secrets")
    mounted = {item["key"]: f"{mount['mountPath']}/{item['path']}" for item in volume["items"]}
    named = {
        name.removesuffix("_FILE"): path
        for name, path in configuration(rendered)["data"].items()
        if name.endswith("_FILE")
    }

    assert mounted == named
    assert volume["defaultMode"] == 0o440  # readable by the pod's group only
    assert secret["stringData"].keys() == mounted.keys()
    entries = external["spec"]["data"]
    former = {f"{name}_FALLBACKS" for name in ("SECRET_KEY", "JWT_SECRET_KEY")}
    assert {entry["secretKey"] for entry in entries} == mounted.keys() | former
    # Two pods must not have different keys, as pods that start after a refresh would.
    assert external["spec"]["refreshPolicy"] == "OnChange"
    assert "refreshInterval" not in external["spec"]
    assert all(entry["remoteRef"]["property"] == entry["secretKey"] for entry in entries)
    assert volume["secretName"] == secret["metadata"]["name"] == external["spec"]["target"]["name"]


def test_no_secret_is_applied(rendered):
    assert every("Secret", rendered) == {}


# The serving pods


PROBES = {
    "startupProbe": (health.live, 30, 120),
    # Must not use MongoDB: an outage would restart every pod. Gunicorn replaces a worker that
    # hangs after 30 s, before the container is restarted.
    "livenessProbe": (health.live, 30, 120),
    "readinessProbe": (health.ready, 5, 15),
}


@pytest.mark.parametrize("probe", PROBES)
def test_each_probe_calls_its_view_and_fails_after_a_bounded_time(rendered, probe):
    view, shortest_s, longest_s = PROBES[probe]
    found = api(rendered)[probe]

    assert found.keys() == {"httpGet", "periodSeconds", "timeoutSeconds", "failureThreshold"}
    assert found["httpGet"].keys() == {"path", "port"}
    assert resolve(found["httpGet"]["path"]).func is view
    assert found["httpGet"]["port"] == api(rendered)["ports"][0]["name"]
    assert shortest_s <= found["periodSeconds"] * found["failureThreshold"] <= longest_s
    assert found["failureThreshold"] > 1
    assert health.READY_S < found["timeoutSeconds"] <= found["periodSeconds"]


def test_a_pod_has_time_to_finish_its_requests(rendered):
    *shell, program = api(rendered)["lifecycle"]["preStop"]["exec"]["command"]
    pause_s = program.removeprefix("kill -USR1 1; sleep ")
    graceful_s = runpy.run_path(str(ROOT / "config/gunicorn.conf.py"))["graceful_timeout"]

    assert api(rendered)["lifecycle"].keys() == {"preStop"}
    assert shell == ["sh", "-c"]
    assert int(pause_s) >= 5  # for the proxies to remove the pod
    assert (
        int(pause_s) + graceful_s + 10
        <= pod_of(rendered)["terminationGracePeriodSeconds"]
        <= 120  # a node is drained in reasonable time
    )


def test_metrics_are_kept_in_memory(rendered):
    [metrics] = api(rendered)["env"]
    [shm] = (mount for mount in api(rendered)["volumeMounts"] if mount["name"] == "shm")

    assert metrics["name"] in env.scheme
    assert metrics["value"].startswith(f"{shm['mountPath']}/")
    assert shm["mountPath"] == env.scheme["WORKER_TMP_DIR"][1]


def test_every_writable_folder_is_in_memory_and_has_a_size_limit(rendered):
    volumes = {volume["name"]: volume for volume in pod_of(rendered)["volumes"]}
    mounts = api(rendered)["volumeMounts"]
    writable = {mount["mountPath"]: volumes[mount["name"]] for mount in mounts[1:]}

    assert {mount["name"] for mount in mounts} == volumes.keys()
    assert mounts[0] == {
        "name": "secrets",
        "mountPath": "/run/secrets/conversation-service",
        "readOnly": True,
    }
    assert writable.keys() == {"/tmp", "/dev/shm"}  # noqa: S108
    for volume in writable.values():
        assert volume.keys() == {"name", "emptyDir"}
        assert volume["emptyDir"]["medium"] == "Memory"
        assert mebibytes(volume["emptyDir"]["sizeLimit"]) >= 64


def test_memory_is_enough_for_the_process_and_its_folders(rendered):
    """The content of folders in memory counts as the container's own."""
    folders = sum(
        mebibytes(volume["emptyDir"]["sizeLimit"])
        for volume in pod_of(rendered)["volumes"]
        if "emptyDir" in volume
    )

    assert mebibytes(api(rendered)["resources"]["limits"]["memory"]) >= 180 + folders + 128


def test_memory_request_and_limit_are_equal_and_the_cpu_has_no_limit(rendered):
    for _, template in pods(rendered):
        for container in containers(template):
            resources = container["resources"]
            assert resources.keys() == {"requests", "limits"}
            assert resources["limits"]["memory"] == resources["requests"]["memory"]
            assert mebibytes(resources["limits"]["memory"]) >= 256
            assert resources["limits"].keys() == {"memory", "ephemeral-storage"}
            assert resources["requests"].keys() == {"cpu", "memory", "ephemeral-storage"}


def test_pods_have_only_known_fields(rendered):
    """A new field, such as hostNetwork or priorityClassName, needs a rule here."""
    for name, template in pods(rendered):
        spec = template["spec"]
        jobs = (
            {"restartPolicy"}
            if name not in {SERVICE, *WORKERS}
            else {
                "terminationGracePeriodSeconds",
                "topologySpreadConstraints",
            }
        )
        assert spec.keys() - {"initContainers"} == jobs | {
            *("serviceAccountName", "automountServiceAccountToken", "enableServiceLinks"),
            *("securityContext", "volumes", "containers"),
        }
        assert spec.get("restartPolicy") in (None, "Never")
    assert api(rendered).keys() == {
        *("name", "image", "imagePullPolicy", "ports", "envFrom", "env", "resources"),
        *("startupProbe", "livenessProbe", "readinessProbe", "lifecycle"),
        *("securityContext", "volumeMounts"),
    }
    for name in WORKERS:
        assert worker(rendered, name).keys() == {
            *("name", "image", "imagePullPolicy", "ports", "envFrom", "env", "resources"),
            *("startupProbe", "livenessProbe", "readinessProbe", "command"),
            *("securityContext", "volumeMounts"),
        }
    assert api(rendered)["imagePullPolicy"] == "IfNotPresent"


def test_every_pod_is_hardened_and_configured_like_the_serving_one(rendered):
    serving, container = pod_of(rendered), api(rendered)
    dockerfile = (ROOT / "docker/Dockerfile").read_text().splitlines()
    *_, user = (line.split()[1] for line in dockerfile if line.startswith("USER "))
    uid, gid = map(int, user.split(":"))

    assert serving["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": uid,
        "runAsGroup": gid,
        "fsGroup": gid,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert serving["automountServiceAccountToken"] is False
    assert serving["enableServiceLinks"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for _, template in pods(rendered):
        for key in (
            *("serviceAccountName", "automountServiceAccountToken", "enableServiceLinks"),
            *("securityContext", "volumes"),
        ):
            assert template["spec"][key] == serving[key]
        for each in containers(template):
            for key in ("image", "imagePullPolicy", "envFrom", "securityContext", "volumeMounts"):
                assert each[key] == container[key]


def test_the_service_account_exists_and_has_no_token(rendered):
    account = one("ServiceAccount", rendered)

    assert pod_of(rendered)["serviceAccountName"] == account["metadata"]["name"]
    assert account["automountServiceAccountToken"] is False


def test_every_container_reads_the_rendered_configuration(rendered):
    name = configuration(rendered)["metadata"]["name"]

    assert api(rendered)["envFrom"] == [{"configMapRef": {"name": name}}]


# The number of pods, and their replacement


def test_only_the_autoscaler_sets_the_number_of_replicas(rendered):
    assert scaling(rendered)["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": SERVICE,
    }
    assert deployment(rendered).keys() == {
        *("revisionHistoryLimit", "progressDeadlineSeconds", "strategy", "selector", "template"),
    }


def test_the_autoscaler_scales_by_cpu_within_bounds_and_does_not_flap(rendered, environment):
    found = scaling(rendered)
    [metric] = found["metrics"]
    target = metric["resource"]["target"]
    up, down = (found["behavior"][name] for name in ("scaleUp", "scaleDown"))

    assert metric["resource"]["name"] == "cpu"
    assert target["type"] == "Utilization"
    assert 50 <= target["averageUtilization"] <= 80
    assert found["minReplicas"] >= {"staging": 2, "production": 3}[environment]
    assert found["maxReplicas"] > found["minReplicas"]
    assert 0 < up["stabilizationWindowSeconds"] <= 60
    assert 300 <= down["stabilizationWindowSeconds"] <= 900
    assert up["selectPolicy"] == "Max"
    assert {"type": "Pods", "value": 2, "periodSeconds": 60} in up["policies"]
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 60}]


def test_pods_are_spread_over_zones_and_nodes(rendered):
    constraints = {
        each["topologyKey"]: each for each in pod_of(rendered)["topologySpreadConstraints"]
    }

    assert set(constraints) == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    for constraint in constraints.values():
        assert constraint["maxSkew"] == 1
        assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"  # better crowded than down
        assert constraint["matchLabelKeys"] == ["pod-template-hash"]
        assert selects(constraint["labelSelector"], API)


def test_pods_are_replaced_one_by_one(rendered):
    rolling = deployment(rendered)["strategy"]
    startup = api(rendered)["startupProbe"]

    assert rolling == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    assert deployment(rendered)["revisionHistoryLimit"] >= 2
    startup_s = startup["periodSeconds"] * startup["failureThreshold"]
    assert startup_s < deployment(rendered)["progressDeadlineSeconds"] <= 600
    assert every("PodDisruptionBudget", rendered)[SERVICE]["spec"] == {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": API},
    }


def test_the_service_selects_only_serving_pods(rendered):
    service = service_of(rendered)
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(rendered)}

    assert service.keys() == {"type", "selector", "ports"}
    assert service["type"] == "ClusterIP"
    for selector in ({"matchLabels": service["selector"]}, deployment(rendered)["selector"]):
        assert [name for name in labels if selects(selector, labels[name])] == [SERVICE]
    [port] = service["ports"]
    assert port["protocol"] == "TCP"


# Jobs


def test_the_release_migrates_and_then_builds_indexes(rendered):
    spec = one("Job", rendered)["spec"]
    pod = spec["template"]["spec"]

    assert [each["command"] for each in pod["initContainers"] + pod["containers"]] == [
        ["python", "manage.py", "migrate", "--no-input"],
        ["python", "manage.py", "setup_indexes"],
    ]
    assert len(pod["initContainers"]) == 1
    assert spec.keys() == {
        *("backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished", "template"),
    }
    assert 1 <= spec["backoffLimit"] <= 3
    # An index over many conversations; below the 90 minutes of the workflow.
    assert 1_800 <= spec["activeDeadlineSeconds"] <= 4_500
    assert spec["ttlSecondsAfterFinished"] >= 86_400  # to read its log


def test_scheduled_jobs_run_their_command_and_do_not_overlap_or_accumulate(rendered):
    jobs = every("CronJob", rendered)

    assert jobs.keys() == JOBS.keys()
    for name, job in jobs.items():
        spec, run = job["spec"], job["spec"]["jobTemplate"]["spec"]
        [container] = run["template"]["spec"]["containers"]
        assert container["command"] == ["python", "manage.py", *JOBS[name]]
        assert spec.keys() == {  # no `suspend`
            *("schedule", "timeZone", "concurrencyPolicy", "startingDeadlineSeconds"),
            *("successfulJobsHistoryLimit", "failedJobsHistoryLimit", "jobTemplate"),
        }
        assert spec["timeZone"] == "Etc/UTC"
        assert spec["concurrencyPolicy"] == "Forbid"
        assert spec["startingDeadlineSeconds"] > 10  # the controller checks every 10 seconds
        assert spec["failedJobsHistoryLimit"] > 0
        assert run.keys() == {"backoffLimit", "activeDeadlineSeconds", "template"}
        assert run["backoffLimit"] == 0


def test_jobs_log_like_the_service(rendered):
    for name, template in pods(rendered):
        if name != SERVICE:
            for container in containers(template):
                assert {"name": "LOG_COMMANDS", "value": "true"} in container["env"]
                assert len(container["env"]) == 1 or name in WORKERS


def test_only_pods_of_the_api_have_a_sidecar_of_a_mesh(rendered):
    """A job with a sidecar would not end. One beside the deliverer would connect by itself."""
    for name, template in pods(rendered):
        metadata = template["metadata"]
        inject = (
            metadata["labels"].get("sidecar.istio.io/inject"),
            metadata.get("annotations", {}).get("linkerd.io/inject"),
        )
        assert inject == ((None, None) if name == SERVICE else ("false", "disabled"))


def test_scheduled_jobs_run_daily_and_one_every_five_minutes(rendered):
    """The alert ConversationServiceJobOverdue expects these intervals."""
    for name, job in every("CronJob", rendered).items():
        minute, hour, *days = job["spec"]["schedule"].split()
        deadline_s = job["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"]
        assert days == ["*", "*", "*"]
        if name == "verify-characters":
            assert (minute, hour) == ("*/5", "*")
            assert 120 <= deadline_s < 300
        else:
            assert minute.isdecimal()
            assert hour.isdecimal()
            assert 3_600 <= deadline_s <= 21_600


# The publisher and the deliverer of events


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_runs_its_command_until_it_is_stopped(rendered, name):
    command, component = WORKERS[name]
    spec, container = deployment(rendered, name), worker(rendered, name)

    assert container["command"] == ["python", "manage.py", command]
    assert spec["selector"] == {"matchLabels": {NAME: SERVICE, COMPONENT: component}}
    assert spec.keys() == {
        *("replicas", "revisionHistoryLimit", "progressDeadlineSeconds"),
        *("strategy", "selector", "template"),
    }
    assert spec["replicas"] == 2  # one continues when a node is lost
    for field in ("strategy", "revisionHistoryLimit", "progressDeadlineSeconds"):
        assert spec[field] == deployment(rendered)[field]
    # The requests to receivers end, and their outcomes are stored.
    grace_s = spec["template"]["spec"]["terminationGracePeriodSeconds"]
    assert STOP_S + OPERATION_S + 10 <= grace_s <= 120


@pytest.mark.parametrize("name", WORKERS)
@pytest.mark.parametrize("probe", PROBES)
def test_a_worker_has_the_probes_of_its_port(rendered, name, probe):
    container = worker(rendered, name)
    found = container[probe]
    [port] = container["ports"]

    assert port == {"name": "metrics", "containerPort": EVENTS_PORT, "protocol": "TCP"}
    assert environment_of(container)["EVENTS_PORT"] == str(EVENTS_PORT)
    assert found.keys() == {"httpGet", "periodSeconds", "timeoutSeconds", "failureThreshold"}
    assert found["httpGet"] == {"path": "/healthz", "port": port["name"]}
    # An election in MongoDB must not restart the pods.
    shortest_s, longest_s = {"readinessProbe": (5, 15)}.get(probe, (60, 120))
    assert shortest_s <= found["periodSeconds"] * found["failureThreshold"] <= longest_s
    assert 1 < found["timeoutSeconds"] <= found["periodSeconds"]


@pytest.mark.parametrize("name", WORKERS)
def test_workers_are_spread_disrupted_one_by_one_and_found_by_prometheus(rendered, name):
    labels = deployment(rendered, name)["template"]["metadata"]["labels"]
    template = deployment(rendered, name)["template"]["spec"]
    service = service_of(rendered, name)
    selector = deployment(rendered, name)["selector"]

    for own, other in zip(
        template["topologySpreadConstraints"],
        pod_of(rendered)["topologySpreadConstraints"],
        strict=True,
    ):
        assert selects(own["labelSelector"], labels)
        assert own["matchLabelKeys"] == [COMPONENT, "pod-template-hash"]
        for field in ("topologyKey", "maxSkew", "whenUnsatisfiable"):
            assert own[field] == other[field]
    assert every("PodDisruptionBudget", rendered)[name]["spec"] == {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": selector,
    }
    assert service.keys() == {"clusterIP", "selector", "ports"}
    assert service["clusterIP"] == "None"
    assert {"matchLabels": service["selector"]} == selector
    assert [(port["name"], port["port"], port["targetPort"]) for port in service["ports"]] == [
        ("metrics", EVENTS_PORT, "metrics")
    ]


# Network


def namespace(name: str) -> Manifest:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def tcp(*ports: int) -> list[Manifest]:
    return [{"protocol": "TCP", "port": port} for port in ports]


def address(url: str) -> tuple[str, int]:
    """Return the namespace and the port of an address in the cluster."""
    parts = urlsplit(url)
    assert parts.port is not None, url
    [_, name, *rest] = (parts.hostname or "").split(".")
    assert rest == ["svc", "cluster", "local"], url
    return name, parts.port


def rules_for(urls: list[str]) -> list[Manifest]:
    return [
        {"to": [namespace(name)], "ports": tcp(port)} for name, port in sorted(map(address, urls))
    ]


def in_order(rules: list[Manifest]) -> list[Manifest]:
    def key(rule: Manifest) -> Any:
        return str(rule["to"][0].get("namespaceSelector")), str(rule)

    return sorted(rules, key=key)


ANY_OF_OURS = {"podSelector": {"matchLabels": {NAME: SERVICE}}}
# Of Kubernetes, with NodeLocal DNSCache (its default address and kubespray's), and of OpenShift.
OPENSHIFT_DNS = {"dns.operator.openshift.io/daemonset-dns": "default"}
DNS = [
    {
        "to": [
            namespace("kube-system") | {"podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}},
            {"ipBlock": {"cidr": "169.254.20.10/32"}},
            {"ipBlock": {"cidr": "169.254.25.10/32"}},
        ],
        "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
    },
    {
        "to": [namespace("openshift-dns") | {"podSelector": {"matchLabels": OPENSHIFT_DNS}}],
        "ports": [{"protocol": "UDP", "port": 5353}, {"protocol": "TCP", "port": 5353}],
    },
]


POLICIES = {"deny-by-default", "callers", "called", "called-by-all", "webhooks", "scraped"}


def test_traffic_is_denied_by_default(rendered):
    assert policies(rendered).keys() == POLICIES
    assert policies(rendered)["deny-by-default"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }
    for name, policy in policies(rendered).items():
        assert set(policy["policyTypes"]) == {"Ingress", "Egress"} or policy.keys() == {
            *("podSelector", "policyTypes"),
            {"Ingress": "ingress", "Egress": "egress"}[policy["policyTypes"][0]],
        }, name


def test_ingress_is_allowed_from_gateway_message_prometheus_and_the_service(rendered):
    assert policies(rendered)["callers"] == {
        "podSelector": {"matchLabels": API},
        "policyTypes": ["Ingress"],
        "ingress": [
            {
                "from": [
                    namespace("api-gateway"),
                    namespace("message-service"),
                    namespace("monitoring")
                    | {"podSelector": {"matchLabels": {NAME: "prometheus"}}},
                    ANY_OF_OURS,
                ],
                "ports": tcp(8003),
            }
        ],
    }
    prometheus = namespace("monitoring") | {"podSelector": {"matchLabels": {NAME: "prometheus"}}}
    for _, component in WORKERS.values():
        assert allowed(rendered, "ingress", component) == [
            {"from": [prometheus], "ports": tcp(EVENTS_PORT)}
        ]


def allowed(rendered: list[Manifest], direction: str, component: str) -> list[Manifest]:
    """Return the rules of all policies for the pods of a component."""
    return [
        rule
        for policy in policies(rendered).values()
        if selects(policy["podSelector"], {NAME: SERVICE, COMPONENT: component})
        for rule in policy.get(direction, [])
    ]


@pytest.mark.parametrize("component", ["api", "release", "maintenance"])
def test_egress_is_allowed_to_configured_hosts_dns_and_the_service_only(rendered, component):
    secret = read("examples/secret.yaml")[0]["stringData"]
    data = configuration(rendered)["data"]
    urls = [
        *[url for name, url in data.items() if name.endswith("_SERVICE_URL")],
        *[secret[name] for name in ("MONGODB_URL", "REDIS_URL")],
    ]

    ours = {"to": [{"podSelector": {"matchLabels": API}}], "ports": tcp(8003)}
    found = allowed(rendered, "egress", component)
    assert in_order(found) == in_order([*rules_for(urls), *DNS, ours])


def block(network: object, exceptions: Sequence[object]) -> Manifest:
    return {"ipBlock": {"cidr": str(network), "except": sorted(map(str, exceptions))}}


def test_the_publisher_calls_mongodb_only_and_the_deliverer_public_addresses_too(rendered):
    mongodb = read("examples/secret.yaml")[0]["stringData"]["MONGODB_URL"]
    # The same addresses as the check of the deliverer.
    receivers = {
        "to": [
            block("0.0.0.0/0", addresses.NOT_PUBLIC_V4),
            block(addresses.PUBLIC_V6, addresses.NOT_PUBLIC_V6),
        ],
        "ports": tcp(*env.scheme["WEBHOOK_ALLOWED_PORTS"].default),
    }
    for_all = [*rules_for([mongodb]), *DNS]
    found = copy.deepcopy(allowed(rendered, "egress", "webhooks"))
    for rule in found:
        for peer in rule["to"]:
            if "except" in peer.get("ipBlock", {}):
                peer["ipBlock"]["except"].sort()

    assert in_order(allowed(rendered, "egress", "events")) == in_order(for_all)
    assert in_order(found) == in_order([*for_all, receivers])


@pytest.mark.parametrize("name", UPSTREAMS)
def test_each_upstream_has_an_address_that_the_network_policies_allow(rendered, name):
    url = configuration(rendered)["data"][f"{name.upper()}_SERVICE_URL"]

    assert rules_for([url])[0] in policies(rendered)["called"]["egress"]


def test_tracing_allows_egress_to_the_collector(traced):
    urls = [url for url in assignments("components/tracing/config.env").values() if "://" in url]

    assert policies(traced)["tracing"] == {
        "podSelector": {"matchLabels": API},  # commands export no traces
        "policyTypes": ["Egress"],
        "egress": rules_for(urls),
    }


def test_every_pod_is_selected_by_the_policies_that_it_needs(rendered):
    for _, template in pods(rendered):
        assert selects(ANY_OF_OURS["podSelector"], template["metadata"]["labels"])


def test_the_namespace_accepts_restricted_pods_only(rendered):
    labels = one("Namespace", rendered)["metadata"]["labels"]
    security = {
        name.removeprefix("pod-security.kubernetes.io/"): value
        for name, value in labels.items()
        if name.startswith("pod-security")
    }

    assert security == {
        # The oldest supported version: an upgrade of the cluster must not stop pods from starting.
        "enforce": "restricted",
        "enforce-version": f"v{VERSIONS[0]}",
        "warn": "restricted",
        "warn-version": "latest",
        "audit": "restricted",
        "audit-version": "latest",
    }


# Monitoring


def test_prometheus_scrapes_the_service(rendered):
    monitor, services = one("ServiceMonitor", rendered), every("Service", rendered).values()

    ports = [port["name"] for service in services for port in service["spec"]["ports"]]
    endpoints = monitor["spec"]["endpoints"]
    assert {endpoint["port"] for endpoint in endpoints} == set(ports)
    for service in services:
        assert selects(monitor["spec"]["selector"], service["metadata"]["labels"])
    for endpoint in endpoints:
        assert endpoint.keys() == {"port", "path", "interval", "scrapeTimeout"}
        assert endpoint["path"] == "/metrics"
        # Rates over five minutes need several samples.
        assert 10 <= int(endpoint["interval"].removesuffix("s")) <= 60
        assert int(endpoint["scrapeTimeout"].removesuffix("s")) < int(
            endpoint["interval"].removesuffix("s")
        )
    assert monitor["spec"]["sampleLimit"] >= 5_000
    assert monitor["spec"]["jobLabel"] == NAME


def test_the_operator_and_the_sidecar_find_monitor_rules_and_dashboard(rendered):
    for kind in ("ServiceMonitor", "PrometheusRule"):
        assert one(kind, rendered)["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    dashboard = every("ConfigMap", rendered)[f"{SERVICE}-dashboard"]
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboard["data"].keys() == {f"{SERVICE}.json"}


def test_the_examples_are_not_part_of_a_release():
    for path in K8S.rglob("kustomization.yaml"):
        assert "examples" not in str(yaml.safe_load(path.read_text()))
