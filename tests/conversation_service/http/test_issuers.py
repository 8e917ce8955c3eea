"""Access tokens with the headers and claims that well-known issuers document."""

import time
from typing import Any, NamedTuple

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from rest_framework.test import APIClient

from tests.conversation_service import loopback
from tests.conversation_service.http.test_jwks import Issuer, public_jwk

USER = "6c1e2f5a-7a54-4b8e-9d55-2f0c4a1f7d11"
SECRET = "the secret of the project, which is long enough"
LIST = "/api/v1/conversations"


class Documented(NamedTuple):
    header: dict[str, str]
    claims: dict[str, Any]  # with the user's id as USER
    user_id: str = USER
    settings: dict[str, str] = {}
    algorithm: str = "RS256"


def header(**fields: str) -> dict[str, str]:
    return {"typ": "JWT"} | fields


ISSUERS = {
    "Auth0": Documented(
        header(kid="k1"),
        {
            "iss": "https://example.eu.auth0.com/",
            "sub": "auth0|64f0c1d2a3b4c5d6e7f80912",
            "aud": ["https://api.example.org", "https://example.eu.auth0.com/userinfo"],
            "azp": "Ab3dEfGh1jKlMn0pQrStUvWxYz123456",
            "scope": "openid profile email offline_access",
            "permissions": [],
        },
        "auth0|64f0c1d2a3b4c5d6e7f80912",
        {"JWT_ISSUER": "https://example.eu.auth0.com/", "JWT_AUDIENCE": "https://api.example.org"},
    ),
    "Auth0, RFC 9068": Documented(
        header(kid="k1", typ="at+jwt"),
        {
            "iss": "https://example.eu.auth0.com/",
            "sub": "google-oauth2|108204268033311374519",
            "aud": "https://api.example.org",
            "jti": "hYn3aTR1s7KmBD6Qx2oLZP",
            "client_id": "Ab3dEfGh1jKlMn0pQrStUvWxYz123456",
            "scope": "read:conversations",
        },
        "google-oauth2|108204268033311374519",
        {"JWT_AUDIENCE": "https://api.example.org"},
    ),
    "Keycloak": Documented(
        header(kid="k1"),
        {
            "jti": "onrtac:5a3d2f10-58a1-4c6f-8f0e-92b6f0a3d7c4",
            "iss": "https://login.example.org/realms/chat",
            "aud": ["chat", "account"],
            "sub": f"f:0f4c39f5-11c7-4f1c-9b9a-5e7d4b4b8f10:{USER}",
            "typ": "Bearer",
            "azp": "web",
            "sid": "b2a9e6c0-5c83-43c7-a3a6-63c1a4a9a1f2",
            "acr": "1",
            "allowed-origins": ["https://chat.example.org"],
            "realm_access": {"roles": ["default-roles-chat"]},
            "resource_access": {"account": {"roles": ["manage-account"]}},
            "scope": "openid email profile",
            "email_verified": True,
            "preferred_username": "ana",
        },
        f"f:0f4c39f5-11c7-4f1c-9b9a-5e7d4b4b8f10:{USER}",
        {"JWT_ISSUER": "https://login.example.org/realms/chat", "JWT_AUDIENCE": "chat"},
    ),
    "Cognito": Documented(
        {"kid": "k1"},
        {
            "sub": USER,
            "cognito:groups": ["readers"],
            "iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Ab3dEfGh1",
            "version": 2,
            "client_id": "7lhlkkfbfb4q5kpp90urffao",
            "origin_jti": "c0f2b7a4-4b4e-4c93-8a5c-1a7f9a3d5e02",
            "event_id": "0a9b3d5c-6c1d-4a8e-b2f4-7d3e5c1a9b80",
            "token_use": "access",
            "scope": "aws.cognito.signin.user.admin",
            "auth_time": 1_700_000_000,
            "jti": "d3e5c1a9-7b80-4f0a-9b3d-5c6c1d4a8eb2",
            "username": "ana",
        },
        settings={"JWT_ISSUER": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Ab3dEfGh1"},
    ),
    "Entra": Documented(
        header(kid="k1", x5t="k1"),
        {
            "aud": "9f2f1e9c-40a5-4d0b-8a3e-2c7f4d1b6a55",
            "iss": "https://login.microsoftonline.com/72f988bf-0000-41af-91ab-2d7cd011db47/v2.0",
            "aio": "AWQAm/8TAAAA7Jc0/0bVq1p8yYJQ3Kk=",
            "azp": "0c1a5b1d-8a0f-4a54-9f43-1f1f3e7a6d20",
            "azpacr": "0",
            "name": "Ana Ruiz",
            "oid": USER,
            "preferred_username": "ana@example.org",
            "rh": "0.AQoAv4j5cvGGr0GRqy180BHbR5wfL5-lQAtNij4sf00bald",
            "scp": "access_as_user",
            "sub": "kZyk3g6bGm3vH0v1m4d8WcYt9r2p7n5s1q0x",
            "tid": "72f988bf-0000-41af-91ab-2d7cd011db47",
            "uti": "5Yv0w3mS1Um8R2mC9tQbAA",
            "ver": "2.0",
        },
        settings={
            "JWT_USER_ID_CLAIM": "oid",
            "JWT_AUDIENCE": "9f2f1e9c-40a5-4d0b-8a3e-2c7f4d1b6a55",
        },
    ),
    "Supabase, shared secret": Documented(
        header(),
        {
            "iss": "https://abcdefghijklmnop.supabase.co/auth/v1",
            "sub": USER,
            "aud": "authenticated",
            "email": "ana@example.org",
            "phone": "",
            "app_metadata": {"provider": "email", "providers": ["email"]},
            "user_metadata": {},
            "role": "authenticated",
            "aal": "aal1",
            "amr": [{"method": "password", "timestamp": 1_700_000_000}],
            "session_id": "1b6e2f6c-0b9e-4a51-8a48-8c7a1d3f5e97",
            "is_anonymous": False,
        },
        settings={"JWT_AUDIENCE": "authenticated", "JWT_SECRET_KEY": SECRET},
        algorithm="HS256",
    ),
    "Supabase, signing keys": Documented(
        header(kid="k1"),
        {
            "iss": "https://abcdefghijklmnop.supabase.co/auth/v1",
            "sub": USER,
            "aud": "authenticated",
            "role": "authenticated",
            "session_id": "1b6e2f6c-0b9e-4a51-8a48-8c7a1d3f5e97",
        },
        settings={"JWT_AUDIENCE": "authenticated"},
        algorithm="ES256",
    ),
    "Firebase": Documented(
        header(kid="k1"),
        {
            "iss": "https://securetoken.google.com/chat-12345",
            "aud": "chat-12345",
            "auth_time": 1_700_000_000,
            "user_id": "Zx9YwV8uT7sR6qP5oN4mL3kJ2iH1",
            "sub": "Zx9YwV8uT7sR6qP5oN4mL3kJ2iH1",
            "email": "ana@example.org",
            "email_verified": False,
            "firebase": {
                "identities": {"email": ["ana@example.org"]},
                "sign_in_provider": "password",
            },
        },
        "Zx9YwV8uT7sR6qP5oN4mL3kJ2iH1",
        {"JWT_ISSUER": "https://securetoken.google.com/chat-12345", "JWT_AUDIENCE": "chat-12345"},
    ),
    "Clerk": Documented(
        header(kid="k1", cat="cl_B7d4PD111AAA"),
        {
            "azp": "https://chat.example.org",
            "fva": [0, -1],
            "iss": "https://clerk.example.org",
            "jti": "4f0a9b3d5c6c1d4a8eb2",
            "sid": "sess_2aXk9PqLmNoRsTuVwXyZ",
            "sts": "active",
            "sub": "user_2aXk9PqLmNoRsTuVwXyZ",
            "v": 2,
            "pla": "u:free",
            "o": {"id": "org_2aXk9PqLmNoR", "rol": "admin", "slg": "chat"},
        },
        "user_2aXk9PqLmNoRsTuVwXyZ",
        {"JWT_ISSUER": "https://clerk.example.org"},
    ),
}
KEYS = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
}
ID_TOKENS = {"Keycloak": {"typ": "ID"}, "Cognito": {"token_use": "id"}}


