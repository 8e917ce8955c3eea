"""A bearer token is the only proof of who is calling."""

import base64
import json
import time

import jwt
import pytest
import time_machine
from cryptography.hazmat.primitives.asymmetric import rsa
from django.core.exceptions import ImproperlyConfigured
from django.urls import path
from rest_framework.response import Response
from rest_framework.test import APIClient
from rest_framework.views import APIView

from conversation_service.http.authentication import ServiceAuthentication
from conversation_service.http.permissions import HasScope
from conversation_service.tokens import USER
from tests.external_ids import IDS, NO_IDS

SECRET = "of-the-suite-and-long-enough-for-every-hmac-that-there-is-" + "0123456789" * 2

pytestmark = pytest.mark.urls(__name__)


class WhoAmI(APIView):
    def get(self, request):
        return Response({"id": request.user.id, "token_type": request.user.token_type})


class Authorize(APIView):
    authentication_classes = [ServiceAuthentication]
    permission_classes = [HasScope("conversations:authorize")]

    def post(self, request):
        return Response({"id": request.user.id, "scopes": sorted(request.user.scopes)})


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
    # Below jwt.encode, which refuses to make the worst of them.
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


def test_authentication_asks_no_database(django_assert_num_queries):
    with django_assert_num_queries(0):
        assert send_token(token()).status_code == 200


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
def test_the_scheme_is_read_as_http_says(scheme):
    assert send(f"{scheme} {token()}").status_code == 200


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dTpw", "Token abc"])
def test_without_a_bearer_token_one_is_asked_for(header):
    response = send(header)

    assert outcome(response) == MISSING
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="api"'


def test_a_refused_token_is_told_so():
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
def test_what_is_not_a_token_is_refused(text):
    assert outcome(send_token(text)) == INVALID


@pytest.mark.parametrize("suffix", ["!", " x", ".", "\t.", "=", "%0A"])
def test_a_good_token_with_anything_after_it_is_refused(suffix):
    assert outcome(send_token(token() + suffix)) == INVALID


def test_a_token_above_8_kib_is_refused_though_it_is_signed():
    assert outcome(send_token(token(padding="x" * 8_192))) == INVALID


def test_a_token_just_below_8_kib_is_accepted():
    assert send_token(token(padding="x" * 5_900)).status_code == 200


@pytest.mark.parametrize("alg", ["none", "None", "nOnE", "", None])
@pytest.mark.parametrize("signature", ["", "AA"])
def test_an_unsigned_token_is_refused(alg, signature):
    claims = {"user_id": "u-1", "exp": int(time.time()) + 60}

    unsigned = f"{encoded({'alg': alg, 'typ': 'JWT'})}.{encoded(claims)}.{signature}"

    assert outcome(send_token(unsigned)) == INVALID


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_another_algorithm_with_the_right_secret_is_refused(algorithm):
    assert outcome(send_token(token(algorithm=algorithm))) == INVALID


def test_the_configured_algorithm_is_the_one_that_counts(settings):
    settings.JWT_ALGORITHM = "HS384"

    assert send_token(token(algorithm="HS384")).status_code == 200
    assert outcome(send_token(token(algorithm="HS256"))) == INVALID


def test_another_key_is_refused():
    assert outcome(send_token(token(key=SECRET[::-1]))) == INVALID


def test_a_token_of_the_former_secret_is_refused_after_the_change(settings):
    former = token()
    assert send_token(former).status_code == 200

    settings.JWT_SECRET_KEY = SECRET[::-1]

    assert outcome(send_token(former)) == INVALID


@pytest.fixture(scope="module")
def rsa_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def test_a_token_signed_with_a_private_key_is_refused_where_a_secret_is_shared(rsa_key):
    assert outcome(send_token(token(key=rsa_key, algorithm="RS256"))) == INVALID


@pytest.mark.parametrize("header", ["jwk", "jku", "x5u", "x5c"])
def test_a_token_cannot_bring_its_own_key(rsa_key, header):
    own = {
        "jwk": json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key.public_key())),
        "jku": "http://127.0.0.1:9/keys",
        "x5u": "http://127.0.0.1:9/cert",
        "x5c": ["MIIB"],
    }

    forged = token(key=rsa_key, algorithm="RS256", headers={header: own[header]})

    assert outcome(send_token(forged)) == INVALID


def test_an_unknown_critical_extension_is_refused():
    assert outcome(send_token(token(headers={"crit": ["x"], "x": 1}))) == INVALID


def test_a_tampered_payload_is_refused():
    header, _, signature = token().split(".")
    payload = encoded({"user_id": "u-2", "exp": int(time.time()) + 60})

    assert outcome(send_token(f"{header}.{payload}.{signature}")) == INVALID


def test_a_truncated_signature_is_refused():
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
def test_times_must_be_there_and_be_numbers(claims, expected):
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
def test_issuer_and_audience_are_checked_where_configured(settings, claims, accepted):
    settings.JWT_ISSUER = "https://auth"
    settings.JWT_AUDIENCE = "chat"

    assert send_token(token(**claims)).status_code == (200 if accepted else 401)


