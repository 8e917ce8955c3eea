"""Every 401 has a reason: for operators as metric and log field, for callers as text."""

import json
import logging
import re
import time
from itertools import product
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.test import override_settings
from prometheus_client import REGISTRY
from rest_framework.test import APIClient

from conversation_service.http import rejections
from tests.conversation_service import loopback
from tests.conversation_service.http.test_jwks import Issuer
from tests.conversation_service.http.test_jwks import token as signed_with

SECRET = "of-the-suite-and-long-enough-for-every-hmac-that-there-is-" + "0123456789" * 2
USERS, SERVICES = "/api/v1/conversations", "/internal/v1/authorize"
REASONS = {
    *("missing", "malformed", "signature", "expired", "not_yet_valid"),
    *("audience", "issuer", "claim", "kind", "revoked"),
}
CODES = {"missing": "AUTH_TOKEN_MISSING", "expired": "AUTH_TOKEN_EXPIRED"}
# RFC 6750, section 3: %x20-21 / %x23-5B / %x5D-7E
CHALLENGE = re.compile(
    r'Bearer realm="api", error="invalid_token", error_description="([ !#-\[\]-~]+)"'
)


@pytest.fixture(autouse=True)
def _settings(settings):
    settings.JWT_SECRET_KEY = SECRET
    settings.JWT_ISSUER = "https://auth"
    settings.JWT_AUDIENCE = "chat"


@pytest.fixture(autouse=True)
def _no_earlier_warnings(monkeypatch):
    monkeypatch.setattr(rejections, "_last_warnings", {})


def token(*, key=SECRET, algorithm="HS256", headers=None, without=(), **claims):
    now = int(time.time())
    payload = {"user_id": "u-1", "exp": now + DAY_S, "iss": "https://auth", "aud": "chat"} | claims
    payload = {name: value for name, value in payload.items() if name not in without}
    return raw(json.dumps(payload).encode(), key=key, algorithm=algorithm, headers=headers)


def raw(payload, *, key=SECRET, algorithm="HS256", headers=None):
    return jwt.PyJWS().encode(payload, key, algorithm, headers)


def text(**claims):
    """A token with a literal payload: numbers of any size, NaN, duplicates."""
    common = '"user_id": "u-1", "iss": "https://auth", "aud": "chat"'
    given = ", ".join(f'"{name}": {value}' for name, value in claims.items())
    return raw(f"{{{common}, {given}}}".encode())


def send(value, path=USERS, **headers):
    headers = {"Authorization": f"Bearer {value}"} | headers
    method = "POST" if path == SERVICES else "GET"
    return APIClient().generic(method, path, headers=headers)


def counts():
    """Return the number of rejections by reason."""
    return {
        sample.labels["reason"]: sample.value
        for family in REGISTRY.collect()
        if family.name == "authentication_failures"
        for sample in family.samples
        if sample.name == "authentication_failures_total"
    }


def rejection(call):
    """Check a 401 and return its reason, as counted, and its description."""
    before = counts()
    response = call()
    rises = {reason: n - before.get(reason, 0) for reason, n in counts().items()}
    [reason] = [reason for reason, rise in rises.items() if rise]
    body = response.json()
    assert (response.status_code, rises[reason]) == (401, 1)
    assert reason in REASONS
    assert body["error"]["code"] == CODES.get(reason, "AUTH_TOKEN_INVALID")
    assert body["detail"] == body["error"]["message"]
    if reason == "missing":
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="api"'
    else:
        description = CHALLENGE.fullmatch(response.headers["WWW-Authenticate"])[1]
        assert description == body["detail"]
    return reason, body["detail"]


