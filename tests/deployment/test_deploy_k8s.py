"""scripts/deploy-k8s.sh and diagnose.sh, with the real kubectl, against an API server in memory."""

import copy
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.config.processes import environment, eventually
from tests.deployment.api_server import DESCRIBED, PATH, Cluster, Key, serving
from tests.deployment.manifests import NO_GC

pytestmark = pytest.mark.deployment

ROOT = Path(__file__).resolve().parents[2]
NAME = "conversation-service"
WORKERS = (f"{NAME}-events", f"{NAME}-webhooks")
SMOKE, RELEASE = f"{NAME}-smoke", f"{NAME}-release"
SECRET = Key("secrets", NAME, "conversation-service-secrets")
REPOSITORY = "registry.company.com/conversation-service"
FORMER, NEW = (f"{REPOSITORY}@sha256:{digit * 64}" for digit in "12")
HIDDEN = "aGlkZGVu"  # "hidden"
SECRET_KEYS = ("SECRET_KEY", "JWT_SECRET_KEY", "MONGODB_URL", "REDIS_URL")
# The state of a cluster after its first release, by the image.
first_releases: dict[str, dict[str, Any]] = {}


class Operator:
    """The operator of the scripts, with a terminal and a kubeconfig for one cluster."""

    def __init__(self, cluster: Cluster, home: Path) -> None:
        self.cluster = cluster
        self._home = home
        config = home / "kubeconfig"
        config.write_text(json.dumps(kubeconfig(cluster.url)))
        path = f"{ROOT / '.tools' / 'bin'}:{environment()['PATH']}"
        self._environment = {"HOME": str(home), "KUBECONFIG": str(config), "PATH": path} | NO_GC

    def run(self, script: str, *options: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [ROOT / "scripts" / script, *options],
            env=self._environment,
            cwd=self._home,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def deploy(self, image: str, *options: str) -> subprocess.CompletedProcess:
        """Release to staging; arguments of a test override the defaults."""
        chosen = ("--context", "staging", "--environment", "staging", "--timeout", "20")
        self.cluster.requests.clear()
        return self.run("deploy-k8s.sh", *chosen, "--image", image, *options)

    @contextmanager
    def deploying(self, image: str, *options: str) -> Iterator[subprocess.Popen]:
        """Start a release to staging, to be interrupted by the test."""
        command = ["--context", "staging", "--environment", "staging", "--image", image]
        process = subprocess.Popen(
            # A background process of a shell ignores SIGINT.
            [
                "/usr/bin/env",
                "--default-signal=INT",
                ROOT / "scripts/deploy-k8s.sh",
                *command,
                *options,
            ],
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.terminate()  # kill() would leave the running stage
            process.communicate()

    def has_deployed(self, image: str) -> None:
        """Release an image. A first release takes 4 s of CPU time, and is made once."""
        if self.cluster.find("deployments"):
            self._succeed(image)
        elif image in first_releases:
            self.cluster.restore(first_releases[image])
        else:
            self._succeed(image)
            first_releases[image] = self.cluster.state()

    def _succeed(self, image: str) -> None:
        done = self.deploy(image)
        assert done.returncode == 0, done.stdout + done.stderr


def kubeconfig(url: str) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "staging", "cluster": {"server": url}}],
        "users": [{"name": "operator", "user": {}}],
        "contexts": [{"name": "staging", "context": {"cluster": "staging", "user": "operator"}}],
    }


@contextmanager
def prepared_cluster() -> Iterator[Cluster]:
    """Serve a cluster with a namespace and the Secret."""
    with serving() as cluster:
        labels = {"environment": "staging"}
        cluster.put(Key("namespaces", "", NAME), {"metadata": {"labels": labels}})
        cluster.put(SECRET, {"metadata": {}, "data": dict.fromkeys(SECRET_KEYS, HIDDEN)})
        yield cluster


@pytest.fixture
def cluster():
    with prepared_cluster() as cluster:
        yield cluster


@pytest.fixture
def operator(cluster, tmp_path):
    return Operator(cluster, tmp_path)


def image_of(thing: dict) -> str:
    return thing["spec"]["template"]["spec"]["containers"][0]["image"]


def serving_image(cluster: Cluster) -> str:
    return image_of(cluster.get("deployments", NAME))