def test_issuer_and_audience_do_not_matter_where_not_configured():
    assert send_token(token(iss="anybody", aud="anything")).status_code == 200


@pytest.mark.parametrize("token_type", ["refresh", "service", "Access", "", None, 1, ["access"]])
def test_only_access_tokens_open_the_door_of_users(token_type):
    assert outcome(send_token(token(token_type=token_type, sub="u-1"))) == INVALID


@pytest.mark.parametrize("user_id", ["u", "507f1f77bcf86cd799439014", "a_b.c:d@e-f", *IDS])
def test_ids_are_kept_exactly(user_id):
    assert send_token(token(user_id=user_id)).json()["id"] == user_id


@pytest.mark.parametrize(
    "user_id",
    [*NO_IDS, "\ud800", 1, 1.5, True, None, ["u-1"], {"$gt": ""}],
)
def test_what_is_not_an_id_is_refused(user_id):
    assert outcome(send_token(token(user_id=user_id, sub="u-1"))) == INVALID


def test_the_subject_is_the_caller_where_the_claim_is_absent():
    assert send_token(token(without=["user_id"], sub="u-7")).json()["id"] == "u-7"


@pytest.mark.parametrize("subject", ["", "u" * 256, "u-1\n"])
def test_a_subject_that_is_not_an_id_is_refused(subject):
    assert outcome(send_token(token(without=["user_id"], sub=subject))) == INVALID


def test_an_integer_subject_is_refused_even_beside_a_good_id():
    assert outcome(send_token(token(without=["user_id"], sub=7))) == INVALID
    assert outcome(send_token(token(user_id="u-1", sub=7))) == INVALID


def test_a_token_about_nobody_is_refused():
    assert outcome(send_token(token(without=["user_id"]))) == INVALID


def test_the_claim_that_names_the_user_is_a_setting(settings):
    settings.JWT_USER_ID_CLAIM = "uid"

    assert send_token(token(uid="u-9", sub="other")).json()["id"] == "u-9"


def test_claims_of_power_give_none():
    powerful = token(is_staff=True, is_superuser=True, scope="conversations:authorize")

    assert send_token(powerful).status_code == 200
    assert outcome(call_as_service(powerful)) == INVALID


def test_a_service_with_the_scope_may_pass():
    response = call_as_service(service_token(scope="users:export conversations:authorize"))

    assert response.status_code == 200
    assert response.json() == {
        "id": "message-service",
        "scopes": ["conversations:authorize", "users:export"],
    }


@pytest.mark.parametrize(
    "scope", ["", "conversations", "conversations:authorize2", "CONVERSATIONS:AUTHORIZE", "a,b"]
)
def test_a_service_without_the_scope_may_not(scope):
    response = call_as_service(service_token(scope=scope))

    assert outcome(response) == (403, "INSUFFICIENT_PERMISSIONS")
    assert 'error="insufficient_scope"' in response.headers["WWW-Authenticate"]


def test_a_service_token_without_scopes_has_none():
    assert outcome(call_as_service(service_token())) == (403, "INSUFFICIENT_PERMISSIONS")


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
def test_other_tokens_do_not_open_the_door_of_services(claims):
    assert outcome(call_as_service(service_token(**claims))) == INVALID


def test_the_door_of_services_asks_for_a_token_too():
    response = APIClient().post("/internal/v1/authorize")

    assert outcome(response) == MISSING
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="api"'


@pytest.mark.parametrize(
    "configuration",
    [
        {"JWT_SECRET_KEY": ""},
        {"JWT_ALGORITHM": "none"},
        {"JWT_ALGORITHM": "HS1"},
        {"JWT_ALGORITHM": "RS256", "JWT_JWKS_URL": ""},
    ],
)
def test_a_configuration_that_cannot_verify_lets_nobody_in(settings, configuration):
    good = token()
    for name, value in configuration.items():
        setattr(settings, name, value)

    with pytest.raises(ImproperlyConfigured):
        send_token(good)


FORMER = f"{SECRET}-former"
COMING = f"{SECRET}-coming"


@pytest.mark.parametrize("key", [SECRET, FORMER, COMING])
def test_while_the_secret_changes_each_of_them_signs_validly(settings, key):
    settings.JWT_SECRET_KEY_FALLBACKS = [FORMER, COMING]

    assert send_token(token(key=key)).json() == {"id": "u-1", "token_type": "access"}
    assert outcome(send_token(token(key=key, exp=int(time.time()) - 60))) == EXPIRED
    assert outcome(send_token(token(key=f"{SECRET}-strange"))) == INVALID


def test_a_former_secret_that_is_empty_lets_nobody_in(settings):
    settings.JWT_SECRET_KEY_FALLBACKS = [""]

    with pytest.raises(ImproperlyConfigured, match="JWT_SECRET_KEY is empty"):
        send_token(token())