DAY_S = 24 * 60 * 60  # the tokens of CASES are made before the first test runs
NOW = int(time.time())
NO_IDS: list[Any] = [42, 4.2, True, None, [], {}, "", "a b", "é", "u" * 256]
NO_USER_TYPES: list[Any] = ["refresh", "", None, 1, []]
NO_ACCESS_USES: list[Any] = ["refresh", None, [], 1]
HUGE = "1" + "0" * 400
ID_RULE = "must be a string of 1 to 255 visible ASCII characters"
CASES: list[tuple[str, str, Any]] = [
    ("malformed", "JWT", "garbage"),
    ("malformed", "JWT", "a.b.c"),
    ("malformed", "JWT", "x" * 10_000),
    ("malformed", "JWT", raw(b"not json")),
    ("malformed", "JWT", raw(b"[]")),
    ("malformed", "JWT", raw(b'{"user_id": "\xff"}')),
    ("malformed", "JWT", raw(b'{"exp": ' + b"9" * 5_000 + b"}")),
    ("malformed", "JWT", raw(b"[" * 5_000)),
    ("malformed", "JWT", token(headers={"crit": ["x"], "x": 1})),
    ("malformed", "JWT", "e30.e30.AA"),
    ("malformed", "JWT", "eyJhbGciOlsiSFMyNTYiXX0.e30.AA"),
    ("signature", "algorithm", "eyJhbGciOiJub25lIn0.e30.AA"),
    ("signature", "signature", token(key=SECRET[::-1])),
    ("signature", "signature", token(key=SECRET[::-1], exp=1)),
    ("signature", "algorithm", token(algorithm="HS384")),
    ("expired", "expired", token(exp=NOW - 3_600)),
    ("expired", "expired", token(exp=-1)),
    ("expired", "expired", text(exp="-" + HUGE)),
    ("not_yet_valid", "not valid yet", token(nbf=NOW + 3_600)),
    ("not_yet_valid", "not valid yet", token(iat=NOW + 3_600)),
    ("not_yet_valid", "not valid yet", text(exp=NOW + DAY_S, nbf=HUGE)),
    ("not_yet_valid", "not valid yet", text(exp=NOW + DAY_S, iat=HUGE)),
    ("audience", "audience", token(aud="other")),
    ("audience", "audience", token(aud=["other", "another"])),
    ("audience", "audience", token(aud={"chat": 1})),
    ("audience", "audience", token(aud=7)),
    ("audience", "audience", token(without=["aud"])),
    ("issuer", "issuer", token(iss="https://evil")),
    ("issuer", "issuer", token(iss=["https://auth"])),
    ("issuer", "issuer", token(iss=None)),
    ("issuer", "issuer", token(without=["iss"])),
    ("claim", "exp", token(without=["exp"])),
    *[
        ("claim", "exp", text(exp=value))
        for value in (HUGE, "1e400", "Infinity", "-Infinity", "NaN", "null", "[]", "{}", '"soon"')
    ],
    ("claim", "exp", text(exp=f'"{NOW + DAY_S}"')),
    ("claim", "exp", text(exp=f'"{"9" * 400}"')),
    *[
        ("claim", "nbf", text(exp=NOW + DAY_S, **{name: value}))
        for name, value in product(("nbf", "iat"), ("1e400", "NaN", "null", "[]", '"soon"'))
    ],
    *[("claim", f"user id claim {ID_RULE}", token(user_id=value)) for value in NO_IDS],
    ("claim", f"user id claim {ID_RULE}", token(without=["user_id"])),
    ("claim", f"user id claim {ID_RULE}", token(without=["user_id"], sub="a b")),
    ("claim", f"sub {ID_RULE}", token(without=["user_id"], sub=42)),
    ("claim", f"sub {ID_RULE}", token(sub=None)),
    ("claim", "jti", token(jti=7)),
    ("kind", "service token", token(token_type="service", sub="message")),
    *[("kind", "access token", token(token_type=kind)) for kind in NO_USER_TYPES],
    ("kind", "ID token", token(typ="ID")),
    ("kind", "ID token", token(token_use="id")),
    ("kind", "ID token", token(headers={"typ": "ID"})),
    *[("kind", "access token", token(typ=kind)) for kind in ("Refresh", "Offline", "Logout")],
    *[("kind", "access token", token(token_use=use)) for use in NO_ACCESS_USES],
    ("kind", "access token", token(headers={"typ": "logout+jwt"})),
    ("kind", "access token", token(headers={"typ": "dpop+jwt"})),
]


@pytest.mark.parametrize(
    ("reason", "part", "value"), CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)]
)
def test_a_rejected_token_has_a_reason_and_a_description(reason, part, value):
    found, description = rejection(lambda: send(value))

    assert found == reason
    assert part in description


@pytest.mark.parametrize(
    ("claims", "reason", "part"),
    [
        ({"token_type": "access"}, "kind", "not a service token"),
        ({"without": ["token_type"]}, "kind", "not a service token"),
        ({"typ": "ID"}, "kind", "ID token"),
        ({"scope": ["a"]}, "claim", "scope"),
        ({"sub": "message service"}, "claim", f"sub {ID_RULE}"),
        ({"without": ["sub"]}, "claim", f"sub {ID_RULE}"),
        ({"without": ["exp"]}, "claim", "exp"),
        ({"exp": 10**400}, "claim", "exp"),
        ({"key": SECRET[::-1]}, "signature", "signature"),
    ],
)
def test_a_rejected_service_token_has_a_reason_and_a_description(claims, reason, part):
    value = token(**{"token_type": "service", "sub": "message", "scope": ""} | claims)

    found, description = rejection(lambda: send(value, SERVICES))

    assert found == reason
    assert part in description


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer  ", "Basic dTpw", "Token abc"])
def test_a_missing_token_has_a_reason_and_a_description(header):
    assert rejection(lambda: send("", Authorization=header))[0] == "missing"


@pytest.mark.parametrize(
    "headers", [{"typ": "JWT"}, {"typ": "at+jwt"}, {"typ": "application/at+jwt"}, {"typ": "AT+JWT"}]
)
@pytest.mark.parametrize("claims", [{}, {"typ": "Bearer"}, {"token_use": "access"}, {"typ": 1}])
def test_access_tokens_of_common_issuers_are_accepted(headers, claims):
    assert send(token(headers=headers, **claims)).status_code == 200


