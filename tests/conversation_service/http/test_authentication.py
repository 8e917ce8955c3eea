"""Bearer tokens identify users and services; everything else is rejected."""

import base64
import json
import time

import jwt
import pytest
import time_machine
from cryptography.hazmat.primitives.asymmetric import rsa
from django.core.exceptions import ImproperlyConfigured
from django.urls import path
from rest_framework.test import APIClient
from rest_framework.views import APIView

from conversation_service.http.authentication import ServiceAuthentication
from conversation_service.http.permissions import HasScope
from conversation_service.http.rendering import JSONResponse
from conversation_service.tokens import USER
from tests.external_ids import IDS, NO_IDS

SECRET = "of-the-suite-and-long-enough-for-every-hmac-that-there-is-" + "0123456789" * 2

pytestmark = pytest.mark.urls(__name__)


class WhoAmI(APIView):
    def get(self, request):
        return JSONResponse({"id": request.user.id, "token_type": request.user.token_type})


class Authorize(APIView):
    authentication_classes = [ServiceAuthentication]
    permission_classes = [HasScope("conversations:authorize")]

    def post(self, request):
        return JSONResponse({"id": request.user.id, "scopes": sorted(request.user.scopes)})


urlpatterns = [
    path("api/v1/me", WhoAmI.as_view()),
    path("internal/v1/authorize", Authorize.as_view()),
]


@pytest.fixture(autouse=True)
def _secret(settings):
    settings.JWT_SECRET_KEY = SECRET


def token(*, key=SECRET, algorithm="HS256", headers=None, without=(), **claims) -> str:
    payload = {"user_id": "u-1", "exp": int(time.time()) + 60} | claims
    payload = {name: value for name, value in payload.items() if name not in without}
    # Without jwt.encode, which rejects some of these payloads.
    return jwt.PyJWS().encode(json.dumps(payload).encode(), key, algorithm, headers)


def service_token(**claims) -> str:
    claims = {"token_type": "service", "sub": "message-service", "without": ["user_id"]} | claims
    return token(**claims)


def send(authorization: str | None):
    headers = {} if authorization is None else {"Authorization": authorization}
    return APIClient().get("/api/v1/me", headers=headers)


def send_token(value: str):
    return send(f"Bearer {value}")


def call_as_service(value: str):
    return APIClient().post("/internal/v1/authorize", headers={"Authorization": f"Bearer {value}"})


def outcome(response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def encoded(part: object) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


EXPIRED = (401, "AUTH_TOKEN_EXPIRED")
INVALID = (401, "AUTH_TOKEN_INVALID")
MISSING = (401, "AUTH_TOKEN_MISSING")


def test_an_access_token_names_the_caller():
    response = send_token(token(user_id="u-1", token_type=USER))

    assert response.status_code == 200
    assert response.json() == {"id": "u-1", "token_type": "access"}


def test_a_token_without_type_or_id_is_an_access_token():
    assert send_token(token(without=["token_type", "jti"])).status_code == 200


def test_authentication_sends_no_database_query(django_assert_num_queries):
    with django_assert_num_queries(0):
        assert send_token(token()).status_code == 200


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
def test_the_scheme_is_parsed_as_http_requires(scheme):
    assert send(f"{scheme} {token()}").status_code == 200


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dTpw", "Token abc"])
def test_a_missing_bearer_token_is_401_with_a_challenge(header):
    response = send(header)

    assert outcome(response) == MISSING
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="api"'


def test_a_rejected_token_is_401_with_a_challenge():
    response = send_token("not.a.token")

    assert outcome(response) == INVALID
    challenge = response.headers["WWW-Authenticate"]
    assert challenge.startswith('Bearer realm="api", error="invalid_token", error_description="')


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("abc", id="no segments"),
        pytest.param("a.b.c.d", id="four segments"),
        pytest.param("a.b", id="two segments"),
        pytest.param("é.é.é", id="not ASCII"),
        pytest.param("x" * 100_000, id="100 kB"),
        pytest.param(f"{encoded(b'[' * 6_000)}.e30.AA", id="header nested too deep"),
        pytest.param(f"{encoded([])}.e30.AA", id="header not an object"),
        pytest.param(f"{encoded({'alg': 'HS256', 'kid': {}})}.e30.AA", id="kid not a string"),
        pytest.param(f"{encoded({'alg': ['HS256']})}.e30.AA", id="alg not a string"),
        pytest.param(f"{encoded({})}.e30.AA", id="no alg"),
        pytest.param(encoded(b'{"alg":' + b"9" * 5_000 + b"}") + ".e30.AA", id="huge number"),
    ],
)
def test_a_malformed_token_is_rejected(text):
    assert outcome(send_token(text)) == INVALID


@pytest.mark.parametrize("suffix", ["!", " x", ".", "\t.", "=", "%0A"])
def test_a_valid_token_with_a_suffix_is_rejected(suffix):
    assert outcome(send_token(token() + suffix)) == INVALID


def test_a_signed_token_above_8_kib_is_rejected():
    assert outcome(send_token(token(padding="x" * 8_192))) == INVALID