def test_a_first_release_prepares_rolls_out_and_runs_the_smoke_test(operator, cluster):
    done = operator.deploy(FORMER)

    assert done.returncode == 0, done.stderr
    order = [
        "PATCH namespaces/conversation-service",
        "POST jobs",
        "PATCH deployments/conversation-service",
        "POST jobs",
        "PATCH cronjobs/purge-trash",
    ]
    assert [change for change in cluster.changes if change in order] == order
    assert serving_image(cluster) == FORMER
    assert {key.name for key in cluster.objects if key.resource == "jobs"} == {
        "conversation-service-release",
        "conversation-service-smoke",
    }
    assert "\nthe log of conversation-service-smoke-0\n" in done.stdout


def test_the_secret_is_read_first_and_never_written(operator, cluster):
    before = json.dumps(cluster.objects[SECRET])

    done = operator.deploy(FORMER)

    assert done.returncode == 0, done.stderr
    requests = [str(request) for request in cluster.requests]
    first_change = next(at for at, seen in enumerate(cluster.requests) if seen.method != "GET")
    assert requests.index(f"GET secrets/{SECRET.name}") < first_change
    assert json.dumps(cluster.objects[SECRET]) == before


def test_every_object_runs_the_requested_image(operator, cluster):
    operator.has_deployed(FORMER)
    operator.has_deployed(NEW)

    jobs = [image_of(job) for job in cluster.find("jobs") + cluster.find("deployments")]
    by_the_clock = [image_of(job["spec"]["jobTemplate"]) for job in cluster.find("cronjobs")]
    assert {serving_image(cluster), *jobs, *by_the_clock} == {NEW}


def test_the_smoke_test_runs_like_the_pods_and_calls_the_service(operator, cluster):
    operator.has_deployed(FORMER)

    pod = cluster.get("jobs", "conversation-service-smoke")["spec"]["template"]["spec"]
    model = cluster.get("deployments", NAME)["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["command"] == [
        *("python", "manage.py", "smoke_test"),
        "--base-url=http://conversation-service:8003",
        "--environment=staging",
        "--character=luna",
        *("--metrics", "--internal"),
    ]
    assert pod["securityContext"] == model["securityContext"]
    assert container["envFrom"] == model["containers"][0]["envFrom"]
    assert "initContainers" not in pod


def test_with_public_keys_the_smoke_test_sends_a_token_from_a_secret(operator, cluster):
    done = operator.deploy(NEW, "--token-secret", "smoke-token")

    assert done.returncode == 0, done.stdout + done.stderr
    pod = cluster.get("jobs", "conversation-service-smoke")["spec"]["template"]["spec"]
    command, mounts = (pod["containers"][0][name] for name in ("command", "volumeMounts"))
    assert command[-2:] == ["--metrics", "--token=@/run/secrets/smoke/token"]
    assert pod["volumes"][-1]["secret"]["secretName"] == "smoke-token"
    assert mounts[-1]["name"] == pod["volumes"][-1]["name"]
    assert mounts[-1]["mountPath"] == "/run/secrets/smoke"


def test_a_second_release_recreates_its_jobs(operator, cluster):
    operator.has_deployed(FORMER)

    done = operator.deploy(NEW)

    assert done.returncode == 0, done.stderr
    assert "DELETE jobs/conversation-service-release" in cluster.changes
    assert serving_image(cluster) == NEW


def test_a_version_that_never_becomes_ready_is_rolled_back(operator, cluster):
    operator.has_deployed(FORMER)
    cluster.broken_images.add(NEW)

    done = operator.deploy(NEW, "--timeout", "3")

    assert done.returncode == 5
    assert "migrations only go forward" in done.stdout
    assert "revision 1 serves again" in done.stderr
    assert serving_image(cluster) == FORMER
    assert "PATCH cronjobs/purge-trash" not in cluster.changes


def test_every_deployment_is_rolled_back_if_a_worker_never_becomes_ready(operator, cluster):
    operator.has_deployed(FORMER)
    before = applied(cluster)
    for worker in WORKERS:
        cluster.broken_images = {(worker, NEW)}

        done = operator.deploy(NEW, "--timeout", "3")

        assert done.returncode == 5, done.stderr
        assert applied(cluster) == before


