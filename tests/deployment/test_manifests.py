"""Values in k8s/ agree with those elsewhere in the repository."""

import runpy
from urllib.parse import urlsplit

import pytest
import yaml
from django.core.management import get_commands, load_command_class
from django.urls import resolve

from config.env import env
from config.upstreams import UPSTREAMS
from conversation_service import health
from tests.config.test_settings import manage
from tests.deployment.manifests import (
    ENVIRONMENTS,
    K8S,
    ROOT,
    Manifest,
    assignments,
    containers,
    one,
    pods,
    read,
    selects,
    variables,
    written,
)

DEPLOYMENT = one("Deployment", written())
TEMPLATE = DEPLOYMENT["spec"]["template"]
POD = TEMPLATE["spec"]
[API] = POD["containers"]
SECRET = read("examples/secret.yaml")[0]
SECRETS = SECRET["stringData"]
EXTERNAL_SECRET = read("examples/external-secret.yaml")[0]
POLICIES = {
    manifest["metadata"]["name"]: manifest["spec"]
    for manifest in [*written(), *read("components/tracing/networkpolicy.yaml")]
    if manifest["kind"] == "NetworkPolicy"
}
# Our own limit, far from MongoDB's: the smallest dedicated cluster of Atlas (M10) takes 1,500
# connections to a server, and the upstreams need theirs.
MOST_CONNECTIONS = 500


def test_all_manifests_use_one_port():
    service = one("Service", written())["spec"]["ports"]
    ports = [
        *[port["containerPort"] for port in API["ports"]],
        *[port["port"] for port in service],
        *[port["port"] for rule in POLICIES["callers"]["ingress"] for port in rule["ports"]],
        int(assignments("base/config.env")["PORT"]),
        env.scheme["PORT"][1],
    ]

    assert set(ports) == {8003}
    assert {port["targetPort"] for port in service} == {port["name"] for port in API["ports"]}


@pytest.mark.parametrize("name", UPSTREAMS)
def test_each_upstream_has_an_address_that_the_network_policies_allow(name):
    url = assignments("base/config.env").get(f"{name.upper()}_SERVICE_URL", "")
    allowed = {
        (peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], port["port"])
        for rule in POLICIES["called"]["egress"]
        for peer in rule["to"]
        for port in rule["ports"]
        if "namespaceSelector" in peer
    }

    namespace = (urlsplit(url).hostname or "").split(".")[1:2]
    assert (*namespace, urlsplit(url).port) in allowed


@pytest.mark.parametrize(
    ("probe", "view"),
    [
        ("startupProbe", health.live),
        ("livenessProbe", health.live),  # must not use MongoDB: an outage would restart every pod
        ("readinessProbe", health.ready),
    ],
)
def test_each_probe_calls_its_view(probe, view):
    request = API[probe]["httpGet"]

    assert resolve(request["path"]).func is view
    assert request["port"] == API["ports"][0]["name"]


def test_readiness_waits_longer_than_the_view_takes():
    assert API["readinessProbe"]["timeoutSeconds"] > health.READY_S


def test_a_pod_has_time_to_finish_its_requests():
    command = API["lifecycle"]["preStop"]["exec"]["command"]
    pause = command[-1].removeprefix("kill -USR1 1; sleep ")
    graceful = runpy.run_path(str(ROOT / "config/gunicorn.conf.py"))["graceful_timeout"]

    assert command[:-1] == ["sh", "-c"]
    assert POD["terminationGracePeriodSeconds"] >= int(pause) + graceful + 10


@pytest.mark.parametrize(
    "path",
    sorted(str(path.relative_to(K8S)) for path in K8S.rglob("*.env")),
)
def test_a_variable_in_the_configuration_is_one_that_the_service_reads(path):
    assert {name.removesuffix("_FILE") for name in assignments(path)} <= set(env.scheme)


def test_metrics_are_kept_in_memory():
    [metrics] = API["env"]
    [shm] = (mount for mount in API["volumeMounts"] if mount["name"] == "shm")

    assert metrics["name"] in env.scheme
    assert metrics["value"].startswith(f"{shm['mountPath']}/")
    assert shm["mountPath"] == env.scheme["WORKER_TMP_DIR"][1]


