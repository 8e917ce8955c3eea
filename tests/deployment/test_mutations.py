"""Faults in manifests, Compose files, scripts and workflows: a test detects each of them.

Each fault is an edit of one file in a copy of the repository. The test modules are imported again
from the copy, so that their paths and constants are those of the copy, and their tests run
without pytest. Faults that only a running container shows are detected by `make check-image`:
see docs/image-check.md.
"""

import inspect
import itertools
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest

import tests.deployment
from tests.deployment.manifests import ENVIRONMENTS, ROOT

pytestmark = pytest.mark.deployment


class Edit(NamedTuple):
    """A fault: `old` in a file becomes `new`. Without `old`, `new` is added at the end."""

    file: str
    old: str
    new: str


def patch(environment: str, kind: str, *operations: str) -> Edit:
    """Return a fault in an overlay: a patch of all objects of a kind."""
    lines = [f"  - target: {{kind: {kind}}}", "    patch: |-"]
    lines += [f"      - {{{operation}}}" for operation in operations]
    if environment == "production":  # staging has patches already
        lines.insert(0, "patches:")
    return Edit(f"k8s/overlays/{environment}/kustomization.yaml", "", "\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mutations") / "repository"
    unused = shutil.ignore_patterns(
        *(".git", ".venv", ".tools", "var", "__pycache__", ".*_cache", "conversations", "img")
    )
    shutil.copytree(ROOT, folder, ignore=unused)
    (folder / ".tools").symlink_to((ROOT / ".tools").resolve())
    return folder


@pytest.fixture(scope="module")
def first_releases(copy, tmp_path_factory) -> dict[str, Any]:
    """Return the state of a cluster after a release by the script without a fault."""
    with imports_from(copy):
        module = import_module("tests.deployment.test_deploy_k8s")
        with module.prepared_cluster() as cluster:
            module.Operator(cluster, tmp_path_factory.mktemp("operator")).has_deployed(
                module.FORMER
            )
        return module.first_releases


@contextmanager
def edited(folder: Path, edit: Edit) -> Iterator[None]:
    path = folder / edit.file
    former = path.read_text()
    if edit.old:
        assert former.count(edit.old) == 1, f"{edit.file} must contain {edit.old!r} once"
        path.write_text(former.replace(edit.old, edit.new))
    else:
        path.write_text(former + edit.new)
    try:
        yield
    finally:
        path.write_text(former)


@contextmanager
def imports_from(folder: Path) -> Iterator[None]:
    """Import the modules of this package from a copy."""
    with (
        mock.patch.dict(sys.modules),
        mock.patch.object(tests.deployment, "__path__", [str(folder / "tests/deployment")]),
        mock.patch.dict(vars(tests.deployment)),
    ):
        for name in list(sys.modules):
            if name.startswith("tests.deployment."):
                del sys.modules[name]
        yield


def faults(module: str) -> Iterator[str]:
    """Run the tests of a module that need no other fixtures; yield the names of failed ones.

    Tests of production run last: a fault in the base is detected without a rendered production.
    """
    tests = [
        test
        for test in vars(import_module(f"tests.deployment.{module}")).values()
        if inspect.isfunction(test) and test.__name__.startswith("test_")
    ]
    for environment in [None, *ENVIRONMENTS]:
        for test in tests:
            for arguments in calls(test, environment):
                try:
                    test(**arguments)
                except Exception as error:  # noqa: BLE001 - a test may fail with any error
                    yield f"{test.__name__}: {error!r}"


def calls(test: Any, environment: str | None) -> Iterator[dict[str, Any]]:
    """Yield the arguments of each call of a test in an environment, or in none.

    There are no calls if the test belongs elsewhere or needs an unknown fixture.
    """
    needs = set(inspect.signature(test).parameters)
    given: dict[str, Any] = {}
    if needs & {"environment", "rendered", "traced"}:
        if environment is None:
            return
        release = partial(import_module("tests.deployment.manifests").release, environment)
        given = {"environment": environment}
        if "rendered" in needs:
            given["rendered"] = release()
        if "traced" in needs:
            given["traced"] = release("tracing")
    elif environment is not None:
        return
    tables: list[list[dict[str, Any]]] = [[given]]
    for mark in getattr(test, "pytestmark", []):
        if mark.name == "parametrize":
            names, rows = mark.args
            names = names.replace(" ", "").split(",") if isinstance(names, str) else names
            tables.append(
                [dict(zip(names, row if len(names) > 1 else [row], strict=True)) for row in rows]
            )
    for rows in itertools.product(*tables):
        values = {name: value for row in rows for name, value in row.items()}
        if needs <= values.keys():
            yield {name: values[name] for name in needs}