def test_a_previous_worker_that_does_not_become_ready_again_is_reported(operator, cluster):
    operator.has_deployed(FORMER)
    cluster.failing_jobs.add((SMOKE, NEW))
    cluster.broken_images.add((WORKERS[0], FORMER))

    done = operator.deploy(NEW, "--timeout", "3")

    assert done.returncode == 6
    assert "revision 1 does not become ready either" in done.stderr


def test_a_failed_release_keeps_the_number_of_workers(operator, cluster):
    operator.has_deployed(FORMER)
    cluster.failing_jobs.add((SMOKE, NEW))

    assert operator.deploy(NEW).returncode == 5

    assert {cluster.get("deployments", worker)["spec"]["replicas"] for worker in WORKERS} == {2}


def test_a_failed_release_deletes_deployments_that_the_former_one_did_not_have(operator, cluster):
    operator.has_deployed(FORMER)
    for worker in WORKERS:
        for key in [key for key in cluster.objects if key.name.startswith(worker)]:
            del cluster.objects[key]
    before = applied(cluster)
    cluster.failing_jobs.add((SMOKE, NEW))

    done = operator.deploy(NEW)

    assert done.returncode == 5, done.stderr
    assert applied(cluster) == before


def test_each_deployment_keeps_the_revision_that_serves(operator, cluster):
    """Each Deployment counts its own revisions."""
    operator.has_deployed(FORMER)
    for image in (NEW, FORMER):
        deployment = copy.deepcopy(cluster.get("deployments", WORKERS[0]))
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = image
        cluster.put(Key("deployments", NAME, WORKERS[0]), deployment)
    before = applied(cluster)
    cluster.failing_jobs.add((SMOKE, NEW))

    done = operator.deploy(NEW)

    assert done.returncode == 5, done.stderr
    assert applied(cluster) == before


def test_a_version_that_fails_the_smoke_test_is_rolled_back_and_the_previous_one_tested(
    operator, cluster
):
    operator.has_deployed(FORMER)
    cluster.failing_jobs.add((SMOKE, NEW))

    done = operator.deploy(NEW)

    assert done.returncode == 5, done.stderr
    assert f"the log of {SMOKE}-0" in done.stdout
    assert serving_image(cluster) == FORMER
    assert image_of(cluster.get("jobs", SMOKE)) == FORMER
    assert cluster.changes.count("POST jobs") == 3  # release, smoke, smoke of the previous version
    assert {image_of(job["spec"]["jobTemplate"]) for job in cluster.find("cronjobs")} == {FORMER}


def test_a_previous_version_that_fails_the_smoke_test_is_reported(operator, cluster):
    operator.has_deployed(FORMER)
    cluster.failing_jobs.add(SMOKE)

    done = operator.deploy(NEW)

    assert done.returncode == 6
    assert "revision 1 is restored but fails the smoke test too" in done.stderr
    assert serving_image(cluster) == FORMER


def test_a_previous_version_that_does_not_become_ready_again_is_reported(operator, cluster):
    operator.has_deployed(FORMER)
    cluster.failing_jobs.add((SMOKE, NEW))
    cluster.broken_images.add(FORMER)

    done = operator.deploy(NEW, "--timeout", "3")

    assert done.returncode == 6
    assert "revision 1 does not become ready either" in done.stderr


def test_scheduled_jobs_that_cannot_be_updated_are_reported(operator, cluster):
    operator.has_deployed(FORMER)
    cluster.unwritable.add("cronjobs")

    done = operator.deploy(NEW)

    assert done.returncode == 6
    assert "its CronJobs may be the former ones" in done.stderr
    assert serving_image(cluster) == NEW


def test_a_release_that_the_server_rejects_changes_nothing(operator, cluster):
    cluster.rejected.add("cronjobs")

    done = operator.deploy(NEW)

    assert done.returncode == 3
    assert "does not accept the manifests" in done.stderr
    assert cluster.changes == []


APPLIED = {
    *("namespaces", "serviceaccounts", "configmaps", "networkpolicies", "deployments", "services"),
    *("horizontalpodautoscalers", "poddisruptionbudgets", "servicemonitors", "prometheusrules"),
}


def applied(cluster: Cluster) -> dict[Key, dict]:
    """Return the objects of a release, without fields that only the server sets."""
    return {
        key: {
            "labels": thing["metadata"].get("labels"),
            **{part: thing[part] for part in thing if part not in ("metadata", "status")},
        }
        for key, thing in copy.deepcopy(cluster.objects).items()
        if key.resource in APPLIED
    }


