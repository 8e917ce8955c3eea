"""A Kubernetes API in memory, with the parts that kubectl needs to deploy this service.

The work of controllers and kubelets happens at once: a Deployment gets its ReplicaSet and
pods, a Job ends. `broken_images` never become ready, alone or in one Deployment,
`failing_jobs` fail, named alone or with their image, `endless_jobs` never end, no node has
space for `unschedulable_jobs`, and a Job of `absent_images` waits for them. Reading
`forbidden` resources is rejected, as is writing `rejected` ones, and, outside of dry runs,
`unwritable` ones. `undeletable` ones cannot be deleted.
"""

import base64
import copy
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]

VERSION = "1.32"
KINDS = {
    "v1": {
        "namespaces": "Namespace",
        "configmaps": "ConfigMap",
        "secrets": "Secret",
        "services": "Service",
        "serviceaccounts": "ServiceAccount",
        "pods": "Pod",
        "events": "Event",
        "resourcequotas": "ResourceQuota",
        "limitranges": "LimitRange",
    },
    "apps/v1": {"deployments": "Deployment", "replicasets": "ReplicaSet"},
    "batch/v1": {"jobs": "Job", "cronjobs": "CronJob"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy", "ingresses": "Ingress"},
    "discovery.k8s.io/v1": {"endpointslices": "EndpointSlice"},
    "monitoring.coreos.com/v1": {
        "servicemonitors": "ServiceMonitor",
        "prometheusrules": "PrometheusRule",
    },
}
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
REVISION = "deployment.kubernetes.io/revision"
PATH = re.compile(
    r"/(?:api|apis)/(?P<version>v1|[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+))?"
    r"/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+))?(?:/(?P<part>[a-z]+))?"
)


class Key(NamedTuple):
    resource: str
    namespace: str
    name: str


class Refused(Exception):
    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    dry: bool

    def __str__(self) -> str:
        place = PATH.fullmatch(self.path)
        what = f"{place['resource']}/{place['name'] or ''}".rstrip("/") if place else self.path
        return f"{self.method} {what}"


# The attributes of a Cluster that requests change.
STATE = ("objects", "requests", "edited", "scaled", "_version")


class Cluster:
    def __init__(self) -> None:
        self.objects: dict[Key, Object] = {}
        self.requests: list[Request] = []
        self.edited: set[Key] = set()  # not by an apply
        self.scaled: set[Key] = set()  # an apply has set the number of replicas
        self.broken_images: set[str | tuple[str, str]] = set()
        self.absent_images: set[str] = set()
        self.failing_jobs: set[str | tuple[str, str]] = set()
        self.endless_jobs: set[str] = set()
        self.unschedulable_jobs: set[str] = set()
        self.forbidden: set[str] = set()
        self.rejected: set[str] = set()
        self.unwritable: set[str] = set()
        self.undeletable: set[str] = set()
        self.url = ""
        self.changed = threading.Condition(threading.RLock())
        self._version = 0

    def state(self) -> Object:
        """Return a copy of the objects and the requests."""
        return copy.deepcopy({name: vars(self)[name] for name in STATE})

    def restore(self, state: Object) -> None:
        vars(self).update(copy.deepcopy(state))

    @property
    def changes(self) -> list[str]:
        """Return the requests that made or attempted a change."""
        return [str(seen) for seen in self.requests if seen.method != "GET" and not seen.dry]

    def get(self, resource: str, name: str, namespace: str = "conversation-service") -> Object:
        return self.objects[Key(resource, namespace, name)]

    def find(self, resource: str, namespace: str = "") -> list[Object]:
        return [
            thing
            for key, thing in self.objects.items()
            if key.resource == resource and namespace in ("", key.namespace)
        ]

    def put(self, key: Key, thing: Object) -> Object:
        """Store an object like a server, and run the controllers."""
        former = self.objects.get(key)
        fresh: Object = {
            "apiVersion": version_of(key.resource),
            "kind": kind_of(key.resource),
        } | thing
        fresh["metadata"] = self._metadata(key, fresh, former)
        self.objects[key] = fresh
        if key.resource == "deployments":
            self._roll_out(key, fresh, former)
        elif key.resource == "jobs":
            self._run(key, fresh)
        with self.changed:
            self.changed.notify_all()
        return fresh

    def _metadata(self, key: Key, thing: Object, former: Object | None) -> Object:
        self._version += 1
        known = former["metadata"] if former else {}
        same = former is not None and former.get("spec") == thing.get("spec")
        return {
            "uid": f"uid-{self._version}",
            "creationTimestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **{name: known[name] for name in ("uid", "creationTimestamp") if name in known},
            **thing["metadata"],
            "name": key.name,
            **({"namespace": key.namespace} if key.namespace else {}),
            "generation": known.get("generation", 0) + (not same),
            "resourceVersion": str(self._version),
        }

    def _roll_out(self, key: Key, deployment: Object, former: Object | None) -> None:
        spec, template = deployment["spec"], deployment["spec"]["template"]
        was = former or {"metadata": {}, "spec": {}}
        wanted = spec.setdefault("replicas", was["spec"].get("replicas", 1))
        revision = int(was["metadata"].get("annotations", {}).get(REVISION, 0))
        if was["spec"].get("template") != template:
            revision += 1
            self._own(
                deployment,
                Key("replicasets", key.namespace, f"{key.name}-{revision}"),
                {
                    "metadata": {
                        "labels": template["metadata"]["labels"],
                        "annotations": {REVISION: str(revision)},
                    },
                    "spec": {"replicas": wanted, "template": copy.deepcopy(template)},
                },
            )
        deployment["metadata"].setdefault("annotations", {})[REVISION] = str(revision)
        image = template["spec"]["containers"][0]["image"]
        broken = bool({image, (key.name, image)} & self.broken_images)
        serving = 0 if broken and not former else wanted
        deployment["status"] = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": serving + broken,
            "updatedReplicas": 1 if broken else wanted,
            "readyReplicas": serving,
            "availableReplicas": serving,
            "unavailableReplicas": int(broken),
        }
        self._count_available(key, deployment, revision, broken=broken)
        self._pods(key, deployment, f"{key.name}-{revision}", broken=broken)

    def _count_available(
        self, key: Key, deployment: Object, revision: int, *, broken: bool
    ) -> None:
        """Give the available replicas to the newest ReplicaSet, unless its image is broken."""
        for replica_set in self.find("replicasets", key.namespace):
            if owner(replica_set) != key.name:
                continue
            newest = replica_set["metadata"]["annotations"][REVISION] == str(revision)
            if newest and not broken:
                replica_set["status"] = {"availableReplicas": deployment["spec"]["replicas"]}
            elif newest or not broken:
                replica_set["status"] = {}

    def _pods(self, key: Key, deployment: Object, prefix: str, *, broken: bool) -> None:
        """Replace the pods of a Deployment; pods of broken images join the previous ones."""
        former = [pod for pod in self.find("pods", key.namespace) if owner(pod) == key.name]
        for pod in former:
            if not broken or not ready(pod):
                del self.objects[Key("pods", key.namespace, pod["metadata"]["name"])]
        for number in range(1 if broken else deployment["spec"]["replicas"]):
            template = copy.deepcopy(deployment["spec"]["template"])
            state = {"waiting": {"reason": "ImagePullBackOff"}} if broken else {"running": {}}
            statuses = [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "imageID": container["image"],
                    "ready": not broken,
                    "restartCount": 0,
                    "state": state,
                }
                for container in template["spec"]["containers"]
            ]
            self._own(
                deployment,
                Key("pods", key.namespace, f"{prefix}-{number}"),
                {
                    "metadata": {"labels": template["metadata"]["labels"]},
                    "spec": template["spec"],
                    "status": {
                        "phase": "Pending" if broken else "Running",
                        "conditions": [{"type": "Ready", "status": str(not broken)}],
                        "containerStatuses": statuses,
                    },
                },
            )

    def _run(self, key: Key, job: Object) -> None:
        template = copy.deepcopy(job["spec"]["template"])
        labels = {
            "batch.kubernetes.io/controller-uid": job["metadata"]["uid"],
            "batch.kubernetes.io/job-name": key.name,
        }
        job["spec"]["selector"] = {"matchLabels": labels}
        image = template["spec"]["containers"][0]["image"]
        if image in self.absent_images:
            job["status"], pod = {"active": 1}, waiting("ImagePullBackOff")
        elif key.name in self.unschedulable_jobs:
            job["status"], pod = {"active": 1}, unschedulable("3 Insufficient cpu.")
        elif key.name in self.endless_jobs:
            job["status"], pod = {"active": 1}, running()
        elif {key.name, (key.name, image)} & self.failing_jobs:
            job["status"], pod = ended("Failed"), {"phase": "Failed"}
        else:
            job["status"], pod = ended("Complete"), {"phase": "Succeeded"}
        self._own(
            job,
            Key("pods", key.namespace, f"{key.name}-0"),
            {
                "metadata": {"labels": template["metadata"].get("labels", {}) | labels},
                "spec": template["spec"],
                "status": pod,
            },
        )

    def _own(self, parent: Object, key: Key, thing: Object) -> None:
        thing["metadata"]["ownerReferences"] = [
            {
                "apiVersion": parent["apiVersion"],
                "kind": parent["kind"],
                "name": parent["metadata"]["name"],
                "uid": parent["metadata"]["uid"],
                "controller": True,
            }
        ]
        self.put(key, thing)