@pytest.fixture(params=ISSUERS)
def documented(request, settings):
    """An issuer of the table, with keys that this service accepts."""
    found = ISSUERS[request.param]
    for name, value in found.settings.items():
        setattr(settings, name, value)
    settings.JWT_ALGORITHM = [found.algorithm]
    issuer = Issuer()
    # Entra's keys have no alg, and the others' have.
    fields = {} if request.param == "Entra" else {"alg": found.algorithm}
    if found.algorithm in KEYS:
        issuer.published = [public_jwk(KEYS[found.algorithm], kid="k1", use="sig", **fields)]
    with loopback.serving(issuer) as address:
        settings.JWT_JWKS_URL = f"http://{address}/{request.param.replace(' ', '-')}"
        yield request.param, found


def send(found: Documented, **changes: Any):
    now = int(time.time())
    claims = {"iat": now, "nbf": now, "exp": now + 300} | found.claims | changes
    key: Any = KEYS.get(found.algorithm, SECRET)
    value = jwt.encode(claims, key, found.algorithm, headers=found.header)
    return APIClient().post(
        LIST,
        {"character_id": "luna"},
        headers={"Authorization": f"Bearer {value}"},
        format="json",
    )


def test_an_access_token_of_a_known_issuer_names_its_user(documented):
    _, found = documented

    response = send(found)

    assert response.status_code == 201, response.json()
    assert response.json()["user_id"] == found.user_id


def test_an_access_token_of_a_known_issuer_expires(documented):
    _, found = documented

    assert send(found, exp=int(time.time()) - 60).json()["error"]["code"] == "AUTH_TOKEN_EXPIRED"


# The ID tokens of the others look like their access tokens: JWT_AUDIENCE separates them.
@pytest.mark.parametrize("documented", ID_TOKENS, indirect=True)
def test_an_id_token_that_names_its_kind_is_rejected(documented):
    name, found = documented

    response = send(found, **ID_TOKENS[name])

    assert response.status_code == 401
    assert "ID token" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "documented",
    [name for name, found in ISSUERS.items() if "JWT_AUDIENCE" in found.settings],
    indirect=True,
)
def test_a_token_for_another_audience_is_rejected(documented):
    _, found = documented

    assert send(found, aud="another").status_code == 401