def differ_from_the_manifests(cluster: Cluster) -> None:
    """Change every kind of object, as if the previous release had other manifests."""
    cluster.get("services", NAME)["spec"]["ports"][0]["targetPort"] = 1234
    cluster.get("horizontalpodautoscalers", NAME)["spec"]["minReplicas"] = 7
    cluster.get("poddisruptionbudgets", NAME)["spec"]["maxUnavailable"] = 2
    for deployment in cluster.find("deployments"):
        deployment["spec"] |= {"minReadySeconds": 3, "replicas": 5}
    cluster.get("namespaces", NAME, "")["metadata"]["labels"]["former"] = "yes"
    for resource in ("networkpolicies", "servicemonitors", "prometheusrules"):
        for thing in cluster.find(resource):
            thing["spec"]["former"] = True
    for thing in cluster.find("configmaps"):
        thing["data"]["FORMER"] = "yes"
    del cluster.objects[next(key for key in cluster.objects if key.resource == "networkpolicies")]


@pytest.mark.parametrize(
    ("job", "code"), [(RELEASE, 4), (SMOKE, 5)], ids=["release job fails", "smoke test fails"]
)
def test_a_failed_release_restores_every_object_and_deletes_new_ones(operator, cluster, job, code):
    operator.has_deployed(FORMER)
    differ_from_the_manifests(cluster)
    before = applied(cluster)
    cluster.failing_jobs.add((job, NEW))

    done = operator.deploy(NEW)

    assert done.returncode == code, done.stderr
    assert applied(cluster) == before


def test_a_first_release_that_fails_leaves_nothing_behind(operator, cluster):
    cluster.failing_jobs.add(SMOKE)

    done = operator.deploy(NEW)

    assert done.returncode == 6
    assert "there is no former version" in done.stderr
    assert {key.resource for key in applied(cluster)} == {"namespaces"}
    assert SECRET in cluster.objects


PRUNED = [
    *("cronjobs", "networkpolicies", "services", "horizontalpodautoscalers"),
    *("poddisruptionbudgets", "serviceaccounts", "servicemonitors", "prometheusrules"),
]


def have_other_names(cluster: Cluster) -> set[Key]:
    """Add a copy of an object of each kind, as if the manifests had renamed it."""
    removed = set()
    for resource in PRUNED:
        thing = copy.deepcopy(cluster.find(resource)[0])
        key = Key(resource, NAME, "removed")
        cluster.put(key, thing | {"metadata": thing["metadata"] | {"name": "removed"}})
        removed.add(key)
    return removed


def test_objects_that_the_manifests_no_longer_contain_are_deleted(operator, cluster):
    operator.has_deployed(FORMER)
    before = {key for key in cluster.objects if key.resource != "pods"}
    removed = have_other_names(cluster)
    own = Key("networkpolicies", NAME, "of-the-operator")
    labels = {"app.kubernetes.io/name": NAME}
    cluster.put(own, {"metadata": {"labels": labels}, "spec": {"podSelector": {}}})

    shown = operator.deploy(NEW, "--dry-run", "--diff")
    assert removed <= set(cluster.objects)
    done = operator.deploy(NEW)

    assert done.returncode == 0, done.stderr
    assert not removed & set(cluster.objects)
    assert before | {own} <= set(cluster.objects)
    deletions = [change for change in cluster.changes if change.startswith("DELETE")]
    assert len(deletions) == len(removed) + 2  # and two jobs, before they are created again
    assert cluster.changes.index("POST jobs") < cluster.changes.index(deletions[-1])
    assert "Will be deleted: " in shown.stdout
    assert shown.stdout.count("cronjob.batch/removed") == 2  # in the differences, and the command


def test_the_configuration_stays_as_long_as_a_revision_needs_it(operator, cluster):
    operator.has_deployed(FORMER)
    used = next(key for key in cluster.objects if "-config-" in key.name)
    thing = copy.deepcopy(cluster.objects[used])
    unused = Key("configmaps", NAME, f"{NAME}-config-unused")
    for key in (unused, used._replace(name=f"{NAME}-config-former")):
        cluster.put(key, thing | {"metadata": thing["metadata"] | {"name": key.name}})
    [container] = cluster.find("replicasets")[0]["spec"]["template"]["spec"]["containers"]
    container["envFrom"] = [{"configMapRef": {"name": f"{NAME}-config-former"}}]

    operator.has_deployed(NEW)

    names = {key.name for key in cluster.objects if "-config-" in key.name}
    assert names == {used.name, f"{NAME}-config-former"}