OURS = "podSelector: {matchLabels: {app.kubernetes.io/name: conversation-service}}"
CONTAINER = "/spec/template/spec/containers/0"
MANIFESTS = {
    # Network
    "DNS without UDP": Edit(
        "k8s/base/networkpolicies.yaml",
        "[{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]",
        "[{protocol: TCP, port: 53}]",
    ),
    "DNS without TCP": Edit(
        "k8s/base/networkpolicies.yaml",
        "[{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]",
        "[{protocol: UDP, port: 53}]",
    ),
    "no NodeLocal DNSCache": Edit(
        "k8s/base/networkpolicies.yaml", "        - ipBlock: {cidr: 169.254.20.10/32}\n", ""
    ),
    "DNS of OpenShift by its Service": Edit(
        "k8s/base/networkpolicies.yaml", "TCP, port: 5353}", "TCP, port: 53}"
    ),
    "a release with a sidecar": Edit(
        "k8s/base/release.yaml", '        sidecar.istio.io/inject: "false"\n', ""
    ),
    "MongoDB by UDP": Edit(
        "k8s/base/networkpolicies.yaml",
        "{protocol: TCP, port: 27017}",
        "{protocol: UDP, port: 27017}",
    ),
    "clients by UDP": Edit(
        "k8s/base/networkpolicies.yaml",
        f"- {OURS}\n      ports: [{{protocol: TCP",
        f"- {OURS}\n      ports: [{{protocol: UDP",
    ),
    "another namespace of Redis": Edit(
        "k8s/base/networkpolicies.yaml", "metadata.name: redis}", "metadata.name: cache}"
    ),
    "clients of every namespace": Edit(
        "k8s/base/networkpolicies.yaml",
        "- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: api-gateway}}",
        "- namespaceSelector: {}",
    ),
    "egress to everything": Edit(
        "k8s/base/networkpolicies.yaml",
        "  egress:\n    - to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: au",
        "  egress:\n    - {}\n"
        "    - to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: au",
    ),
    "a port is missing, so all are open": Edit(
        "k8s/base/networkpolicies.yaml", "      ports: [{protocol: TCP, port: 8001}]\n", ""
    ),
    "no denial of egress": Edit(
        "k8s/base/networkpolicies.yaml", "policyTypes: [Ingress, Egress]", "policyTypes: [Ingress]"
    ),
    "no denial in staging": patch(
        "staging", "NetworkPolicy", "op: remove, path: /spec/policyTypes"
    ),
    # Pods
    "preStop of 0 s": Edit("k8s/base/deployment.yaml", "sleep 10", "sleep 0"),
    "preStop runs another program": Edit("k8s/base/deployment.yaml", "sleep 10", "usleep 10"),
    "preStop does not drain": Edit("k8s/base/deployment.yaml", "kill -USR1 1; ", ""),
    "liveness after 1 s": Edit(
        "k8s/base/deployment.yaml",
        "periodSeconds: 10\n            timeoutSeconds: 3\n            failureThreshold: 3",
        "periodSeconds: 1\n            timeoutSeconds: 1\n            failureThreshold: 1",
    ),
    "startup after 1 s": Edit(
        "k8s/base/deployment.yaml",
        "periodSeconds: 2\n            timeoutSeconds: 2\n            failureThreshold: 30",
        "periodSeconds: 1\n            timeoutSeconds: 1\n            failureThreshold: 1",
    ),
    "readiness after 200 failures": Edit(
        "k8s/base/deployment.yaml", "failureThreshold: 2\n", "failureThreshold: 200\n"
    ),
    "readiness by /health/live": Edit("k8s/base/deployment.yaml", "/health/ready", "/health/live"),
    "readiness with a long delay": Edit(
        "k8s/base/deployment.yaml",
        "periodSeconds: 5\n",
        "periodSeconds: 5\n            initialDelaySeconds: 300\n",
    ),
    "read-only /tmp": Edit(
        "k8s/base/deployment.yaml", "            - {name: tmp, mountPath: /tmp}\n", ""
    ),
    "a disk for /tmp": Edit(
        "k8s/base/deployment.yaml", "{medium: Memory, sizeLimit: 128Mi}", "{sizeLimit: 128Mi}"
    ),
    "memory for the process is short": Edit(
        "k8s/base/deployment.yaml",
        "requests: {cpu: 500m, memory: 512Mi, ephemeral-storage: 64Mi}\n"
        "            limits: {memory: 512Mi,",
        "requests: {cpu: 500m, memory: 385Mi, ephemeral-storage: 64Mi}\n"
        "            limits: {memory: 385Mi,",
    ),
    "a limit of the CPU": Edit(
        "k8s/base/deployment.yaml", "limits: {memory: 512Mi,", "limits: {cpu: '1', memory: 512Mi,"
    ),
    "a full zone leaves pods pending": Edit(
        "k8s/base/deployment.yaml",
        "whenUnsatisfiable: ScheduleAnyway # better",
        "whenUnsatisfiable: DoNotSchedule # better",
    ),
    "short grace": Edit("k8s/base/deployment.yaml", "PeriodSeconds: 50", "PeriodSeconds: 30"),
    "root": Edit("k8s/base/deployment.yaml", "runAsUser: 1000", "runAsUser: 0"),
    "a writable root": Edit(
        "k8s/base/deployment.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"
    ),
    "the network of the node": Edit(
        "k8s/base/deployment.yaml",
        "      enableServiceLinks",
        "      hostNetwork: true\n      enableServiceLinks",
    ),
    "a token in the pods": Edit(
        "k8s/base/deployment.yaml",
        "automountServiceAccountToken: false",
        "automountServiceAccountToken: true",
    ),
    "a token of the service account": Edit(
        "k8s/base/serviceaccount.yaml", "Token: false", "Token: true"
    ),
    "secrets for all users": Edit(
        "k8s/base/deployment.yaml", "defaultMode: 0440", "defaultMode: 0444"
    ),
    "a secret that is not mounted": Edit(
        "k8s/base/deployment.yaml", "              - {key: MONGODB_URL, path: MONGODB_URL}\n", ""
    ),
    "an image by tag": Edit(
        "k8s/base/cronjob.yaml",
        "registry.invalid/conversation-service",
        "registry.company.com/conversation-service:latest",
    ),
    "pods that are stopped first": Edit(
        "k8s/base/deployment.yaml",
        "{maxSurge: 1, maxUnavailable: 0}",
        "{maxSurge: 0, maxUnavailable: 1}",
    ),
    "a paused Deployment": Edit(
        "k8s/base/deployment.yaml",
        "  revisionHistoryLimit: 5",
        "  paused: true\n  revisionHistoryLimit: 5",
    ),
    "no former revisions": Edit(
        "k8s/base/deployment.yaml", "revisionHistoryLimit: 5", "revisionHistoryLimit: 0"
    ),
    # Scaling, Service
    "scaling at 700 %": Edit(
        "k8s/base/hpa.yaml", "averageUtilization: 70", "averageUtilization: 700"
    ),
    "one pod": Edit("k8s/base/hpa.yaml", "minReplicas: 3", "minReplicas: 1"),
    "scaling by memory": Edit("k8s/base/hpa.yaml", "name: cpu", "name: memory"),
    "scaling that stops": Edit("k8s/base/hpa.yaml", "selectPolicy: Max", "selectPolicy: Disabled"),
    "more connections than MongoDB has": Edit(
        "k8s/base/hpa.yaml", "maxReplicas: 10", "maxReplicas: 40"
    ),
    "nodes that cannot be drained": Edit(
        "k8s/base/pdb.yaml",
        "  unhealthyPodEvictionPolicy: AlwaysAllow #",
        "  unhealthyPodEvictionPolicy: IfHealthyBudget #",
    ),
    "no disruptions": Edit(
        "k8s/base/pdb.yaml",
        "maxUnavailable: 1\n  unhealthyPodEvictionPolicy: AlwaysAllow #",
        "maxUnavailable: 0\n  unhealthyPodEvictionPolicy: AlwaysAllow #",
    ),
    "no disruption budget": Edit("k8s/base/kustomization.yaml", "  - pdb.yaml\n", ""),
    "a public Service": Edit("k8s/base/service.yaml", "type: ClusterIP", "type: LoadBalancer"),
    "another port": Edit("k8s/base/service.yaml", "targetPort: http", "targetPort: 9999"),
    "a Service of all pods": Edit(
        "k8s/base/service.yaml",
        "conversation-service\n    app.kubernetes.io/component: api\n  ports",
        "conversation-service\n  ports",
    ),
    "old Pod Security": Edit(
        "k8s/base/namespace.yaml", "enforce-version: v1.29", "enforce-version: v1.20"
    ),
    # Jobs
    "a job on Sundays": Edit("k8s/base/cronjobs.yaml", '"20 3 * * *"', '"20 3 * * 0"'),
    "a suspended job": Edit("k8s/base/cronjob.yaml", "  timeZone", "  suspend: true\n  timeZone"),
    "a job in local time": Edit(
        "k8s/base/cronjob.yaml", "timeZone: Etc/UTC", "timeZone: Europe/Madrid"
    ),
    "jobs that overlap": Edit("k8s/base/cronjob.yaml", "Policy: Forbid", "Policy: Allow"),
    "a job that only pretends": Edit(
        "k8s/base/cronjobs.yaml", "purge_trash, --json", "purge_trash, --dry-run"
    ),
    "a job without time": Edit(
        "k8s/base/cronjobs.yaml", "activeDeadlineSeconds: 21600", "activeDeadlineSeconds: 60"
    ),
    "a job is missing": Edit(
        "k8s/base/cronjobs.yaml", "  name: verify-characters", "  name: verify-character"
    ),
    "a release of 30 s": Edit("k8s/base/release.yaml", "Seconds: 3600", "Seconds: 30"),
    "a faked migration": Edit("k8s/base/release.yaml", "migrate, --no-input", "migrate, --fake"),
    "indexes before the migration": Edit(
        "k8s/base/release.yaml", "manage.py, setup_indexes", "manage.py, setup_indexes, --dry-run"
    ),
    # The publisher and the deliverer of events
    "private networks for the deliverer": Edit(
        "k8s/base/networkpolicies.yaml", "              - 10.0.0.0/8 # private\n", ""
    ),
    "the metadata service for the deliverer": Edit(
        "k8s/base/networkpolicies.yaml", "- 169.254.0.0/16 # link", "- 169.254.0.0/24 # link"
    ),
    "6to4 for the deliverer": Edit(
        "k8s/base/networkpolicies.yaml", "              - 2002::/16 # 6to4\n", ""
    ),
    "every IPv6 address for the deliverer": Edit(
        "k8s/base/networkpolicies.yaml", "cidr: 2000::/3", 'cidr: "::/0"'
    ),
    "every port for the deliverer": Edit(
        "k8s/base/networkpolicies.yaml", "      ports: [{protocol: TCP, port: 443}]\n", ""
    ),
    "HTTP for the deliverer": Edit(
        "k8s/base/networkpolicies.yaml",
        "ports: [{protocol: TCP, port: 443}]",
        "ports: [{protocol: TCP, port: 443}, {protocol: TCP, port: 80}]",
    ),
    "the internet for the publisher": Edit(
        "k8s/base/networkpolicies.yaml",
        "app.kubernetes.io/component: webhooks\n  policyTypes: [Egress]",
        "app.kubernetes.io/component: events\n  policyTypes: [Egress]",
    ),
    "the internet for every pod": Edit(
        "k8s/base/networkpolicies.yaml",
        "      app.kubernetes.io/component: webhooks\n  policyTypes: [Egress]",
        "  policyTypes: [Egress]",
    ),
    "upstreams for the publisher": Edit(
        "k8s/base/networkpolicies.yaml", "values: [api, release,", "values: [api, events, release,"
    ),
    "metrics for everything": Edit(
        "k8s/base/networkpolicies.yaml",
        "          podSelector: {matchLabels: {app.kubernetes.io/name: prometheus}}\n"
        "      ports: [{protocol: TCP, port: 9103}]",
        "      ports: [{protocol: TCP, port: 9103}]",
    ),
    "a publisher that ends": Edit(
        "k8s/base/events.yaml", "manage.py, publish_events]", "manage.py, publish_events, --once]"
    ),
    "no deliverer": Edit("k8s/base/events.yaml", "deliver_webhooks", "publish_events"),
    "pods of two Deployments": Edit(
        "k8s/base/events.yaml",
        "    matchLabels: &deliverer\n"
        "      app.kubernetes.io/name: conversation-service\n"
        "      app.kubernetes.io/component: webhooks",
        "    matchLabels: &deliverer\n"
        "      app.kubernetes.io/name: conversation-service\n"
        "      app.kubernetes.io/component: events",
    ),
    "one publisher": Edit("k8s/base/event-process.yaml", "replicas: 2", "replicas: 1"),
    "workers that are stopped first": Edit(
        "k8s/base/event-process.yaml",
        "{maxSurge: 1, maxUnavailable: 0}",
        "{maxSurge: 0, maxUnavailable: 1}",
    ),
    "a delivery is cut off": Edit(
        "k8s/base/event-process.yaml", "PeriodSeconds: 60", "PeriodSeconds: 10"
    ),
    "no limit of memory": Edit(
        "k8s/base/event-process.yaml",
        "limits: {memory: 384Mi, ephemeral-storage: 64Mi}",
        "limits: {ephemeral-storage: 64Mi}",
    ),
    "no limit of the disk": Edit(
        "k8s/base/event-process.yaml",
        "limits: {memory: 384Mi, ephemeral-storage: 64Mi}",
        "limits: {memory: 384Mi}",
    ),
    **{
        f"no {probe} of the workers": Edit("k8s/base/event-process.yaml", probe, f"{probe}Not")
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    },
    "workers restart after 2 s": Edit(
        "k8s/base/event-process.yaml",
        "periodSeconds: 10\n            timeoutSeconds: 3\n            failureThreshold: 6",
        "periodSeconds: 1\n            timeoutSeconds: 1\n            failureThreshold: 2",
    ),
    "probes of another port": Edit(
        "k8s/base/event-process.yaml", 'EVENTS_PORT, value: "9103"', 'EVENTS_PORT, value: "9104"'
    ),
    "workers log nothing": Edit(
        "k8s/base/event-process.yaml", '            - {name: LOG_COMMANDS, value: "true"}\n', ""
    ),
    "workers with a sidecar": Edit(
        "k8s/base/event-process.yaml", '        sidecar.istio.io/inject: "false"\n', ""
    ),
    "workers without hardening": Edit(
        "k8s/base/event-process.yaml",
        "    spec:\n      #",
        "    spec:\n      hostNetwork: true\n      #",
    ),
    "workers connect too often": Edit("k8s/base/event-process.yaml", "replicas: 2", "replicas: 3"),
    "the publisher may be drained at once": Edit(
        "k8s/base/pdb.yaml",
        "  name: conversation-service-events\n  labels:\n"
        "    app.kubernetes.io/component: events\nspec:\n  maxUnavailable: 1",
        "  name: conversation-service-events\n  labels:\n"
        "    app.kubernetes.io/component: events\nspec:\n  maxUnavailable: 2",
    ),
    "no metrics of the deliverer": Edit(
        "k8s/base/service.yaml",
        "conversation-service\n    app.kubernetes.io/component: webhooks\n  ports",
        "conversation-service\n    app.kubernetes.io/component: hooks\n  ports",
    ),
    "Prometheus does not scrape the workers": Edit(
        "k8s/components/monitoring/servicemonitor.yaml",
        "    - port: metrics # the publisher and the deliverer of events\n"
        "      path: /metrics\n      interval: 30s\n      scrapeTimeout: 10s\n",
        "",
    ),
    # Configuration
    "fewer variables are secrets": Edit(
        "k8s/base/config.env",
        "REDIS_URL_FILE=/run/secrets/conversation-service/REDIS_URL\n",
        "REDIS_URL=redis://redis\n",
    ),
    "no rate limits": Edit(
        "k8s/base/config.env", "PORT=8003\n", "PORT=8003\nRATE_LIMIT_ENABLED=false\n"
    ),
    "another address of Auth": Edit(
        "k8s/base/config.env", "auth-service.auth-service", "auth-service.auth"
    ),
    "DEBUG in production": Edit("k8s/overlays/production/config.env", "", "LOG_LEVEL=DEBUG\n"),
    "Auth fails open": Edit("k8s/overlays/production/config.env", "", "AUTH_FAIL_MODE=open\n"),
    "all hosts": Edit("k8s/overlays/staging/config.env", "ALLOWED_HOSTS=", "ALLOWED_HOSTS=*,"),
    "an overlay with another address": Edit(
        "k8s/overlays/staging/config.env",
        "",
        "MESSAGE_SERVICE_URL=http://message.other.svc.cluster.local:8004\n",
    ),
    "the wrong environment": Edit(
        "k8s/overlays/production/config.env", "ENVIRONMENT=production", "ENVIRONMENT=staging"
    ),
    "the wrong label": Edit(
        "k8s/overlays/staging/kustomization.yaml",
        "{environment: staging}",
        "{environment: production}",
    ),
    # Overlays
    "an overlay scales to one pod": patch(
        "production",
        "HorizontalPodAutoscaler",
        "op: replace, path: /spec/minReplicas, value: 1",
        "op: replace, path: /spec/maxReplicas, value: 1",
    ),
    "an overlay shortens the grace": patch(
        "production",
        "Deployment",
        "op: replace, path: /spec/template/spec/terminationGracePeriodSeconds, value: 5",
    ),
    "an overlay removes the denial": patch(
        "production", "NetworkPolicy", "op: remove, path: /spec/policyTypes"
    ),
    "an overlay deletes the denial": Edit(
        "k8s/overlays/production/kustomization.yaml",
        "",
        "patches:\n  - patch: '{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy,"
        " metadata: {name: deny-by-default}, $patch: delete}'\n",
    ),
    "an overlay restarts pods without MongoDB": patch(
        "production",
        "Deployment",
        f"op: replace, path: {CONTAINER}/livenessProbe/httpGet/path, value: /health/ready",
    ),
    "an overlay sets replicas": patch(
        "production", "Deployment", "op: add, path: /spec/replicas, value: 3"
    ),
    "an overlay removes Pod Security": patch(
        "production",
        "Namespace",
        "op: remove, path: /metadata/labels/pod-security.kubernetes.io~1enforce",
    ),
    "an overlay suspends jobs": patch(
        "staging", "CronJob", "op: add, path: /spec/suspend, value: true"
    ),
    "an overlay opens the networks of the company": patch(
        "production",
        "NetworkPolicy, name: webhooks",
        "op: remove, path: /spec/egress/0/to/0/ipBlock/except",
    ),
    "an overlay stops the publisher": patch(
        "staging",
        "Deployment, name: conversation-service-events",
        "op: replace, path: /spec/replicas, value: 0",
    ),
    "an overlay adds privileges": patch(
        "staging",
        "Deployment",
        f"op: replace, path: {CONTAINER}/securityContext/capabilities, value: {{add: [SYS_ADMIN]}}",
    ),
    "an overlay publishes the Service": patch(
        "staging", "Service", "op: add, path: /spec/type, value: NodePort"
    ),
    "an overlay has no monitoring": Edit(
        "k8s/overlays/production/kustomization.yaml",
        "components: [../../components/monitoring]\n",
        "",
    ),
    # Monitoring, logging, examples
    "the operator ignores the monitor": Edit(
        "k8s/components/monitoring/servicemonitor.yaml", "    release: kube-prometheus-stack\n", ""
    ),
    "the operator ignores the rules": Edit(
        "k8s/components/monitoring/prometheusrule.yaml",
        "release: kube-prometheus-stack",
        "release: prometheus",
    ),
    "a scrape every 5 minutes": Edit(
        "k8s/components/monitoring/servicemonitor.yaml", "interval: 30s #", "interval: 5m #"
    ),
    "the sidecar ignores the dashboard": Edit(
        "k8s/components/monitoring/kustomization.yaml", "grafana_dashboard:", "dashboard:"
    ),
    "Filebeat by tag": Edit(
        "k8s/components/logging/daemonset.yaml", "filebeat:9.2.0", "filebeat:latest"
    ),
    "Filebeat reads another folder": Edit(
        "k8s/components/logging/daemonset.yaml", "{path: /var/log, type", "{path: /var/logs, type"
    ),
    "Filebeat has 16 MiB": Edit(
        "k8s/components/logging/daemonset.yaml", "limits: {memory: 256Mi}", "limits: {memory: 16Mi}"
    ),
    "Filebeat rejects its fingerprint": Edit(
        "k8s/components/logging/filebeat.yml", "length: 64", "length: 8"
    ),
    "Filebeat without TLS": Edit("k8s/components/logging/filebeat.yml", "https://", "http://"),
    "a vault that refreshes by the clock": Edit(
        "k8s/examples/external-secret.yaml", "refreshPolicy: OnChange", "refreshInterval: 1h"
    ),
    "a vault without the key": Edit(
        "k8s/examples/external-secret.yaml", "property: MONGODB_URL", "property: MONGO_URL"
    ),
}
FILES = {
    # Image and Compose
    "the image runs as root": Edit("docker/Dockerfile", "USER 1000:1000", "USER 0:0"),
    "the image is killed": Edit("docker/Dockerfile", "STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL"),
    "packages without hashes": Edit(
        "docker/Dockerfile", "pip install --require-hashes", "pip install"
    ),
    "another base image": Edit(
        "docker/Dockerfile",
        "BASE_IMAGE=docker.io/library/python:3.13.13-slim-bookworm\n\n",
        "BASE_IMAGE=docker.io/library/python:3.12-slim\n\n",
    ),
    "the image is healthy without its service": Edit(
        "docker/Dockerfile", '"/health/live"]', '"/"]'
    ),
    "development in staging": Edit(
        "docker/compose.staging.yaml", "ENVIRONMENT: staging", "ENVIRONMENT: development"
    ),
    "too little memory": Edit(
        "docker/compose.staging.yaml", "memory: 512M, pids: 128}", "memory: 64M, pids: 128}"
    ),
    "Redis without a password": Edit(
        "docker/compose.staging.yaml", '        requirepass "$$password"\n', ""
    ),
    "MongoDB without users": Edit("docker/compose.staging.yaml", " --keyFile /tmp/key", ""),
    "a published database": Edit(
        "docker/compose.staging.yaml",
        '    volumes: ["mongodb:/data/db"]\n',
        '    volumes: ["mongodb:/data/db"]\n    ports: ["27017:27017"]\n',
    ),
    "a public port": Edit("docker/compose.staging.yaml", '["127.0.0.1:${PORT', '["0.0.0.0:${PORT'),
    "one replica": Edit("docker/compose.staging.yaml", "replicas: 2", "replicas: 1"),
    "MongoDB by tag": Edit(
        "docker/compose.yaml",
        'image: docker.io/library/mongo:7.0.28\n    user: "999:999" # mongodb',
        'image: docker.io/library/mongo:7\n    user: "999:999" # mongodb',
    ),
    "short grace in Compose": Edit(
        "docker/compose.yaml", "stop_grace_period: 40s", "stop_grace_period: 10s"
    ),
    "a publisher that ends in Compose": Edit(
        "docker/compose.yaml", "manage.py, publish_events]", "manage.py, publish_events, --once]"
    ),
    "the publisher of staging reaches other hosts": Edit(
        "docker/compose.staging.yaml",
        "    networks: [back]\n    depends_on: &prepared",
        "    depends_on: &prepared",
    ),
    "the deliverer of staging reaches the upstreams": Edit(
        "docker/compose.staging.yaml", "networks: [back, outside]", "networks: [back, staging]"
    ),
    "a worker of staging is killed": Edit(
        "docker/compose.staging.yaml",
        "healthcheck: *metrics\n    stop_grace_period: 60s",
        "healthcheck: *metrics\n    stop_grace_period: 5s",
    ),
    "a worker of staging has no memory limit": Edit(
        "docker/compose.staging.yaml", "memory: 384M, pids: 256}", "pids: 256}"
    ),
    "a worker without a health check": Edit(
        "docker/compose.staging.yaml", "    healthcheck: *metrics\n", ""
    ),
    "all rights for the service": Edit(
        "docker/mongo-init.js", '[{ role: "readWrite", db: DATABASE }]', '["root"]'
    ),
    "public metrics": Edit(
        "docker/nginx.conf",
        "location = /metrics {\n            return 404;",
        "location = /metrics {\n            return 204;",
    ),
    "public internal paths": Edit(
        "docker/nginx.conf", "location /internal/ {", "location /internals/ {"
    ),
    "streams end after 5 s": Edit(
        "docker/nginx.conf", "proxy_read_timeout 60s", "proxy_read_timeout 5s"
    ),
    "bodies of 1 MB": Edit(
        "docker/nginx.conf", "client_max_body_size 0", "client_max_body_size 1m"
    ),
    "writes are repeated": Edit(
        "docker/nginx.conf",
        "proxy_next_upstream error timeout",
        "proxy_next_upstream error timeout non_idempotent",
    ),
    "the address of the client is lost": Edit(
        "docker/nginx.conf",
        "X-Forwarded-For $proxy_add_x_forwarded_for",
        "X-Forwarded-For $remote_addr",
    ),
    # Workflows
    "a scan without consequence": Edit(
        ".github/workflows/build.yml", 'exit-code: "1"', 'exit-code: "0"'
    ),
    "a scan of little": Edit(
        ".github/workflows/build.yml", "severity: HIGH,CRITICAL", "severity: CRITICAL"
    ),
    "no signature": Edit(
        ".github/workflows/build.yml", "run: cosign sign", "run: echo cosign sign"
    ),
    "a push by pull requests": Edit(".github/workflows/build.yml", "push: false", "push: true"),
    "an image of every branch": Edit(
        ".github/workflows/build.yml", " && github.ref == 'refs/heads/main'", ""
    ),
    "every identity": Edit(
        ".github/actions/deploy/action.yml",
        '--certificate-identity="$BUILDER"',
        '--certificate-identity-regexp=".*"',
    ),
    "every branch": Edit(
        ".github/actions/deploy/action.yml", "build.yml@refs/heads/main", "build.yml@refs/heads/any"
    ),
    "a verification that may fail": Edit(
        ".github/actions/deploy/action.yml", ">/dev/null\n", ">/dev/null || true\n"
    ),
    "a deployment that does nothing": Edit(
        ".github/actions/deploy/action.yml",
        '"$TOKEN_SECRET" --diff',
        '"$TOKEN_SECRET" --diff --dry-run',
    ),
    "a key of another cluster": Edit(
        ".github/workflows/deploy-production.yml",
        "          environment: production\n",
        "          environment: staging\n",
    ),
    "production without reviewers": Edit(
        ".github/workflows/deploy-production.yml",
        "    environment: production\n    permissions",
        "    permissions",
    ),
    "production before staging": Edit(
        ".github/workflows/main.yml", "needs: [build, staging]", "needs: build"
    ),
    "a build before the tests": Edit(".github/workflows/main.yml", "    needs: test\n", ""),
    "tests that may fail": Edit(
        ".github/workflows/test.yml", "run: make coverage", "run: make coverage || true"
    ),
    "one version of MongoDB": Edit(
        ".github/workflows/test.yml", '["7.0.28", "8.0.17"]', '["7.0.28"]'
    ),
    "the embedded MongoDB in place of the newer": Edit(
        ".github/workflows/test.yml", 'echo "MONGOD_BIN=', 'echo "MONGOD='
    ),
    "no check of the image": Edit(
        ".github/workflows/test.yml", "run: make check-image REGISTRY=1", "run: make check"
    ),
    "a check that may fail": Edit(
        ".github/workflows/test.yml",
        "        run: make check-clients",
        "        continue-on-error: true\n        run: make check-clients",
    ),
    "tests after the merge": Edit(
        ".github/workflows/test.yml", "  pull_request:\n    branches: [main]\n", ""
    ),
    "all permissions": Edit(
        ".github/workflows/test.yml", "permissions: {}", "permissions: write-all"
    ),
    "an action by tag": Edit(
        ".github/workflows/build.yml",
        "sigstore/cosign-installer@6f9f17788090df1f26f669e9d70d6ae9567deba6 # v4.1.2",
        "sigstore/cosign-installer@v4",
    ),
    "two deployments at once": Edit(
        ".github/workflows/deploy-production.yml",
        "group: deploy-production",
        "group: ${{ github.run_id }}",
    ),
    # Scripts
    "another Secret": Edit(
        "scripts/deploy-k8s.sh", "secret=conversation-service-secrets", "secret=secrets"
    ),
    "an image that is not replaced": Edit(
        "scripts/deploy-k8s.sh",
        "{name: registry.invalid/conversation-service, newName",
        "{name: registry/conversation-service, newName",
    ),
}
# The tests for a folder; the first match counts.
RULES = "k8s/components/monitoring/prometheusrule.yaml"
MODULES = {
    "k8s/components/logging": "test_filebeat",
    "k8s": "test_manifests",
    "docker": "test_image",
    ".github": "test_workflows",
    "scripts": "test_scripts",
}
# Faults of scripts and rules with the test that runs them and detects the fault.
SCRIPTS = {
    "the server validates nothing": (
        Edit("scripts/deploy-k8s.sh", '[ "$dry_run" = true ] || check_manifests\n', ""),
        "test_deploy_k8s.test_a_release_that_the_server_rejects_changes_nothing",
    ),
    "a rollback ends with 0": (
        Edit("scripts/deploy-k8s.sh", 'stop 5 "$image failed', 'stop 0 "$image failed'),
        "test_deploy_k8s.test_a_version_that_never_becomes_ready_is_rolled_back",
    ),
    "a rollback does not wait": (
        Edit(
            "scripts/deploy-k8s.sh", '    wait_for_rollouts "${existing[@]}" ||\n', "    true ||\n"
        ),
        "test_deploy_k8s.test_a_previous_version_that_does_not_become_ready_again_is_reported",
    ),
    "a release waits for the API only": (
        Edit(
            "scripts/deploy-k8s.sh",
            'wait_for_rollouts "${deployments[@]}"',
            'wait_for_rollouts "$name"',
        ),
        "test_deploy_k8s.test_every_deployment_is_rolled_back_if_a_worker_never_becomes_ready",
    ),
    "a rollback sets the number of publishers": (
        Edit("scripts/deploy-k8s.sh", '    [ "$1" != "$name" ] || patch_file', "    patch_file"),
        "test_deploy_k8s.test_a_failed_release_keeps_the_number_of_workers",
    ),
    "a rollback without a smoke test": (
        Edit("scripts/deploy-k8s.sh", '    run_job smoke "$manifests/former/', '    true "'),
        "test_deploy_k8s.test_a_previous_version_that_fails_the_smoke_test_is_reported",
    ),
    "no smoke test": (
        Edit("scripts/deploy-k8s.sh", '    run_job smoke "$manifests/smoke/', '    true "'),
        "test_deploy_k8s.test_a_version_that_fails_the_smoke_test_is_rolled_back_and_the_previous_one_tested",
    ),
    "scheduled jobs fail unnoticed": (
        Edit("scripts/deploy-k8s.sh", "run_stage schedule ||", "run_stage schedule || true ||"),
        "test_deploy_k8s.test_scheduled_jobs_that_cannot_be_updated_are_reported",
    ),
    "removed objects stay": (
        Edit("scripts/deploy-k8s.sh", "run_stage prune || ", "true || "),
        "test_deploy_k8s.test_the_configuration_stays_as_long_as_a_revision_needs_it",
    ),
    "errors burn the budget unnoticed": (
        Edit(RULES, "ratio_rate1h > 14.4 * 0.001", "ratio_rate1h > 144 * 0.001"),
        "test_rules.test_alerts_pass_their_unit_tests",
    ),
    "full streams burn the budget": (
        Edit(
            RULES,
            "or 0 * namespace_service:http_requests:rate5m\n              ),",
            "* 0\n              ),",
        ),
        "test_rules.test_alerts_pass_their_unit_tests",
    ),
    "staging does not wait": (
        Edit("scripts/deploy-staging.sh", "--detach --wait ", "--detach "),
        "test_deploy_staging.test_a_dry_run_shows_every_step_and_changes_nothing",
    ),
    "staging fails unnoticed": (
        Edit("scripts/deploy-staging.sh", "roll_out || roll_back", "roll_out || true"),
        "test_deploy_staging.test_a_version_that_fails_the_smoke_test_is_rolled_back",
    ),
}


