"""Secrets that sign webhooks: whsec_ and base64, as Standard Webhooks defines them."""

import base64
import secrets
from binascii import Error
from datetime import datetime, timedelta
from typing import TypedDict

PREFIX = "whsec_"
MIN_BYTES, MAX_BYTES = 24, 64
NEW_BYTES = 32
# For this time after a rotation the old secret signs too, so that receivers can replace it.
ROTATION = timedelta(hours=24)


class StoredSecret(TypedDict):
    """A secret. It is valid until `expires_at`; with None, until the next rotation."""

    secret: str
    created_at: datetime
    expires_at: datetime | None


def generate() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(NEW_BYTES)).decode()


def key(secret: str) -> bytes:
    """Return the bytes that sign. Raises ValueError if they are not 24 to 64 bytes in base64."""
    try:
        value = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except Error:
        value = b""
    if not secret.startswith(PREFIX) or not MIN_BYTES <= len(value) <= MAX_BYTES:
        raise ValueError("A secret is whsec_ and 24 to 64 bytes in base64.")
    return value
