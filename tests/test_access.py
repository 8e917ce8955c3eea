"""Every route with every credential: all others than the permitted ones read and change nothing.

A row of ROUTES names the kind of a route, and the kind gives the outcome of each credential. A
route without a row fails.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.test import Client, override_settings
from django.urls import URLPattern, get_resolver

from conversation_service import clock
from conversation_service.http.exception_handler import not_found
from conversation_service.http.permissions import scopes
from conversations.admin.actions import ACTIONS
from conversations.admin.runs import Run
from conversations.webhooks import endpoints
from tests.conversation_service import loopback
from tests.conversation_service.http.test_jwks import public_jwk
from tests.conversations.test_internal import report
from tests.factories import PATH

ISSUER, AUDIENCE, SECRET = "https://auth", "chat", "secret" * 12
KEY, STRANGE_KEY = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in "ab")
JWK = public_jwk(KEY, kid="k1", alg="RS256", use="sig")
HOUR = 3_600
URL = "https://hooks.example.org/in"
MARKER = "zq-of-alice"  # in every text of Alice


@pytest.fixture(scope="module", autouse=True)
def _issuer_with_secret_and_public_key() -> Iterator[None]:
    keys = loopback.respond(json.dumps({"keys": [JWK]}).encode())
    with (
        loopback.serving(keys) as address,
        override_settings(
            JWT_SECRET_KEY=SECRET,
            JWT_ALGORITHM=["HS256", "RS256"],
            JWT_JWKS_URL=f"http://{address}/access",
            JWT_ISSUER=ISSUER,
            JWT_AUDIENCE=AUDIENCE,
        ),
    ):
        yield


# Tokens


def signed(claims: dict[str, Any], key: Any = None, algorithm: str = "HS256", **header: str) -> str:
    return jwt.encode(claims, key or SECRET, algorithm, header)


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def with_public_key_as_secret(claims: dict[str, Any], secret: bytes) -> str:
    """Return an HS256 token that PyJWT refuses to sign."""
    parts = ({"alg": "HS256", "kid": "k1", "typ": "JWT"}, claims)
    text = ".".join(encoded(json.dumps(part).encode()) for part in parts)
    return f"{text}.{encoded(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def claims_of_user(user_id: str) -> dict[str, Any]:
    return common_claims() | {"user_id": user_id, "sub": user_id, "token_type": "access"}


def claims_of_service(*granted: str) -> dict[str, Any]:
    scope = " ".join(granted)
    return common_claims() | {"sub": "message-service", "token_type": "service", "scope": scope}


def common_claims() -> dict[str, Any]:
    now = int(clock.now().timestamp())
    return {"iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + HOUR}


def rejected_tokens(good: dict[str, Any]) -> dict[str, str]:
    """Return tokens with these claims and one fault each."""
    now, public = good["iat"], KEY.public_key()
    without = {name: {**good} for name in ("exp", "iss", "aud")}
    for name, claims in without.items():
        del claims[name]
    header = encoded(b'{"alg":"none","typ":"JWT"}')
    body = encoded(json.dumps(good).encode())
    pem, der = (
        public.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
        for encoding in (Encoding.PEM, Encoding.DER)
    )
    return {
        "garbage": "garbage",
        "three parts of garbage": "a.b.c",
        "expired": signed(good | {"exp": now - HOUR}),
        "without an end": signed(without["exp"]),
        "not yet valid": signed(good | {"nbf": now + HOUR}),
        "issued in the future": signed(good | {"iat": now + HOUR}),
        "alg none": f"{header}.{body}.",
        "alg none with a signature": f"{header}.{body}.{encoded(b'x' * 32)}",
        "PEM as secret": with_public_key_as_secret(good, pem),
        "PEM without a line end as secret": with_public_key_as_secret(good, pem.strip()),
        "DER as secret": with_public_key_as_secret(good, der),
        "JWK as secret": with_public_key_as_secret(good, json.dumps(JWK).encode()),
        "modulus as secret": with_public_key_as_secret(good, JWK["n"].encode()),
        "other secret": signed(good, "x" * 64),
        "other private key": signed(good, STRANGE_KEY, "RS256", kid="k1"),
        "unknown key id": signed(good, STRANGE_KEY, "RS256", kid="k9"),
        "other algorithm": signed(good, algorithm="HS512"),
        "wrong issuer": signed(good | {"iss": "https://evil"}),
        "without an issuer": signed(without["iss"]),
        "wrong audience": signed(good | {"aud": "other"}),
        "without an audience": signed(without["aud"]),
        "refresh token": signed(good | {"token_type": "refresh"}),
        "refresh token of Keycloak": signed(good | {"typ": "Refresh"}),
        "ID token": signed(good | {"typ": "ID"}),
        "ID token of Cognito": signed(good | {"token_use": "id"}),
        "empty subject": signed(good | {"sub": "", "user_id": ""}),
    }


MISSING, INVALID, EXPIRED = (f"401 AUTH_TOKEN_{code}" for code in ("MISSING", "INVALID", "EXPIRED"))
REJECTED = dict.fromkeys(rejected_tokens(claims_of_user("alice")), INVALID) | {"expired": EXPIRED}

# Accounts of the console, with their permissions

SUPPORT = {"view", "archive", "revert"}
OPERATOR = SUPPORT | {"trash", "hold", "bulk", "export", "webhooks", "webhooks:manage"}
ACCOUNTS: dict[str, set[str] | None] = {
    "anonymous": None,
    "no-staff": None,
    "disabled": None,
    "no-role": set(),
    "support": SUPPORT,
    "operator": OPERATOR,
    "auditor": {"view", "log", "webhooks"},
    "superuser": OPERATOR | {"log", "accounts"},
}


def browsers() -> dict[str, Client]:
    """Return a browser with the session of each account."""
    found = {"anonymous": Client(raise_request_exception=False)}
    for name in ACCOUNTS.keys() - found.keys():
        user, _ = User.objects.get_or_create(username=name)
        user.is_staff, user.is_superuser = name != "no-staff", name == "superuser"
        user.is_active = True
        user.groups.set(Group.objects.filter(name=name))
        found[name] = Client(raise_request_exception=False)
        found[name].force_login(user)
        user.is_active = name != "disabled"
        user.save()
    return found


# The table

ALL: tuple[str, ...] = ()  # needs no permission
Needs = tuple[str, ...] | int  # permissions of the console, or the status for all staff


@dataclass(frozen=True)
class Public:
    """GET is the same for every credential."""

    path: str
    outcome: str = "ok"


@dataclass(frozen=True)
class OfUsers:
    """Needs an access token; a conversation of another user is 404."""

    bodies: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OfServices:
    """Needs a service token with the scope."""

    scope: str
    bodies: dict[str, Any]


@dataclass(frozen=True)
class OfStaff:
    """Needs a session of staff with the permissions, and for POST also the CSRF token."""

    get: Needs = ALL
    post: Needs = ALL
    otherwise: int = 403  # the status for staff without the permissions


@dataclass(frozen=True)
class Open:
    """A page for every browser; a POST needs the CSRF token."""

    methods: tuple[str, ...] = ("GET", "POST")


def staff(*needs: str, **options: Any) -> OfStaff:
    return OfStaff(needs, needs, **options)


NEVER = OfStaff(403, 403)
ACTION = "{permission of the action}"
ROUTES: dict[str, Any] = {
    "": Public("/"),
    "^health/?$": Public("/health"),
    "^health/live/?$": Public("/health/live"),
    "^health/ready/?$": Public("/health/ready"),
    "metrics": Public("/metrics"),
    "api/errors": Public("/api/errors"),
    "api/errors/<str:code>": Public("/api/errors/NOT_FOUND"),
    "api/schema": Public("/api/schema"),
    "api/docs": Public("/api/docs"),
    "api/redoc": Public("/api/redoc"),
    "(any other path)": Public("/nothing", "404"),
    "api/v1/conversations": OfUsers({"POST": {"character_id": "luna"}}),
    "api/v1/conversations/summary": OfUsers(),
    "api/v1/conversations/overview": OfUsers(),
    "api/v1/conversations/bulk": OfUsers({"POST": {"action": "pin", "ids": ["{id}"]}}),
    "api/v1/conversations/export": OfUsers(),
    "api/v1/conversations/import": OfUsers({"POST": {"id": "{id}", "title": "Imported"}}),
    "api/v1/conversations/<str:id>": OfUsers({"PATCH": {"title": "Other"}}),
    "api/v1/conversations/<str:id>/archive": OfUsers(),
    "api/v1/conversations/<str:id>/restore": OfUsers(),
    "api/v1/conversations/<str:id>/duplicate": OfUsers(),
    "api/v1/conversations/<str:id>/history": OfUsers(),
    "api/v1/conversations/<str:id>/revert": OfUsers({"POST": {"version": 1, "fields": ["title"]}}),
    "api/v1/conversations/<str:id>/pin": OfUsers(),
    "api/v1/conversations/<str:id>/unpin": OfUsers(),
    "api/v1/changes": OfUsers(),
    "api/v1/tags": OfUsers(),
    "internal/v1/authorize": OfServices(
        "conversations:authorize", {"POST": {"user_id": "alice", "ids": ["{id}"]}}
    ),
    "internal/v1/activity": OfServices(
        "conversations:activity", {"POST": {"items": [{"id": "{id}", **report(1)}]}}
    ),
    "internal/v1/conversations/<str:id>/activity": OfServices(
        "conversations:activity", {"PUT": report(2)}
    ),
    "internal/v1/events": OfServices("events:read", {}),
    "internal/v1/webhooks": OfServices("webhooks:manage", {"POST": {"url": URL}}),
    "internal/v1/webhooks/<str:id>": OfServices(
        "webhooks:manage", {"PATCH": {"description": "Other"}}
    ),
    "internal/v1/webhooks/<str:id>/rotate-secret": OfServices("webhooks:manage", {}),
    "internal/v1/webhooks/<str:id>/enable": OfServices(
        "webhooks:manage", {"POST": {"from": "now"}}
    ),
    "internal/v1/webhooks/<str:id>/disable": OfServices("webhooks:manage", {}),
    "internal/v1/webhooks/<str:id>/test": OfServices("webhooks:manage", {}),
    "internal/v1/webhooks/<str:id>/deliveries": OfServices("webhooks:manage", {}),
    "internal/v1/webhooks/<str:id>/deliveries/<str:event_id>/redeliver": OfServices(
        "webhooks:manage", {}
    ),
    "admin/i18n/setlang": Open(),
    "admin/login/": Open(),
    "admin/logout/": Open(("POST",)),
    "admin/": staff(),
    "admin/password_change/": staff(),
    "admin/password_change/done/": OfStaff(post=405),
    "admin/autocomplete/": OfStaff(403, 405),
    "admin/jsi18n/": OfStaff(post=405),
    "admin/^(?P<app_label>auth|conversations|admin)/$": staff("accounts", otherwise=404),
    "admin/(?P<url>.*)$": OfStaff(404, 404),
    "admin/conversations/conversation/": staff("view"),
    "admin/conversations/conversation/add/": NEVER,
    "admin/conversations/conversation/all/export/": staff("view", "export"),
    "admin/conversations/conversation/all/<slug:name>/": staff("view", "bulk", ACTION),
    "admin/conversations/conversation/run/": staff("view", "bulk", ACTION),
    "admin/conversations/conversation/undo/": OfStaff(404, ("view", "bulk")),
    "admin/conversations/conversation/<path:object_id>/": staff(),  # redirects to change/
    "admin/conversations/conversation/<path:object_id>/act/<slug:name>/": staff("view", ACTION),
    "admin/conversations/conversation/<path:object_id>/revert/<int:version>/": staff(
        "view", "revert"
    ),
    "admin/conversations/conversation/<path:object_id>/change/": OfStaff(("view",), 403),
    "admin/conversations/conversation/<path:object_id>/history/": staff("view", "log"),
    "admin/conversations/conversation/<path:object_id>/delete/": NEVER,
    "admin/conversations/webhookendpoint/": staff("webhooks"),
    "admin/conversations/webhookendpoint/add/": staff("webhooks", "webhooks:manage"),
    "admin/conversations/webhookendpoint/<str:id>/change/": staff("webhooks"),
    "admin/conversations/webhookendpoint/<str:id>/edit/": staff("webhooks", "webhooks:manage"),
    "admin/conversations/webhookendpoint/<str:id>/act/<slug:name>/": staff(
        "webhooks", "webhooks:manage"
    ),
    "admin/conversations/webhookendpoint/<str:id>/redeliver/": OfStaff(
        404, ("webhooks", "webhooks:manage")
    ),
    "admin/admin/logentry/": staff("log"),
    "admin/admin/logentry/add/": NEVER,
    "admin/admin/logentry/<path:object_id>/": staff(),
    "admin/admin/logentry/<path:object_id>/change/": OfStaff(("log",), 403),
    "admin/admin/logentry/<path:object_id>/history/": staff("log"),
    "admin/admin/logentry/<path:object_id>/delete/": NEVER,
    "admin/auth/user/<id>/password/": staff("accounts"),
    **{
        f"admin/auth/{model}/{page}": needs
        for model in ("user", "group")
        for page, needs in {
            "": staff("accounts"),
            "add/": staff("accounts"),
            "<path:object_id>/": staff(),
            "<path:object_id>/change/": staff("accounts"),
            "<path:object_id>/history/": staff(),  # redirects to the action log
            "<path:object_id>/delete/": staff("accounts"),
        }.items()
    },
}
PERMISSION_OF = {
    "archive": "archive",
    "restore": "archive",
    "trash": "trash",
    "hold": "hold",
    "release": "hold",
}


def routes(resolver: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for entry in (resolver or get_resolver()).url_patterns:
        route = f"{prefix}{entry.pattern}"
        if isinstance(entry, URLPattern):
            yield ("(any other path)" if entry.callback is not_found else route), entry.callback
        else:
            yield from routes(entry, route)


VIEWS = dict(routes())


def test_every_route_is_in_the_table():
    assert VIEWS.keys() == ROUTES.keys()
    assert PERMISSION_OF.keys() == ACTIONS.keys()


# Requests


def send(
    method: str,
    path: str,
    body: str = "",
    *,
    browser: Client | None = None,
    token: str = "",
    headers: dict[str, str] | None = None,
) -> Any:
    kind = "application/x-ndjson" if path.endswith("/import") else "application/json"
    headers = {**(headers or {})} | ({"Authorization": f"Bearer {token}"} if token else {})
    browser = browser or Client(raise_request_exception=False)
    return browser.generic(method, path, body, kind, headers=headers)


def outcome(response: Any) -> str:
    if response.status_code == 401:
        return f"401 {response.json()['error']['code']}"
    if response.headers.get("Location", "").startswith("/admin/login/"):
        return "login"
    return "ok" if response.status_code < 400 else str(response.status_code)


class Rejections:
    """Sends requests, and collects those with another outcome or with texts of Alice."""

    def __init__(self, mongo: Any) -> None:
        self.mongo = mongo
        self.before = self.stored()
        self.wrong: dict[Any, str] = {}

    def stored(self) -> Any:
        names = (
            "webhook_endpoints",
            "auth_user",
            "auth_group",
            "auth_user_groups",
            "django_admin_log",
        )
        own = [*self.mongo["conversations"].find({"user_id": "alice"})]
        return own, [[*self.mongo[name].find()] for name in names]

    def expect(self, expected: str, credential: str, *request: str, **credentials: Any) -> None:
        response = send(*request, **credentials)
        shown = MARKER in response.getvalue().decode() or MARKER in str(response.headers)
        if shown or outcome(response) != expected:
            difference = f"{outcome(response)} instead of {expected}"
            self.wrong[credential, *request] = difference + ", shows texts of Alice" * shown

    def check(self) -> None:
        assert self.wrong == {}
        assert self.stored() == self.before


@pytest.fixture
def alices(mongo: Any) -> str:
    """The id of a conversation of Alice, with the marker in each text of its two versions."""
    texts = {"title": MARKER, "tags": [MARKER], "custom": {"note": MARKER}, "character_id": MARKER}
    alice = signed(claims_of_user("alice"))
    created = send("POST", PATH, json.dumps(texts), token=alice).json()
    change = json.dumps({"title": f"Another {MARKER}"})
    send("PATCH", f"{PATH}/{created['id']}", change, token=alice)
    return created["id"]


def webhook() -> str:
    """Return the id of a webhook endpoint with an event; create it if there is none."""
    found = endpoints.list_all()
    if not found:
        found = [endpoints.create({"url": URL}, created_by="staff:ana")[0]]
        endpoints.disable(found[0]["_id"], endpoints.STAFF, by="staff:ana")
        endpoints.enable(found[0]["_id"], from_now=False)
    return found[0]["_id"]


def api_requests(route: str, id_: str) -> list[tuple[str, str, str]]:
    """Return the method, the path and the body of each request that a view handles."""
    view = VIEWS[route]
    handled = getattr(view, "actions", None) or dir(view.cls)
    methods = [
        name for name in ("GET", "POST", "PUT", "PATCH", "DELETE") if name.lower() in handled
    ]
    bodies = {name: json.dumps(body) for name, body in ROUTES[route].bodies.items()}
    path = f"/{route.replace('<str:id>', id_).replace('<str:event_id>', f'{id_}_disabled_1')}"
    return [(name, path, bodies.get(name, "").replace("{id}", id_)) for name in methods]


def of_kind(kind: type) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("route", [name for name in ROUTES if type(ROUTES[name]) is kind])


@of_kind(Public)
def test_a_public_route_has_no_texts_of_users(route, alices, mongo, patient_health):
    row, accounts = ROUTES[route], browsers()
    rejections = Rejections(mongo)
    user = claims_of_user("alice")
    for name, token in {**rejected_tokens(user), "alice": signed(user), "no token": ""}.items():
        rejections.expect(row.outcome, name, "GET", row.path, token=token)
    for name, browser in accounts.items():
        rejections.expect(row.outcome, name, "GET", row.path, browser=browser)
    rejections.check()


@of_kind(OfUsers)
def test_a_route_of_users_needs_an_access_token_of_the_owner(route, alices, mongo):
    accounts = browsers()
    rejections = Rejections(mongo)
    requests = api_requests(route, alices)
    for request in [*requests, ("OPTIONS", requests[0][1])]:
        rejections.expect(MISSING, "no token", *request)
        for name, token in rejected_tokens(claims_of_user("alice")).items():
            rejections.expect(REJECTED[name], name, *request, token=token)
        for granted in ((), scopes):
            service = signed(claims_of_service(*granted))
            rejections.expect(INVALID, f"service with {granted}", *request, token=service)
        for name, browser in accounts.items():
            rejections.expect(MISSING, name, *request, browser=browser)
    foreign = "404" if "<str:id>" in route else "ok"
    for request in requests:
        rejections.expect(foreign, "bob", *request, token=signed(claims_of_user("bob")))
    rejections.check()

    alice = signed(claims_of_user("alice"))
    assert [outcome(send(*request, token=alice)) for request in requests] == ["ok"] * len(requests)


ABSENT = "65f0c0ffee65f0c0ffee65f0"
ERROR_ID = re.compile('"error_id":"[0-9a-f]{16}"')
QUERIES = ["", "?mode=purge", "?mode=x", "?as_of=1", "?include=character", "?unknown=1"]
HEADERS = [
    {"If-Match": '"v2"'},
    {"If-Match": '"v1"'},
    {"If-Match": "*"},
    {"If-Match": "malformed"},
    {"If-None-Match": "*"},
    {"Idempotency-Key": "k-1"},
    {"Idempotency-Key": "malformed key\x7f"},
    {"Prefer": "return=minimal"},
    {"Accept": "application/problem+json"},
    {"Accept-Language": "es"},
]
BODIES = ["", "{", "[]", '{"unknown": 1}', '{"title": ""}', '{"title": "Other"}', '{"version": 0}']


@pytest.mark.parametrize(
    "route",
    [name for name in ROUTES if name.startswith("api/v1/") and "<str:id>" in name]
    + ["api/v1/conversations/bulk"],
)
def test_foreign_and_absent_ids_have_equal_responses(route, alices, mongo):
    """Bob cannot find out whether an id exists: from no header, and from no byte of the body."""
    rejections, token = Rejections(mongo), signed(claims_of_user("bob"))

    def shown(id_: str, request: tuple[str, ...], headers: dict[str, str]) -> tuple[int, str]:
        parts = [part.replace("{id}", id_) for part in request]
        response = send(*parts, token=token, headers={"X-Request-ID": "r-1"} | headers)
        text = f"{sorted(response.headers.items())} {response.getvalue().decode()}"
        return response.status_code, ERROR_ID.sub("", text).replace(id_, "{id}")

    for method, path, body in api_requests(route, "{id}"):
        requests = [((method, path + query, body), {}) for query in QUERIES]
        requests += [((method, path, body), headers) for headers in HEADERS]
        requests += [((method, path, other), {}) for other in BODIES]
        for request, headers in requests:
            foreign, absent = (shown(id_, request, headers) for id_ in (alices, ABSENT))
            assert foreign == absent
            assert "<str:id>" not in route or foreign[0] == 404
    rejections.check()


@of_kind(OfServices)
def test_an_internal_route_needs_a_service_token_with_its_scope(route, alices, mongo):
    accounts = browsers()
    id_ = webhook() if "/webhooks/" in route else alices
    rejections = Rejections(mongo)
    requests, scope = api_requests(route, id_), ROUTES[route].scope
    for request in [*requests, ("OPTIONS", requests[0][1])]:
        rejections.expect(MISSING, "no token", *request)
        for name, token in rejected_tokens(claims_of_service(scope)).items():
            rejections.expect(REJECTED[name], name, *request, token=token)
        for user_id in ("alice", "bob"):
            user = signed(claims_of_user(user_id) | {"scope": scope})
            rejections.expect(INVALID, user_id, *request, token=user)
        for granted in ((), scopes - {scope}, (scope.upper(), f"{scope}2", scope[:-1])):
            service = signed(claims_of_service(*granted))
            rejections.expect("403", f"service with {granted}", *request, token=service)
        for name, browser in accounts.items():
            rejections.expect(MISSING, name, *request, browser=browser)
    rejections.check()

    service = signed(claims_of_service(scope))
    assert [outcome(send(*request, token=service)) for request in requests] == ["ok"] * len(
        requests
    )


def test_tokens_of_both_keys_are_accepted(alices):
    claims = claims_of_user("alice")

    for token in (signed(claims), signed(claims, KEY, "RS256", kid="k1")):
        assert MARKER in send("GET", PATH, token=token).content.decode()


@pytest.mark.parametrize("algorithms", [["RS256"], ["RS256", "HS256"], ["HS256"]])
def test_other_configurations_reject_the_same_tokens(settings, algorithms):
    settings.JWT_ALGORITHM = algorithms

    for name, token in rejected_tokens(claims_of_user("alice")).items():
        assert outcome(send("GET", PATH, token=token)).startswith("401 AUTH_TOKEN_"), name


def console_requests(route: str, id_: str, account: str) -> list[tuple[str, str]]:
    """Return the path of each request, with the permission for the action in it."""
    pks = {"conversation": id_, "user": User.objects.get(username="no-role").pk}
    pks |= {
        "group": Group.objects.get(name="support").pk,
        "logentry": LogEntry.objects.earliest("pk").pk,
    }
    if "/webhookendpoint/" in route:
        path = f"/{route}".replace("<slug:name>", "rotate")
        return [(path.replace("<str:id>", webhook()), "")]
    pk = next((str(pk) for model, pk in pks.items() if f"/{model}/" in route), "")
    path = f"/{route}".replace("<path:object_id>", pk).replace("<id>", pk)
    path = path.replace("<int:version>", "1").replace("(?P<url>.*)$", "nothing")
    path = path.replace("^(?P<app_label>auth|conversations|admin)/$", "auth/")
    path += "?user=alice" if "/all/" in route else ""
    if "<slug:name>" in route:
        return [(path.replace("<slug:name>", name), PERMISSION_OF[name]) for name in ACTIONS]
    if route.endswith("/run/"):
        own = str(User.objects.get(username=account).pk)
        runs = {name: Run(own, name, "user=alice", "", total=1).encode() for name in ACTIONS}
        return [(f"{path}?run={runs[name]}", PERMISSION_OF[name]) for name in ACTIONS]
    return [(path, "")]


def expected(account: str, needs: Needs, permission: str, otherwise: int) -> str:
    granted = ACCOUNTS[account]
    if granted is None:
        return "login"
    if isinstance(needs, int):
        return str(needs)
    needed = {permission if name == ACTION else name for name in needs}
    return "ok" if needed <= granted else str(otherwise)


@of_kind(OfStaff)
def test_a_page_of_the_console_needs_staff_with_its_permissions(route, alices, mongo):
    row, accounts = ROUTES[route], browsers()
    webhook()
    LogEntry.objects.create(user=User.objects.get(username="support"), action_flag=2)
    rejections = Rejections(mongo)
    permitted = []
    for name, browser in accounts.items():
        account = "superuser" if name == "anonymous" else name
        for path, permission in console_requests(route, alices, account):
            for method, needs in (("GET", row.get), ("POST", row.post)):
                wanted = expected(name, needs, permission, row.otherwise)
                if wanted == "ok":
                    permitted.append((name, method, path))
                else:
                    rejections.expect(wanted, name, method, path, browser=browser)
    [(path, _), *_] = console_requests(route, alices, "superuser")
    user = claims_of_user("alice")
    good = {"alice": signed(user), "service": signed(claims_of_service(*scopes))}
    for name, token in {**rejected_tokens(user), **good}.items():
        rejections.expect("login", name, "GET", path, token=token)
    careful = Client(enforce_csrf_checks=True, raise_request_exception=False)
    careful.cookies = accounts["superuser"].cookies
    rejections.expect("403", "without the CSRF token", "POST", path, browser=careful)
    rejections.check()

    outcomes = {
        (name, *request): outcome(send(*request, browser=accounts[name]))
        for name, *request in permitted
    }
    assert {key: found for key, found in outcomes.items() if found != "ok"} == {}


@of_kind(Open)
def test_an_open_page_needs_only_the_csrf_token(route, alices, mongo):
    accounts = browsers()
    rejections = Rejections(mongo)
    path = f"/{route}"
    careful = Client(enforce_csrf_checks=True, raise_request_exception=False)
    rejections.expect("403", "without the CSRF token", "POST", path, browser=careful)
    for name, browser in accounts.items():
        for method in ROUTES[route].methods:
            rejections.expect("ok", name, method, path, browser=browser)
    rejections.check()