def module_for(file: str) -> str:
    return next(module for folder, module in MODULES.items() if file.startswith(folder))


@pytest.mark.parametrize("edit", (MANIFESTS | FILES).values(), ids=(MANIFESTS | FILES).keys())
def test_a_fault_is_detected(copy, edit):
    with edited(copy, edit), imports_from(copy):
        assert any(faults(module_for(edit.file)))


@pytest.mark.parametrize("module", MODULES.values())
def test_an_unchanged_copy_has_no_faults(copy, module):
    with imports_from(copy):
        assert list(faults(module)) == []


@pytest.mark.parametrize(("edit", "guard"), SCRIPTS.values(), ids=SCRIPTS.keys())
def test_a_fault_of_a_script_or_a_rule_is_detected(copy, first_releases, tmp_path, edit, guard):
    module, _, name = guard.partition(".")
    with edited(copy, edit), imports_from(copy), ExitStack() as stack:
        imported = import_module(f"tests.deployment.{module}")
        given: dict[str, Any]
        if module == "test_deploy_staging":
            given = {"host": imported.Host(tmp_path)}
        elif module == "test_rules":
            [slo] = (path for path in imported.UNIT_TESTS if path.stem == "slo")
            given = {"tmp_path": tmp_path, "unit_test": slo}
        else:
            imported.first_releases.update(first_releases)
            cluster = stack.enter_context(imported.prepared_cluster())
            given = {"cluster": cluster, "operator": imported.Operator(cluster, tmp_path)}
        with pytest.raises(AssertionError):
            getattr(imported, name)(**given)