def test_a_token_just_below_8_kib_is_accepted():
    assert send_token(token(padding="x" * 5_900)).status_code == 200


@pytest.mark.parametrize("alg", ["none", "None", "nOnE", "", None])
@pytest.mark.parametrize("signature", ["", "AA"])
def test_an_unsigned_token_is_rejected(alg, signature):
    claims = {"user_id": "u-1", "exp": int(time.time()) + 60}

    unsigned = f"{encoded({'alg': alg, 'typ': 'JWT'})}.{encoded(claims)}.{signature}"

    assert outcome(send_token(unsigned)) == INVALID


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_another_algorithm_with_the_right_secret_is_rejected(algorithm):
    assert outcome(send_token(token(algorithm=algorithm))) == INVALID


def test_only_the_configured_algorithm_is_accepted(settings):
    settings.JWT_ALGORITHM = ["HS384"]

    assert send_token(token(algorithm="HS384")).status_code == 200
    assert outcome(send_token(token(algorithm="HS256"))) == INVALID


def test_a_token_of_the_previous_secret_is_rejected_after_the_change(settings):
    former = token()
    assert send_token(former).status_code == 200

    settings.JWT_SECRET_KEY = SECRET[::-1]

    assert outcome(send_token(former)) == INVALID


@pytest.fixture(scope="module")
def rsa_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def test_a_token_signed_with_a_private_key_is_rejected_with_a_shared_secret(rsa_key):
    assert outcome(send_token(token(key=rsa_key, algorithm="RS256"))) == INVALID


@pytest.mark.parametrize("header", ["jwk", "jku", "x5u", "x5c"])
def test_the_key_in_a_token_is_not_used(rsa_key, header):
    own = {
        "jwk": json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key.public_key())),
        "jku": "http://127.0.0.1:9/keys",
        "x5u": "http://127.0.0.1:9/cert",
        "x5c": ["MIIB"],
    }

    forged = token(key=rsa_key, algorithm="RS256", headers={header: own[header]})

    assert outcome(send_token(forged)) == INVALID


def test_an_unknown_critical_extension_is_rejected():
    assert outcome(send_token(token(headers={"crit": ["x"], "x": 1}))) == INVALID


def test_a_tampered_payload_is_rejected():
    header, _, signature = token().split(".")
    payload = encoded({"user_id": "u-2", "exp": int(time.time()) + 60})

    assert outcome(send_token(f"{header}.{payload}.{signature}")) == INVALID


def test_a_truncated_signature_is_rejected():
    assert outcome(send_token(token()[:-4])) == INVALID


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        pytest.param({"without": ["exp"]}, INVALID, id="no exp"),
        pytest.param({"exp": None}, INVALID, id="exp null"),
        pytest.param({"exp": "soon"}, INVALID, id="exp a word"),
        pytest.param({"exp": float("inf")}, INVALID, id="exp never"),
        pytest.param({"exp": float("nan")}, INVALID, id="exp not a number"),
        pytest.param({"exp": []}, INVALID, id="exp a list"),
        pytest.param({"nbf": "later"}, INVALID, id="nbf a word"),
        pytest.param({"iat": {}}, INVALID, id="iat an object"),
    ],
)
def test_times_of_a_token_are_required_and_numbers(claims, expected):
    assert outcome(send_token(token(**claims))) == expected


@pytest.mark.parametrize(
    ("offsets", "code"),
    [
        ({"exp": -9}, None),
        ({"exp": -10}, "AUTH_TOKEN_EXPIRED"),
        ({"exp": -3600}, "AUTH_TOKEN_EXPIRED"),
        ({"nbf": 10}, None),
        ({"nbf": 11}, "AUTH_TOKEN_INVALID"),
        ({"iat": 10}, None),
        ({"iat": 11}, "AUTH_TOKEN_INVALID"),
    ],
)
def test_clocks_may_differ_by_ten_seconds(settings, offsets, code):
    settings.JWT_LEEWAY_S = 10
    now = int(time.time())

    with time_machine.travel(now, tick=False):
        response = send_token(token(**{name: now + offset for name, offset in offsets.items()}))

    assert response.json().get("error", {}).get("code") == code


def test_an_expired_token_with_a_bad_signature_is_not_called_expired():
    assert outcome(send_token(token(exp=1, key=SECRET[::-1]))) == INVALID


@pytest.mark.parametrize(
    ("claims", "accepted"),
    [
        ({"iss": "https://auth", "aud": "chat"}, True),
        ({"iss": "https://auth", "aud": ["other", "chat"]}, True),
        ({"iss": "https://auth", "aud": "other"}, False),
        ({"iss": "https://auth"}, False),
        ({"iss": "https://evil", "aud": "chat"}, False),
        ({"iss": ["https://auth"], "aud": "chat"}, False),
        ({"iss": "https://auth/", "aud": "chat"}, False),
        ({"aud": "chat"}, False),
    ],
)
def test_issuer_and_audience_are_checked_if_configured(settings, claims, accepted):
    settings.JWT_ISSUER = "https://auth"
    settings.JWT_AUDIENCE = "chat"

    assert send_token(token(**claims)).status_code == (200 if accepted else 401)