def test_a_failed_release_deletes_no_object_of_former_releases(operator, cluster):
    operator.has_deployed(FORMER)
    removed = have_other_names(cluster)
    cluster.failing_jobs.add((SMOKE, NEW))

    assert operator.deploy(NEW).returncode == 5
    assert removed <= set(cluster.objects)


def test_a_former_object_that_cannot_be_deleted_is_reported(operator, cluster):
    operator.has_deployed(FORMER)
    have_other_names(cluster)
    cluster.undeletable.add("cronjobs")

    done = operator.deploy(NEW)

    assert done.returncode == 6
    assert "no longer contain may still exist" in done.stderr
    assert serving_image(cluster) == NEW


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    ("job", "reached", "code"),
    [(RELEASE, "POST jobs", 4), (SMOKE, f"PATCH services/{NAME}", 5)],
    ids=["preparing", "rolling out"],
)
def test_an_interrupted_release_restores_every_object(
    operator, cluster, number, job, reached, code
):
    operator.has_deployed(FORMER)
    differ_from_the_manifests(cluster)
    before = applied(cluster)
    cluster.requests.clear()
    if job == RELEASE:
        cluster.endless_jobs.add(RELEASE)
    else:
        cluster.broken_images.add(NEW)

    with operator.deploying(NEW) as process:
        eventually(lambda: reached in cluster.changes)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)

    assert process.returncode == code, errors
    assert applied(cluster) == before
    assert Key("jobs", NAME, RELEASE) not in cluster.objects or code == 5


@pytest.mark.parametrize("resource", ["networkpolicies", "services", "deployments"])
def test_a_release_that_cannot_save_the_previous_state_changes_nothing(operator, cluster, resource):
    operator.has_deployed(FORMER)
    cluster.forbidden.add(resource)

    done = operator.deploy(NEW)

    assert done.returncode == 3
    assert cluster.changes == []


def test_a_release_that_never_served_is_not_restored(operator, cluster):
    operator.has_deployed(FORMER)
    cluster.broken_images.add(NEW)
    deployment = copy.deepcopy(cluster.get("deployments", NAME))
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = NEW
    cluster.put(Key("deployments", NAME, NAME), deployment)

    done = operator.deploy(NEW, "--timeout", "3")

    assert done.returncode == 5, done.stderr
    assert "revision 1 serves again" in done.stderr
    assert serving_image(cluster) == FORMER