def test_all_pods_together_stay_below_the_connection_limit_of_mongodb():
    configured = assignments("base/config.env")
    each = int(configured["CONNECTION_POOL_MAX"]) * int(configured["WEB_CONCURRENCY"])
    most = one("HorizontalPodAutoscaler", written())["spec"]["maxReplicas"]
    surge = DEPLOYMENT["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
    stated = (K8S / "base/config.env").read_text()

    assert each * (most + surge) <= MOST_CONNECTIONS
    assert f"= {each * (most + surge)} connections" in stated


def test_only_the_autoscaler_sets_the_number_of_replicas():
    target = one("HorizontalPodAutoscaler", written())["spec"]["scaleTargetRef"]

    assert target == {key: DEPLOYMENT[key] for key in ("apiVersion", "kind")} | {
        "name": DEPLOYMENT["metadata"]["name"]
    }
    assert "replicas" not in DEPLOYMENT["spec"]


def test_the_autoscaler_scales_by_cpu_and_does_not_flap():
    scaling = one("HorizontalPodAutoscaler", written())["spec"]

    assert [metric["resource"]["name"] for metric in scaling["metrics"]] == ["cpu"]
    assert scaling["behavior"]["scaleUp"]["stabilizationWindowSeconds"] > 0
    assert scaling["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 300


def test_pods_are_spread_over_zones_and_nodes_with_a_disruption_budget():
    constraints = {each["topologyKey"]: each for each in POD["topologySpreadConstraints"]}
    rolling = DEPLOYMENT["spec"]["strategy"]["rollingUpdate"]

    assert set(constraints) == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    assert rolling["maxUnavailable"] == 0
    assert rolling["maxSurge"] > 0
    assert one("PodDisruptionBudget", written())["spec"]["maxUnavailable"] == 1
    assert DEPLOYMENT["spec"]["revisionHistoryLimit"] > 0
    startup = API["startupProbe"]["periodSeconds"] * API["startupProbe"]["failureThreshold"]
    assert DEPLOYMENT["spec"]["progressDeadlineSeconds"] > startup


def test_volumes_have_size_limits():
    volumes = [volume["emptyDir"] for volume in POD["volumes"] if "emptyDir" in volume]
    in_memory = sum(int(volume["sizeLimit"].removesuffix("Mi")) for volume in volumes)
    limit = int(API["resources"]["limits"]["memory"].removesuffix("Mi"))

    assert all(volume["medium"] == "Memory" for volume in volumes)
    assert in_memory <= limit / 2  # it counts as the container's own


def test_every_secret_is_mounted_and_in_the_templates():
    [volume] = (volume["secret"] for volume in POD["volumes"] if "secret" in volume)
    [mount] = (mount for mount in API["volumeMounts"] if mount["name"] == "secrets")
    mounted = {item["key"]: f"{mount['mountPath']}/{item['path']}" for item in volume["items"]}
    named = {
        name.removesuffix("_FILE"): path
        for name, path in assignments("base/config.env").items()
        if name.endswith("_FILE")
    }

    assert mounted == named
    assert SECRETS.keys() == mounted.keys()
    assert {entry["secretKey"] for entry in EXTERNAL_SECRET["spec"]["data"]} == mounted.keys()
    assert (
        volume["secretName"]
        == SECRET["metadata"]["name"]
        == EXTERNAL_SECRET["spec"]["target"]["name"]
    )


def test_no_secret_is_applied():
    applied = [path for path in K8S.rglob("*.yaml") if path.parent.name != "examples"]

    for path in applied:
        assert "examples" not in path.read_text()
        kinds = [document["kind"] for document in documents(path)]
        assert "Secret" not in kinds


def documents(path) -> list[Manifest]:
    loaded = list(yaml.safe_load_all(path.read_text()))
    return [document for document in loaded if isinstance(document, dict)]


def files_of(values: dict[str, str], folder, environment: str) -> dict[str, str]:
    """Write secrets to files, and return an environment's variables with the paths of those."""
    given = variables(environment)
    for name, value in values.items():
        (folder / name).write_text(value)
        given[f"{name}_FILE"] = str(folder / name)
    return given


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_service_starts_with_the_environment_of_a_pod(environment, tmp_path):
    strong = {name: f"{name}: long enough for Django, which requires 50" for name in SECRETS}
    urls = {name: SECRETS[name] for name in ("MONGODB_URL", "REDIS_URL")}

    done = manage(
        *("check", "--deploy", "--fail-level", "INFO"),
        **files_of(strong | urls, tmp_path, environment),
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert variables(environment)["ENVIRONMENT"] == environment


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_service_rejects_the_unchanged_template_of_the_secret(environment, tmp_path):
    done = manage("check", **files_of(SECRETS, tmp_path, environment))

    assert done.returncode != 0
    assert "SECRET_KEY is not set." in done.stderr
    assert "JWT_SECRET_KEY is not set." in done.stderr


def test_production_needs_only_the_values_of_the_secret():
    given = variables("production")
    missing = manage(
        "check", **{name: value for name, value in given.items() if not name.endswith("_FILE")}
    ).stderr
    lacking = {line.split()[1] for line in missing.splitlines() if line.endswith("is not set.")}

    assert lacking == {"SECRET_KEY", "JWT_SECRET_KEY", "MONGODB_URL"}
    assert lacking <= SECRETS.keys()


def commands() -> list[list[str]]:
    return [
        container["command"]
        for name, template in pods(written())
        if name != DEPLOYMENT["metadata"]["name"]
        for container in containers(template)
    ]


@pytest.mark.parametrize("command", commands(), ids=lambda command: command[2])
def test_each_job_runs_an_existing_command_with_valid_options(command):
    (
        *program,
        name,
    ) = command[:3]
    parser = load_command_class(get_commands()[name], name).create_parser("manage.py", name)

    assert program == ["python", "manage.py"]
    parser.parse_args(command[3:])


def test_the_release_migrates_before_it_builds_indexes():
    [release] = (template for _, template in pods([one("Job", written())]))

    assert [container["command"][2] for container in containers(release)] == [
        "migrate",
        "setup_indexes",
    ]


def test_selectors_match_the_serving_pods():
    labels = TEMPLATE["metadata"]["labels"]
    selectors = [
        DEPLOYMENT["spec"]["selector"],
        one("PodDisruptionBudget", written())["spec"]["selector"],
        {"matchLabels": one("Service", written())["spec"]["selector"]},
        *[constraint["labelSelector"] for constraint in POD["topologySpreadConstraints"]],
        *[policy["podSelector"] for policy in POLICIES.values()],
    ]

    assert all(selects(selector, labels) for selector in selectors)


def called(path_of_config: str) -> set[tuple[str, int]]:
    """Return the namespace and the port of every address in a configuration."""
    return {address(url) for url in assignments(path_of_config).values() if "://" in url}


def address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.port is not None, url
    [_, namespace, *rest] = (parts.hostname or "").split(".")
    assert rest == ["svc", "cluster", "local"], url
    return namespace, parts.port


def allowed(policy: str) -> set[tuple[str, int]]:
    """Return the namespaces and the ports that a policy lets pods call, as such."""
    return {
        (peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], port["port"])
        for rule in POLICIES[policy]["egress"]
        for peer in rule["to"]
        for port in rule["ports"]
        if set(peer) == {"namespaceSelector"}
    }


def test_egress_is_allowed_to_configured_hosts_only():
    secret = {address(SECRETS[name]) for name in ("MONGODB_URL", "REDIS_URL")}

    assert allowed("called") == called("base/config.env") | secret
    assert allowed("tracing") == called("components/tracing/config.env")


def test_other_egress_is_dns_and_the_service_only():
    others = [
        (peer, {port["port"] for port in rule["ports"]})
        for rule in POLICIES["called"]["egress"]
        for peer in rule["to"]
        if set(peer) != {"namespaceSelector"}
    ]

    assert others == [
        (
            {
                "namespaceSelector": {
                    "matchLabels": {"kubernetes.io/metadata.name": "kube-system"}
                },
                "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
            },
            {53},
        ),
        ({"podSelector": DEPLOYMENT["spec"]["selector"]}, {8003}),
    ]


def test_ingress_is_allowed_from_gateway_message_prometheus_and_the_service():
    [rule] = POLICIES["callers"]["ingress"]
    name = "kubernetes.io/metadata.name"

    assert rule["from"] == [
        {"namespaceSelector": {"matchLabels": {name: "api-gateway"}}},
        {"namespaceSelector": {"matchLabels": {name: "message-service"}}},
        {
            "namespaceSelector": {"matchLabels": {name: "monitoring"}},
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
        },
        {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "conversation-service"}}},
    ]


def test_traffic_is_denied_by_default():
    assert POLICIES["deny-by-default"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_namespace_accepts_restricted_pods_only():
    labels = one("Namespace", written())["metadata"]["labels"]

    assert {
        labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "warn", "audit")
    } == {"restricted"}


def test_the_pods_run_as_the_user_of_the_image():
    dockerfile = (ROOT / "docker/Dockerfile").read_text().splitlines()
    *_, user = (line.split()[1] for line in dockerfile if line.startswith("USER "))
    context = POD["securityContext"]

    assert user == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert context["fsGroup"] == context["runAsGroup"]