def test_issuer_and_audience_are_ignored_if_not_configured():
    assert send_token(token(iss="any-issuer", aud="any-audience")).status_code == 200


@pytest.mark.parametrize("token_type", ["refresh", "service", "Access", "", None, 1, ["access"]])
def test_only_access_tokens_are_accepted_by_the_public_api(token_type):
    assert outcome(send_token(token(token_type=token_type, sub="u-1"))) == INVALID


@pytest.mark.parametrize("user_id", ["u", "507f1f77bcf86cd799439014", "a_b.c:d@e-f", *IDS])
def test_ids_are_kept_exactly(user_id):
    assert send_token(token(user_id=user_id)).json()["id"] == user_id


@pytest.mark.parametrize(
    "user_id",
    [*NO_IDS, "\ud800", 1, 1.5, True, None, ["u-1"], {"$gt": ""}],
)
def test_an_invalid_user_id_is_rejected(user_id):
    assert outcome(send_token(token(user_id=user_id, sub="u-1"))) == INVALID


def test_the_subject_names_the_user_if_the_claim_is_absent():
    assert send_token(token(without=["user_id"], sub="u-7")).json()["id"] == "u-7"


@pytest.mark.parametrize("subject", ["", "u" * 256, "u-1\n"])
def test_an_invalid_subject_is_rejected(subject):
    assert outcome(send_token(token(without=["user_id"], sub=subject))) == INVALID


def test_an_integer_subject_is_rejected_even_beside_a_valid_id():
    assert outcome(send_token(token(without=["user_id"], sub=7))) == INVALID
    assert outcome(send_token(token(user_id="u-1", sub=7))) == INVALID


def test_a_token_without_a_user_is_rejected():
    assert outcome(send_token(token(without=["user_id"]))) == INVALID


def test_the_claim_of_the_user_id_is_a_setting(settings):
    settings.JWT_USER_ID_CLAIM = "uid"

    assert send_token(token(uid="u-9", sub="other")).json()["id"] == "u-9"


def test_admin_claims_give_no_rights():
    powerful = token(is_staff=True, is_superuser=True, scope="conversations:authorize")

    assert send_token(powerful).status_code == 200
    assert outcome(call_as_service(powerful)) == INVALID


def test_a_service_with_the_scope_is_accepted():
    response = call_as_service(service_token(scope="users:export conversations:authorize"))

    assert response.status_code == 200
    assert response.json() == {
        "id": "message-service",
        "scopes": ["conversations:authorize", "users:export"],
    }


@pytest.mark.parametrize(
    "scope", ["", "conversations", "conversations:authorize2", "CONVERSATIONS:AUTHORIZE", "a,b"]
)
def test_a_service_without_the_scope_is_rejected(scope):
    response = call_as_service(service_token(scope=scope))

    assert outcome(response) == (403, "INSUFFICIENT_PERMISSIONS")
    assert 'error="insufficient_scope"' in response.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    "claims",
    [
        {"token_type": "access", "scope": "conversations:authorize"},
        {"token_type": None, "scope": "conversations:authorize"},
        {"scope": ["conversations:authorize"]},
        {"sub": "", "scope": "conversations:authorize"},
        {"sub": "message service", "scope": "conversations:authorize"},
        {"without": ["sub"], "scope": "conversations:authorize"},
    ],
)
def test_the_internal_api_rejects_tokens_of_users(claims):
    assert outcome(call_as_service(service_token(**claims))) == INVALID


@pytest.mark.parametrize(
    "configuration",
    [
        {"JWT_SECRET_KEY": ""},
        {"JWT_ALGORITHM": ["none"]},
        {"JWT_ALGORITHM": ["RS256"], "JWT_JWKS_URL": ""},
    ],
)
def test_a_configuration_without_a_usable_key_rejects_every_token(settings, configuration):
    good = token()
    for name, value in configuration.items():
        setattr(settings, name, value)

    with pytest.raises(ImproperlyConfigured):
        send_token(good)


FORMER = f"{SECRET}-former"
COMING = f"{SECRET}-coming"


@pytest.mark.parametrize("key", [SECRET, FORMER, COMING])
def test_tokens_of_both_secrets_are_accepted_during_a_change(settings, key):
    settings.JWT_SECRET_KEY_FALLBACKS = [FORMER, COMING]

    assert send_token(token(key=key)).json() == {"id": "u-1", "token_type": "access"}
    assert outcome(send_token(token(key=key, exp=int(time.time()) - 60))) == EXPIRED
    assert outcome(send_token(token(key=f"{SECRET}-strange"))) == INVALID


def test_an_empty_previous_secret_accepts_no_token(settings):
    settings.JWT_SECRET_KEY_FALLBACKS = [""]

    with pytest.raises(ImproperlyConfigured, match="JWT_SECRET_KEY is empty"):
        send_token(token())