def test_a_pod_of_a_deleted_job_does_not_count(operator, cluster):
    operator.has_deployed(FORMER)
    cluster.put(
        Key("pods", NAME, f"{RELEASE}-terminating"),
        {
            "metadata": {
                "labels": {
                    "batch.kubernetes.io/job-name": RELEASE,
                    "batch.kubernetes.io/controller-uid": "deleted",
                }
            },
            "status": {
                "containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]
            },
        },
    )
    cluster.endless_jobs.add(RELEASE)

    with operator.deploying(NEW) as process:
        eventually(lambda: str(cluster.requests[-1]).startswith("GET pods"))
        job = cluster.get("jobs", RELEASE)
        job["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
        process.communicate(timeout=120)

    assert process.returncode == 0


@pytest.mark.parametrize("job", [RELEASE, SMOKE])
def test_a_job_without_a_node_says_so_and_ends_after_the_timeout(operator, cluster, job):
    operator.has_deployed(FORMER)
    cluster.unschedulable_jobs.add(job)

    done = operator.deploy(NEW, "--timeout", "3")

    assert done.returncode == {RELEASE: 4, SMOKE: 6}[job]
    assert f"job/{job} cannot be scheduled: 3 Insufficient cpu." in done.stdout
    assert f"job/{job} has not started within 3 s" in done.stdout
    assert Key("jobs", NAME, job) not in cluster.objects
    assert serving_image(cluster) == FORMER


def test_a_job_that_has_started_may_exceed_the_timeout(operator, cluster):
    operator.has_deployed(FORMER)
    cluster.endless_jobs.add(RELEASE)

    with operator.deploying(NEW, "--timeout", "1") as process:
        eventually(lambda: len([r for r in cluster.requests if str(r) == "GET pods"]) > 3)
        job = cluster.get("jobs", RELEASE)
        job["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
        process.communicate(timeout=120)

    assert process.returncode == 0


@pytest.fixture
def use_components(monkeypatch, tmp_path):
    """Return a function that lets deployments use an overlay with these components only."""

    def use(*names: str) -> None:
        folder = tmp_path / "repository"
        for part in ("k8s", "scripts"):
            shutil.copytree(ROOT / part, folder / part)
        overlay = folder / "k8s/overlays/staging/kustomization.yaml"
        components = ", ".join(f"../../components/{name}" for name in names)
        text = overlay.read_text().replace("../../components/monitoring", components)
        overlay.write_text(text)
        monkeypatch.setitem(globals(), "ROOT", folder)

    return use


def test_a_cluster_needs_neither_redis_nor_the_prometheus_operator(
    operator, cluster, monkeypatch, use_components
):
    groups = [group for group in DESCRIBED["/apis"]["groups"] if "monitoring" not in group["name"]]
    monkeypatch.setitem(DESCRIBED, "/apis", DESCRIBED["/apis"] | {"groups": groups})
    use_components("without-redis")
    del cluster.objects[SECRET]["data"]["REDIS_URL"]

    done = operator.deploy(NEW)

    assert done.returncode == 0, done.stderr


def test_former_keys_must_exist_and_may_be_empty(operator, cluster, use_components):
    use_components("former-keys")
    data = cluster.objects[SECRET]["data"]
    data |= {"SECRET_KEY_FALLBACKS": HIDDEN, "JWT_SECRET_KEY_FALLBACKS": ""}

    assert operator.deploy(NEW, "--dry-run").returncode == 0
    del data["JWT_SECRET_KEY_FALLBACKS"]
    done = operator.deploy(NEW, "--dry-run")

    assert done.returncode == 3
    assert "lacks JWT_SECRET_KEY_FALLBACKS:" in done.stderr


def requested(cluster: Cluster) -> set[tuple[str, str, str]]:
    """Return the verb, the resource and the name, or "", of each request for an object."""
    verbs = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}
    found = set()
    for request in cluster.requests:
        if place := PATH.fullmatch(request.path):
            resource = "/".join(filter(None, [place["resource"], place["part"]]))
            group = place["version"].rpartition("/")[0]
            verb = verbs.get(request.method) or ("get" if place["name"] else "list")
            found.add((verb, f"{resource}.{group}", place["name"] or ""))
    return found


def test_the_example_of_a_role_permits_what_the_scripts_request(operator, cluster):
    needed = set()
    operator.has_deployed(FORMER)
    needed |= requested(cluster)
    have_other_names(cluster)
    assert operator.deploy(NEW, "--diff").returncode == 0
    needed |= requested(cluster)
    differ_from_the_manifests(cluster)
    cluster.failing_jobs.add((SMOKE, FORMER))
    assert operator.deploy(FORMER).returncode == 5
    operator.run("diagnose.sh", "--context", "staging")
    needed |= requested(cluster)
    role, binding = yaml.safe_load_all((ROOT / "k8s/examples/deployer.yaml").read_text())

    def permits(rule: dict, verb: str, resource: str, name: str) -> bool:
        return (
            resource in {f"{each}.{rule['apiGroups'][0]}" for each in rule["resources"]}
            and verb in rule["verbs"]
            and name in rule.get("resourceNames", [name])
        )

    rejected = {
        request for request in needed if not any(permits(rule, *request) for rule in role["rules"])
    }
    # Diagnosis reports these, and continues.
    assert {resource for _, resource, _ in rejected} <= {"pods/exec."}
    written = {resource for verb, resource, _ in needed if verb in ("create", "patch", "delete")}
    granted = {
        f"{resource}.{rule['apiGroups'][0]}"
        for rule in role["rules"]
        if {"create", "patch", "delete"} & set(rule["verbs"])
        for resource in rule["resources"]
    }
    assert granted == written - {"pods/exec."}
    assert binding["roleRef"]["name"] == role["metadata"]["name"]


def test_after_a_rollback_the_next_release_succeeds(operator, cluster):
    operator.has_deployed(FORMER)
    cluster.failing_jobs.add((SMOKE, NEW))
    assert operator.deploy(NEW).returncode == 5
    cluster.failing_jobs.clear()

    assert operator.deploy(NEW).returncode == 0
    assert serving_image(cluster) == NEW


def test_a_failed_first_release_has_no_rollback(operator, cluster):
    cluster.broken_images.add(NEW)

    done = operator.deploy(NEW, "--timeout", "3")

    assert done.returncode == 6
    assert "there is no former version" in done.stderr


def test_a_failed_repeat_of_the_current_release_is_not_rolled_back(operator, cluster):
    operator.has_deployed(FORMER)
    operator.has_deployed(NEW)
    cluster.failing_jobs.add(SMOKE)

    done = operator.deploy(NEW)

    assert done.returncode == 6
    assert "revision 2 is restored but fails the smoke test too" in done.stderr
    assert serving_image(cluster) == NEW


def test_nothing_is_rolled_out_if_the_release_job_fails(operator, cluster):
    operator.has_deployed(FORMER)
    cluster.failing_jobs.add("conversation-service-release")

    done = operator.deploy(NEW)

    assert done.returncode == 4
    assert "the former version still serves" in done.stderr
    assert "the log of conversation-service-release-0" in done.stdout
    assert serving_image(cluster) == FORMER
    assert not [change for change in cluster.changes if "deployments" in change]


def test_an_image_that_cannot_be_pulled_fails_at_once(operator, cluster):
    operator.has_deployed(FORMER)
    cluster.absent_images.add(NEW)

    done = operator.deploy(NEW)

    assert done.returncode == 4
    assert f"cannot pull {NEW}" in done.stdout
    assert Key("jobs", NAME, "conversation-service-release") not in cluster.objects


def test_a_concurrent_release_is_rejected(operator, cluster):
    operator.has_deployed(FORMER)
    cluster.get("jobs", "conversation-service-release")["status"] = {"active": 1}

    done = operator.deploy(NEW)

    assert done.returncode == 3
    assert "another release is running" in done.stderr
    assert cluster.changes == []


@pytest.mark.parametrize("key", SECRET_KEYS)
def test_a_missing_or_empty_secret_stops_it_before_anything_changes(operator, cluster, key):
    cluster.objects[SECRET]["data"][key] = ""
    assert operator.deploy(FORMER).returncode == 3
    del cluster.objects[SECRET]["data"][key]

    done = operator.deploy(FORMER)

    assert done.returncode == 3
    assert f"lacks {key}:" in done.stderr
    assert cluster.changes == []


def test_the_error_for_a_missing_secret_says_how_to_create_it(operator, cluster):
    cluster.objects.clear()

    done = operator.deploy(FORMER)

    assert done.returncode == 3
    assert f"lacks {' '.join(SECRET_KEYS)}" in done.stderr
    assert cluster.changes == []


def test_the_cluster_of_another_environment_is_not_changed(operator, cluster):
    cluster.put(
        Key("namespaces", "", NAME), {"metadata": {"labels": {"environment": "production"}}}
    )

    done = operator.deploy(FORMER)

    assert done.returncode == 3
    assert "is for production, not for staging" in done.stderr
    assert cluster.changes == []


def test_a_namespace_without_an_environment_is_not_changed(operator, cluster):
    cluster.put(Key("namespaces", "", NAME), {"metadata": {}})

    done = operator.deploy(FORMER)

    assert done.returncode == 3
    assert f"label namespace {NAME} environment=staging" in done.stderr
    assert cluster.changes == []


def test_an_unknown_context_is_rejected(operator, cluster):
    done = operator.deploy(FORMER, "--context", "elsewhere")

    assert done.returncode == 3
    assert "knows no context elsewhere" in done.stderr
    assert cluster.requests == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--image", f"{REPOSITORY}:latest"),
        ("--image", f"{REPOSITORY}:1.2.3"),
        ("--image", f"{REPOSITORY}@sha256:12"),
        ("--environment", "nowhere"),
        ("--timeout", "soon"),
        ("--unknown", "option"),
    ],
)
def test_inexact_arguments_are_rejected(operator, cluster, option, value):
    done = operator.deploy(FORMER, option, value)

    assert done.returncode == 2
    assert option in done.stderr
    assert cluster.requests == []