def ended(how: str) -> Object:
    return {"conditions": [{"type": how, "status": "True"}]}


def waiting(reason: str) -> Object:
    return {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": reason}}}]}


def running() -> Object:
    state = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    return {"phase": "Running", "containerStatuses": [{"state": state}]}


def unschedulable(message: str) -> Object:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    return {"phase": "Pending", "conditions": [condition | {"message": message}]}


def version_of(resource: str) -> str:
    return next(version for version, kinds in KINDS.items() if resource in kinds)


def kind_of(resource: str) -> str:
    return KINDS[version_of(resource)][resource]


def owner(thing: Object) -> str:
    return next((ref["name"] for ref in thing["metadata"].get("ownerReferences", [])), "")


def ready(pod: Object) -> bool:
    return {"type": "Ready", "status": "True"} in pod.get("status", {}).get("conditions", [])


@contextmanager
def serving() -> Iterator[Cluster]:
    """Serve a new cluster on a free port of this machine, with its address in `url`."""
    cluster = Cluster()

    handler = type("Handler", (Api,), {"cluster": cluster})
    with Server(("127.0.0.1", 0), handler) as server:
        cluster.url = "http://{}:{}".format(*server.server_address)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield cluster
        finally:
            server.shutdown()


class Server(ThreadingHTTPServer):
    request_queue_size = 64  # kubectl requests all groups of resources at once


class Api(BaseHTTPRequestHandler):
    cluster: Cluster
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (BrokenPipeError, ConnectionResetError):  # kubectl has disconnected
            self.close_connection = True

    def do_GET(self) -> None:
        self._respond(self._read)

    def do_POST(self) -> None:
        self._respond(self._create)

    def do_PATCH(self) -> None:
        self._respond(self._patch)

    def do_DELETE(self) -> None:
        self._respond(self._delete)

    def _respond(self, action: Any) -> None:
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.resource_path = url.path.rstrip("/")
        length = int(self.headers.get("Content-Length", 0))
        self.body = json.loads(self.rfile.read(length)) if length else {}
        self.cluster.requests.append(
            Request(self.command, self.resource_path, "dryRun" in self.query)
        )
        try:
            with self.cluster.changed:
                found = action()
        except Refused as error:
            self._send(
                {
                    "kind": "Status",
                    "apiVersion": "v1",
                    "status": "Failure",
                    "code": error.code,
                    "reason": error.reason,
                    "message": error.message,
                },
                error.code,
            )
        else:
            if found is not None:
                self._send(found)

    def _send(self, response: Object | str, code: int = 200) -> None:
        text = response if isinstance(response, str) else json.dumps(response)
        self.send_response(code)
        kind = "text/plain" if isinstance(response, str) else "application/json"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def _place(self) -> re.Match[str]:
        place = PATH.fullmatch(self.resource_path)
        if not place or place["resource"] not in KINDS.get(place["version"], {}):
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        return place

    def _key(self) -> Key:
        place = self._place()
        name = place["name"] or self.body["metadata"]["name"]
        return Key(place["resource"], place["namespace"] or "", name)

    def _existing(self, key: Key) -> Object:
        if key not in self.cluster.objects:
            raise Refused(404, "NotFound", f'{key.resource} "{key.name}" not found')
        return self.cluster.objects[key]

    def _read(self) -> Object | str | None:
        if self.resource_path in DESCRIBED:
            return DESCRIBED[self.resource_path]
        place = self._place()
        if place["resource"] in self.cluster.forbidden:
            raise Refused(403, "Forbidden", f"{place['resource']} is forbidden")
        if place["part"] == "exec":
            self._exec()
            return None
        if place["part"] == "log":
            event = {
                "@timestamp": "now",
                "log.level": "info",
                "message": f"the log of {place['name']}",
            }
            return json.dumps(event, separators=(",", ":")) + "\n"
        if place["name"]:
            return self._existing(self._key())
        if self.query.get("watch"):
            self._watch(place)
            return None
        return {
            "apiVersion": place["version"],
            "kind": kind_of(place["resource"]) + "List",
            "metadata": {"resourceVersion": str(self.cluster._version)},
            "items": self._matching(place),
        }

    def _matching(self, place: re.Match[str]) -> list[Object]:
        labels = conditions(self.query.get("labelSelector", ""))
        fields = conditions(self.query.get("fieldSelector", ""))
        return [
            thing
            for thing in self.cluster.find(place["resource"], place["namespace"] or "")
            if labels.items() <= thing["metadata"].get("labels", {}).items()
            and fields.get("metadata.name") in (None, thing["metadata"]["name"])
        ]

    def _watch(self, place: re.Match[str]) -> None:
        """Send every change since a version, until the client disconnects."""
        seen = int(self.query.get("resourceVersion") or 0)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        ends = time.monotonic() + float(self.query.get("timeoutSeconds", 60))
        while time.monotonic() < ends:
            news = [
                thing
                for thing in self._matching(place)
                if int(thing["metadata"]["resourceVersion"]) > seen
            ]
            if not news:
                self.cluster.changed.wait(0.2)
            for thing in news:
                seen = max(seen, int(thing["metadata"]["resourceVersion"]))
                event = {"type": "MODIFIED", "object": thing}
                self.wfile.write(json.dumps(event).encode() + b"\n")
            self.wfile.flush()

    def _exec(self) -> None:
        """Respond to `kubectl exec` over a WebSocket: one line of output, and success."""
        nonce = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(nonce.encode()).digest()).decode()  # noqa: S324
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept)
        self.send_header(
            "Sec-WebSocket-Protocol", self.headers["Sec-WebSocket-Protocol"].split(",")[0]
        )
        self.end_headers()
        for channel, text in [(1, "200 ready\n"), (3, json.dumps({"status": "Success"}))]:
            frame = bytes([channel]) + text.encode()
            self.wfile.write(bytes([0x82, len(frame)]) + frame)
        self.wfile.write(b"\x88\x02\x03\xe8")  # closed, normally
        self.close_connection = True

    def _create(self) -> Object:
        key = self._key()
        if key in self.cluster.objects:
            raise Refused(409, "AlreadyExists", f'{key.resource} "{key.name}" already exists')
        return self._write(key, self.body)

    def _patch(self) -> Object:
        key = self._key()
        if "apply-patch" in self.headers["Content-Type"]:
            if key in self.cluster.edited and self.query.get("force") != "true":
                raise Refused(409, "Conflict", "Apply failed with 1 conflict: kubectl edited it")
            return self._write(key, self._with_default_replicas(key))
        self.cluster.edited.add(key)
        changed = copy.deepcopy(self._existing(key))
        for step in self.body:
            *parents, last = step["path"].strip("/").split("/")
            target = changed
            for parent in parents:
                target = target[parent]
            target[last] = step["value"]
        return self._write(key, changed)

    def _with_default_replicas(self, key: Key) -> Object:
        """Return the body. A field that an apply has set and now omits gets its default."""
        if "replicas" in self.body.get("spec", {}):
            self.cluster.scaled.add(key)
        elif key in self.cluster.scaled:
            return self.body | {"spec": self.body["spec"] | {"replicas": 1}}
        return self.body

    def _write(self, key: Key, thing: Object) -> Object:
        former = self.cluster.objects.get(key)
        dry = "dryRun" in self.query
        if key.resource in self.cluster.rejected or (
            key.resource in self.cluster.unwritable and not dry
        ):
            raise Refused(403, "Forbidden", f"admission webhook denied {key.resource}")
        if key.namespace and Key("namespaces", "", key.namespace) not in self.cluster.objects:
            raise Refused(404, "NotFound", f'namespaces "{key.namespace}" not found')
        if (
            key.resource == "jobs"
            and former
            and former["spec"]["template"] != thing["spec"]["template"]
        ):
            raise Refused(422, "Invalid", f'Job "{key.name}" is invalid: field is immutable')
        if dry:
            return thing
        return self.cluster.put(key, copy.deepcopy(thing))

    def _delete(self) -> Object:
        key = self._key()
        self._existing(key)
        if key.resource in self.cluster.undeletable:
            raise Refused(403, "Forbidden", f"{key.resource} cannot be deleted")
        for child, thing in list(self.cluster.objects.items()):
            if child.namespace == key.namespace and owner(thing) == key.name:
                del self.cluster.objects[child]
        return self.cluster.objects.pop(key)


