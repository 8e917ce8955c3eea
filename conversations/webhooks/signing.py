"""Webhook signatures, as Standard Webhooks defines them (version v1, HMAC-SHA256)."""

import base64
import hmac
from collections.abc import Iterable

from conversations.webhooks import secrets


def sign(live_secrets: Iterable[str], event_id: str, timestamp: int, body: bytes) -> str:
    """Return the header webhook-signature, with a signature for each live secret.

    `timestamp` is the attempt's time in seconds since the epoch.
    """
    signed = f"{event_id}.{timestamp}.".encode() + body
    digests = (hmac.digest(secrets.key(secret), signed, "sha256") for secret in live_secrets)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
