"""Tokens signed with a private key, checked with the keys that their issuer publishes."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from threading import enumerate as threads
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from django.urls import path
from rest_framework.test import APIClient
from rest_framework.views import APIView

from conversation_service.http import authentication, jwks
from conversation_service.http.rendering import JSONResponse
from tests.config.processes import eventually
from tests.conversation_service import loopback

pytestmark = pytest.mark.urls(__name__)

INVALID = (401, "AUTH_TOKEN_INVALID")
UNAVAILABLE = (503, "AUTH_UNAVAILABLE")


class WhoAmI(APIView):
    def get(self, request):
        return JSONResponse({"id": request.user.id})


urlpatterns = [path("api/v1/me", WhoAmI.as_view())]


class Issuer:
    """An issuer of tokens with an endpoint for its public keys."""

    def __init__(self) -> None:
        self.published: list[object] = []
        self.private: dict[str, ec.EllipticCurvePrivateKey] = {}
        self.fetches = 0
        self.talk: loopback.Talk | None = None

    def rotate(self, kid: str) -> None:
        self.private[kid] = ec.generate_private_key(ec.SECP256R1())
        self.published = [public_jwk(self.private[kid], kid=kid)]

    def token(self, kid: str, **claims) -> str:
        return token(self.private[kid], kid=kid, **claims)

    def __call__(self, channel: socket.socket) -> None:
        self.fetches += 1
        talk = self.talk or loopback.respond(json.dumps({"keys": self.published}).encode())
        talk(channel)


def public_jwk(key: Any, **fields: Any) -> Any:
    algorithms = jwt.algorithms
    kind: Any = algorithms.ECAlgorithm if hasattr(key, "curve") else algorithms.RSAAlgorithm
    if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        kind = algorithms.OKPAlgorithm
    return json.loads(kind.to_jwk(key.public_key())) | fields


def token(key, *, kid=None, algorithm="ES256", **claims) -> str:
    payload = {"user_id": "u-1", "exp": int(time.time()) + 3600} | claims
    return jwt.encode(payload, key, algorithm, headers={} if kid is None else {"kid": kid})


@pytest.fixture
def issuer(settings, monkeypatch):
    monkeypatch.setattr(jwks, "FETCH_S", 60)
    issuer = Issuer()
    issuer.rotate("k1")
    with loopback.serving(issuer) as address:
        settings.JWT_ALGORITHM = ["ES256"]
        # Unique, as a process caches keys by address until its end.
        settings.JWT_JWKS_URL = f"http://{address}/{uuid4()}"
        yield issuer


@pytest.fixture
def clock(monkeypatch):
    """The clock of the key cache: it stands still, and a test can advance it."""
    clock = SimpleNamespace(now_s=time.time(), ahead_s=0.0)
    monkeypatch.setattr(authentication, "time", lambda: clock.now_s + clock.ahead_s)
    monkeypatch.setattr(jwks, "monotonic", lambda: clock.now_s + clock.ahead_s)
    return clock


def send(value: str):
    return APIClient().get("/api/v1/me", headers={"Authorization": f"Bearer {value}"})


def fetching() -> list[str]:
    return [thread.name for thread in threads() if thread.name == "jwks"]


def outcome(response) -> tuple[int, str | None]:
    return response.status_code, response.json().get("error", {}).get("code")


def test_the_keys_are_fetched_once_for_many_tokens(issuer):
    for _ in range(20):
        assert outcome(send(issuer.token("k1"))) == (200, None)

    assert issuer.fetches == 1


def test_first_tokens_in_parallel_share_one_fetch(issuer):
    value = issuer.token("k1")

    with ThreadPoolExecutor(16) as pool:
        outcomes = set(pool.map(lambda _: outcome(send(value)), range(32)))

    assert outcomes == {(200, None)}
    assert issuer.fetches == 1


def rsa_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


KEYS = {
    "RS": rsa_key,
    "PS": rsa_key,
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ES512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "EdDSA, 448": ed448.Ed448PrivateKey.generate,
}
ALGORITHMS = [
    *(f"{family}{bits}" for family in ("RS", "PS") for bits in (256, 384, 512)),
    *("ES256", "ES384", "ES512", "EdDSA", "EdDSA, 448"),
]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_public_keys_of_each_algorithm_are_accepted(issuer, settings, name):
    algorithm = name.partition(",")[0]
    settings.JWT_ALGORITHM = [algorithm]
    key, other = (KEYS.get(name, KEYS.get(name[:2]))() for _ in range(2))
    issuer.published = [public_jwk(key, kid="k1", use="sig", alg=algorithm)]

    assert outcome(send(token(key, kid="k1", algorithm=algorithm))) == (200, None)
    assert outcome(send(token(other, kid="k1", algorithm=algorithm))) == INVALID


def test_secrets_and_public_keys_are_accepted_during_a_change(issuer, settings):
    settings.JWT_ALGORITHM = ["HS256", "ES256"]

    assert outcome(send(token(settings.JWT_SECRET_KEY, algorithm="HS256"))) == (200, None)
    assert outcome(send(issuer.token("k1"))) == (200, None)

    settings.JWT_ALGORITHM = ["ES256"]
    assert outcome(send(token(settings.JWT_SECRET_KEY, algorithm="HS256"))) == INVALID
    assert outcome(send(issuer.token("k1"))) == (200, None)


@pytest.mark.parametrize("algorithms", [["ES256"], ["ES256", "RS256"], ["HS256", "ES256"]])
def test_an_unknown_algorithm_is_rejected_among_several(issuer, settings, algorithms):
    settings.JWT_ALGORITHM = algorithms

    assert outcome(send(token(rsa_key(), kid="k1", algorithm="RS512"))) == INVALID
    assert outcome(send(token("s" * 64, kid="k1", algorithm="HS512"))) == INVALID


def test_a_key_is_used_only_for_the_algorithm_that_it_names(issuer, settings):
    settings.JWT_ALGORITHM = ["RS256", "PS256"]
    key = rsa_key()
    issuer.published = [public_jwk(key, kid="k1", alg="PS256")]

    assert outcome(send(token(key, kid="k1", algorithm="PS256"))) == (200, None)
    assert outcome(send(token(key, kid="k1", algorithm="RS256"))) == INVALID


def test_a_key_without_an_algorithm_is_used_for_all_that_fit(issuer, settings):
    settings.JWT_ALGORITHM = ["RS256", "PS512", "ES256"]
    key = rsa_key()
    issuer.published = [public_jwk(key, kid="k1")]

    assert outcome(send(token(key, kid="k1", algorithm="RS256"))) == (200, None)
    assert outcome(send(token(key, kid="k1", algorithm="PS512"))) == (200, None)


def test_another_algorithm_causes_no_fetch(issuer):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    assert outcome(send(token(key, kid="k1", algorithm="RS256"))) == INVALID
    assert issuer.fetches == 0


def test_a_token_of_the_shared_secret_is_rejected(issuer, settings):
    forged = token(settings.JWT_SECRET_KEY, kid="k1", algorithm="HS256")

    assert outcome(send(forged)) == INVALID


def test_a_known_key_id_with_another_key_is_rejected(issuer):
    forged = token(ec.generate_private_key(ec.SECP256R1()), kid="k1")

    assert outcome(send(forged)) == INVALID


@pytest.mark.parametrize("published", ["k1", None])
@pytest.mark.parametrize("kid", ["k1", None])
def test_a_missing_key_id_stands_for_the_only_key_that_fits(issuer, settings, published, kid):
    settings.JWT_ALGORITHM = ["ES256", "RS256"]
    ids = {} if published is None else {"kid": published}
    issuer.published = [public_jwk(issuer.private["k1"], **ids), public_jwk(rsa_key(), **ids)]

    assert outcome(send(token(issuer.private["k1"], kid=kid))) == (200, None)


@pytest.mark.parametrize("ids", [{"kid": "k2"}, {}])
def test_a_token_without_a_key_id_is_rejected_if_several_keys_fit(issuer, ids):
    issuer.published.append(public_jwk(ec.generate_private_key(ec.SECP256R1()), **ids))

    assert outcome(send(token(issuer.private["k1"]))) == INVALID


def test_another_key_id_is_not_the_only_key_that_fits(issuer):
    assert outcome(send(token(issuer.private["k1"], kid="k2"))) == INVALID


@pytest.mark.parametrize(
    "fields",
    [
        *({"use": "enc"}, {"alg": "ES384"}, {"kid": 1}, {"crv": "P-384"}, {"x": "!"}, {"d": "AA"}),
        {"kty": "oct", "k": "AAAA"},
    ],
    ids=str,
)
def test_keys_for_other_uses_are_ignored(issuer, fields):
    unfit = public_jwk(issuer.private["k1"], kid="k1") | fields
    other = public_jwk(ec.generate_private_key(ec.SECP256R1()), kid="k2")
    issuer.published = ["nonsense", unfit, other]

    assert outcome(send(issuer.token("k1"))) == INVALID


@pytest.mark.parametrize("name", ["use", "alg", "kid", "d", "x5c", "key_ops"])
def test_null_stands_for_a_missing_member_of_a_key(issuer, name):
    issuer.published = [public_jwk(issuer.private["k1"], kid="k1") | {name: None}]

    assert outcome(send(issuer.token("k1"))) == (200, None)


def test_a_key_published_a_second_ago_is_accepted_at_once(issuer, clock):
    assert outcome(send(issuer.token("k1"))) == (200, None)
    issuer.rotate("k2")
    clock.ahead_s += 1

    assert outcome(send(issuer.token("k2"))) == (200, None)


def test_a_withdrawn_key_is_rejected_when_the_keys_expire(issuer, clock):
    withdrawn = issuer.token("k1")
    assert outcome(send(withdrawn)) == (200, None)
    issuer.rotate("k2")

    clock.ahead_s += 301

    assert outcome(send(withdrawn)) == INVALID


def test_keys_are_refreshed_before_they_expire(issuer, clock):
    assert outcome(send(issuer.token("k1"))) == (200, None)
    responded = Event()
    issuer.talk = lambda channel: responded.wait(jwks.FETCH_S)
    clock.ahead_s += 241

    assert outcome(send(issuer.token("k1"))) == (200, None)
    eventually(lambda: issuer.fetches == 2)
    responded.set()


@pytest.mark.usefixtures("clock")
def test_random_key_ids_cannot_flood_the_issuer(issuer):
    unknown_keys = [token(issuer.private["k1"], kid=f"random-{n}") for n in range(60)]

    with ThreadPoolExecutor(8) as pool:
        outcomes = set(pool.map(lambda value: outcome(send(value)), unknown_keys))

    assert outcomes == {INVALID}
    assert issuer.fetches == 1


def test_an_unknown_key_id_is_fetched_again_after_one_second(issuer, clock):
    other_user = token(issuer.private["k1"], kid="k9")
    for _ in range(3):
        send(other_user)
        send(other_user)
        clock.ahead_s += 1.1

    assert issuer.fetches == 3


def test_without_keys_every_token_is_rejected(issuer):
    issuer.talk = loopback.respond(status="503 Service Unavailable")

    response = send(issuer.token("k1"))

    assert outcome(response) == UNAVAILABLE
    assert response.headers["Retry-After"] == "2"


def test_keys_are_used_for_an_hour_while_the_issuer_is_down(issuer, clock):
    assert outcome(send(issuer.token("k1"))) == (200, None)
    issuer.talk = loopback.respond(status="500 Internal Server Error")

    clock.ahead_s += 3_590
    assert outcome(send(issuer.token("k1"))) == (200, None)

    clock.ahead_s += 20
    assert outcome(send(issuer.token("k1"))) == UNAVAILABLE


def test_an_unknown_key_is_503_while_the_issuer_is_down(issuer, clock):
    assert outcome(send(issuer.token("k1"))) == (200, None)
    issuer.rotate("k2")
    issuer.talk = loopback.respond(status="500 Internal Server Error")
    clock.ahead_s += 2

    assert outcome(send(issuer.token("k2"))) == UNAVAILABLE


def test_a_recovered_issuer_is_used_again_after_two_seconds(issuer, clock):
    issuer.talk = loopback.respond(status="500 Internal Server Error")
    assert outcome(send(issuer.token("k1"))) == UNAVAILABLE
    issuer.talk = None
    assert outcome(send(issuer.token("k1"))) == UNAVAILABLE
    assert issuer.fetches == 1

    clock.ahead_s += 2.1

    assert outcome(send(issuer.token("k1"))) == (200, None)


@pytest.mark.parametrize("talk", [loopback.silence, loopback.trickle])
def test_a_request_does_not_wait_for_an_issuer_that_hangs(issuer, talk, monkeypatch):
    monkeypatch.setattr(jwks, "FETCH_S", 0.3)
    issuer.talk = talk

    for _ in range(2):
        assert outcome(send(issuer.token("k1"))) == UNAVAILABLE


def test_an_issuer_that_hangs_delays_no_token_of_a_known_key(issuer, clock, monkeypatch):
    assert outcome(send(issuer.token("k1"))) == (200, None)
    issuer.talk = loopback.silence
    clock.ahead_s += 301

    monkeypatch.setattr(jwks, "FETCH_S", 0.3)
    assert outcome(send(issuer.token("k1"))) == (200, None)  # waits for FETCH_S
    eventually(lambda: not fetching())

    responded = Event()
    issuer.talk = lambda channel: responded.wait(60)
    monkeypatch.setattr(jwks, "FETCH_S", 60)
    clock.ahead_s += 3
    assert outcome(send(issuer.token("k1"))) == (200, None)  # and does not wait for the fetch
    assert fetching()
    responded.set()
    eventually(lambda: not fetching())


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"<html>",
            b"[]",
            b"{}",
            b'{"keys": {}}',
            b'{"keys": []}',
            b'{"keys": [1]}',
            b"\xff",
        ),
        *(b"[" * 100_000, b" " * 300_000),
    ],
    ids=lambda body: body[:10],
)
def test_an_invalid_key_set_replaces_no_keys(issuer, clock, body):
    assert outcome(send(issuer.token("k1"))) == (200, None)
    issuer.talk = loopback.respond(body)
    clock.ahead_s += 301

    assert outcome(send(issuer.token("k1"))) == (200, None)
    assert issuer.fetches == 2


def test_redirects_to_other_keys_are_not_followed(issuer):
    other = Issuer()
    other.published = issuer.published
    with loopback.serving(other) as address:
        issuer.talk = loopback.respond(
            status="302 Found", headers=f"Location: http://{address}/keys\r\n"
        )

        assert outcome(send(issuer.token("k1"))) == UNAVAILABLE

    assert other.fetches == 0


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/keys", "keys", "http://"])
def test_keys_are_fetched_over_http_only(issuer, settings, url):
    settings.JWT_JWKS_URL = url

    assert outcome(send(issuer.token("k1"))) == UNAVAILABLE


def test_an_unreachable_issuer_is_503(issuer, settings):
    settings.JWT_JWKS_URL = f"http://{loopback.closed_port()}/keys"

    assert outcome(send(issuer.token("k1"))) == UNAVAILABLE