def test_a_context_is_required(operator):
    done = operator.run("deploy-k8s.sh", "--environment", "staging", "--image", NEW)

    assert done.returncode == 2
    assert "--context is missing" in done.stderr


def test_a_dry_run_shows_every_change_and_only_reads(operator, cluster):
    done = operator.deploy(NEW, "--dry-run")

    assert done.returncode == 0, done.stderr
    assert {request.method for request in cluster.requests} == {"GET"}
    shown = [line.split() for line in done.stdout.splitlines() if line.startswith("+ kubectl")]
    assert [line[6] for line in shown] == [
        *("apply", "delete", "create"),
        *("apply", "apply", "rollout", "rollout", "rollout", "delete", "create"),
        "apply",
    ]


def test_a_dry_run_stops_at_the_errors_of_a_release(operator, cluster):
    del cluster.objects[SECRET]

    assert operator.deploy(NEW, "--dry-run").returncode == 3


def test_the_differences_are_shown_and_no_files_are_left(operator, cluster):
    operator.has_deployed(FORMER)

    done = operator.deploy(NEW, "--dry-run", "--diff")

    assert done.returncode == 0, done.stderr
    assert f"+        image: {NEW}" in done.stdout
    assert cluster.changes == []


def test_applied_manifests_are_valid(operator, cluster, tmp_path):
    operator.has_deployed(FORMER)
    sent = [
        json.dumps({name: part for name, part in thing.items() if name != "status"})
        for key, thing in cluster.objects.items()
        if key.resource in {"deployments", "jobs", "cronjobs", "configmaps", "services"}
    ]
    (tmp_path / "sent.yaml").write_text("\n---\n".join(sent))

    check = [ROOT / ".tools/bin/kubernetes-validate", "--strict", "-k", "1.29", "sent.yaml"]
    done = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def test_a_diagnosis_shows_every_section_and_only_reads(operator, cluster):
    operator.has_deployed(FORMER)
    cluster.requests.clear()

    done = operator.run("diagnose.sh", "--context", "staging")

    assert done.returncode == 0, done.stderr
    assert {request.method for request in cluster.requests} == {"GET"}
    sections = [line[4:] for line in done.stdout.splitlines() if line.startswith("--- ")]
    assert sections == [
        "Versions",
        "Rollout",
        "Former revisions",
        "Pods",
        "Logs of what is not ready or has restarted",
        "Events that warn",
        "Endpoints",
        "Autoscaler",
        "Disruption budgets",
        "Jobs",
        "Quotas and limits",
        "Network policies",
        "Use",
        "Ready, from inside",
        "Diagnosis by one pod",
        "Keys in the Secret",
    ]
    assert FORMER in done.stdout


