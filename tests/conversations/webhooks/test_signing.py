"""Signatures, checked by the library of Standard Webhooks."""

import base64
from datetime import timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from conversation_service import clock
from conversations.webhooks import secrets
from conversations.webhooks.signing import sign

BODY = '{"title":"día 🔥"}'.encode()


def headers(signature, *, at):
    return {
        "webhook-id": "c_v7",
        "webhook-timestamp": str(at),
        "webhook-signature": signature,
    }


@pytest.mark.parametrize("length", [24, 32, 64])
def test_the_library_of_the_standard_accepts_a_signature(length):
    secret = f"whsec_{base64.b64encode(bytes(range(length))).decode()}"
    at = int(clock.now().timestamp())

    Webhook(secret).verify(BODY, headers(sign([secret], "c_v7", at, BODY), at=at))


def test_both_secrets_sign_during_a_rotation():
    new, old, other = (secrets.generate() for _ in range(3))
    at = int(clock.now().timestamp())
    sent = headers(sign([new, old], "c_v7", at, BODY), at=at)

    Webhook(new).verify(BODY, sent)
    Webhook(old).verify(BODY, sent)
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(BODY, sent)


@pytest.mark.parametrize(
    ("name", "value"), [("webhook-id", "c_v8"), ("webhook-timestamp", None), ("body", b"{}")]
)
def test_a_signature_covers_the_id_the_time_and_the_body(name, value):
    secret = secrets.generate()
    at = int(clock.now().timestamp())
    sent = headers(sign([secret], "c_v7", at, BODY), at=at)
    body = value if name == "body" else BODY
    if name != "body":
        sent[name] = value or str(at - int(timedelta(minutes=1).total_seconds()))

    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, sent)