def conditions(selector: str) -> dict[str, str]:
    pairs = [part.replace("==", "=").split("=", 1) for part in selector.split(",") if "=" in part]
    return dict(pairs)


def group(group_version: str) -> Object:
    name, _, version = group_version.rpartition("/")
    named = {"groupVersion": group_version, "version": version}
    return {"name": name, "versions": [named], "preferredVersion": named}


def resources(group_version: str) -> Object:
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": [
            {
                "name": plural,
                "singularName": kind.lower(),
                "namespaced": plural != "namespaces",
                "kind": kind,
                "verbs": VERBS,
            }
            for plural, kind in KINDS[group_version].items()
        ],
    }


def schema(root: str, group_version: str) -> Object:
    """Return the part of OpenAPI that shows kubectl that dry runs of patches are supported."""
    name, _, version = group_version.rpartition("/")
    query = [{"name": name, "in": "query"} for name in ("dryRun", "fieldValidation")]
    paths = {}
    for plural, kind in KINDS[group_version].items():
        scope = "" if plural == "namespaces" else "/namespaces/{namespace}"
        paths[f"{root}{scope}/{plural}/{{name}}"] = {
            "patch": {
                "parameters": query,
                "x-kubernetes-action": "patch",
                "x-kubernetes-group-version-kind": {
                    "group": name,
                    "version": version,
                    "kind": kind,
                },
                "responses": {"200": {"description": "OK"}},
            }
        }
    return {"openapi": "3.0.0", "info": {"title": "in memory", "version": VERSION}, "paths": paths}


ROOTS = {f"/apis/{version}" if "/" in version else "/api/v1": version for version in KINDS}
# Discovery documents of the server.
DESCRIBED: dict[str, Object] = {
    "/version": {"major": "1", "minor": VERSION.split(".")[1], "gitVersion": f"v{VERSION}.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [group(version) for version in KINDS if "/" in version],
    },
    "/openapi/v3": {"paths": {at[1:]: {"serverRelativeURL": f"/openapi/v3{at}"} for at in ROOTS}},
    **{at: resources(version) for at, version in ROOTS.items()},
    **{f"/openapi/v3{at}": schema(at, version) for at, version in ROOTS.items()},
}