def test_a_diagnosis_shows_why_a_pod_waits_and_its_logs(operator, cluster):
    operator.has_deployed(FORMER)
    cluster.broken_images.add(NEW)
    deployment = copy.deepcopy(cluster.get("deployments", NAME))
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = NEW
    cluster.put(Key("deployments", NAME, NAME), deployment)

    shown = operator.run("diagnose.sh", "--context", "staging").stdout

    assert "ImagePullBackOff" in shown
    assert "the log of conversation-service-2-0" in shown
    assert "the log of conversation-service-1-0" not in shown
    assert "conversation-service-1-0: 200 ready" in shown


def test_a_diagnosis_names_the_secrets_without_their_values(operator):
    shown = operator.run("diagnose.sh", "--context", "staging").stdout

    assert all(key in shown for key in SECRET_KEYS)
    assert "hidden" not in shown
    assert HIDDEN not in shown


def test_a_diagnosis_continues_after_an_unreadable_object(operator):
    shown = operator.run("diagnose.sh", "--context", "staging").stdout

    assert "--- Use\nerror: Metrics API not available\nThis cannot be read.\n" in shown
    assert shown.index("--- Keys in the Secret") > shown.index("This cannot be read.")


@pytest.mark.parametrize("options", [(), ("--context",), ("--context", "elsewhere"), ("--loud",)])
def test_a_diagnosis_requires_a_cluster(operator, cluster, options):
    done = operator.run("diagnose.sh", *options)

    assert done.returncode == 2
    assert done.stderr
    assert cluster.requests == []