NONSENSE = ["null", "true", "0", "-1", "1.5", "1e308", "-1e308", HUGE, "1e999", "NaN", '""']
NONSENSE += ['"x"', '"\\ud800"', "[]", "[[]]", '["chat"]', "{}", '{"a": 1}', '"9999999999"']
CLAIMS = ["exp", "nbf", "iat", "aud", "iss", "sub", "jti", "user_id", "token_type", "typ"]


@pytest.mark.parametrize("claim", [*CLAIMS, "token_use", "scope"])
@pytest.mark.parametrize("path", [USERS, SERVICES])
def test_no_value_of_a_claim_is_an_internal_error(claim, path):
    for value in NONSENSE:
        claims = {"exp": NOW + 600} if claim != "exp" else {}
        if path == SERVICES:
            claims |= {"token_type": '"service"', "sub": '"message"'}
        assert send(text(**claims | {claim: value}), path).status_code in {200, 400, 401, 403}


@pytest.mark.parametrize("claims", [{"aud": "other"}, {"iss": "x"}, {"exp": 1}, {"nbf": 10**11}])
def test_the_reason_is_that_of_the_secret_that_signed(settings, claims):
    expected = rejection(lambda: send(token(**claims)))
    settings.JWT_SECRET_KEY_FALLBACKS = [f"{SECRET}-former", f"{SECRET}-coming"]

    for key in (SECRET, f"{SECRET}-former", f"{SECRET}-coming"):
        assert rejection(lambda key=key: send(token(key=key, **claims))) == expected
    assert rejection(lambda: send(token(key=f"{SECRET}-strange", **claims)))[0] == "signature"


def test_public_keys_have_the_same_reasons(settings):
    issuer = Issuer()
    issuer.rotate("k1")
    with loopback.serving(issuer) as address:
        settings.JWT_ALGORITHM, settings.JWT_JWKS_URL = ["ES256"], f"http://{address}/{uuid4()}"
        private, strange = issuer.private["k1"], ec.generate_private_key(ec.SECP256R1())

        found = [
            rejection(lambda value=value: send(value))
            for value in (
                signed_with(strange, kid="k1"),
                signed_with(private, kid="k9"),
                signed_with(strange),
                signed_with(SECRET, kid="k1", algorithm="HS256"),
            )
        ]
        forged = signed_with(private, kid="k1")
        assert rejection(lambda: send(forged))[0] in {"audience", "issuer"}

    assert [reason for reason, _ in found] == ["signature"] * 4
    assert ["kid" in description for _, description in found] == [False, True, False, False]


def test_a_token_that_auth_rejects_is_revoked(settings):
    with loopback.serving(loopback.respond(status="401 Unauthorized")) as address:
        settings.AUTH_REMOTE_VALIDATION = True
        settings.AUTH_SERVICE_URL = f"http://{address}"

        assert rejection(lambda: send(token())) == ("revoked", "The token has been revoked.")


def test_a_token_of_another_user_than_auth_says_has_a_wrong_claim(settings):
    with loopback.serving(loopback.respond(b'{"user_id": "u-2"}')) as address:
        settings.AUTH_REMOTE_VALIDATION = True
        settings.AUTH_SERVICE_URL = f"http://{address}"

        reason, description = rejection(lambda: send(token()))

    assert (reason, "another user" in description) == ("claim", True)
    assert "u-2" not in description


def test_a_token_that_expires_while_it_is_cached_is_expired(time_machine):
    settings_leeway = override_settings(JWT_LEEWAY_S=0)
    with settings_leeway:
        time_machine.move_to(NOW - NOW % 60 + 1, tick=False)
        value = token(exp=NOW - NOW % 60 + 5)
        assert send(value).status_code == 200

        time_machine.shift(10)

        assert rejection(lambda: send(value))[0] == "expired"


def test_the_body_is_translated_and_the_header_is_not():
    response = send("garbage", **{"Accept-Language": "es"})

    assert response.json()["detail"].startswith("El token debe ser un JWT")
    assert "must be a signed JWT" in CHALLENGE.fullmatch(response.headers["WWW-Authenticate"])[1]


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.name == rejections.__name__]


def test_a_wrong_configuration_is_logged_once_a_minute(caplog, monkeypatch):
    clock = [1_000.0]
    monkeypatch.setattr(rejections, "monotonic", lambda: clock[0])
    for _ in range(3):
        send(token(key=SECRET[::-1]))
        send(token(user_id=42))

    first = warnings(caplog)
    assert ["signature:" in first[0], "claim:" in first[1], len(first)] == [True, True, 2]
    assert "255 visible ASCII characters" in first[1]

    clock[0] += 61
    send(token(key=SECRET[::-1]))
    assert len(warnings(caplog)) == 3


def test_missing_and_expired_tokens_are_not_logged(caplog):
    send("", Authorization="")
    send(token(exp=1))

    assert warnings(caplog) == []


def test_no_log_line_and_no_response_contains_a_part_of_the_token(caplog):
    caplog.set_level(logging.DEBUG)
    for value in [case[2] for case in CASES] + [token(user_id="secret person")]:
        response = send(value)
        said = caplog.text + response.content.decode() + str(response.headers)
        for part in value.split("."):
            assert len(part) < 8 or part not in said
    assert "secret person" not in caplog.text
