"""A stand-in for a receiver of webhooks: checks signatures, and prints a line for each event."""

import base64
import hmac
import time
from email.message import Message
from http import HTTPStatus

from conversation_service.development.stand_ins.server import LOOPBACK, Call, Reply, StandIn

# Of the demo data, so it protects nothing.
SECRET = "whsec_" + base64.b64encode(b"for development on this machine only").decode()
MAX_AGE_S = 300


def receiver(port: int, *, host: str = LOOPBACK) -> StandIn:
    def receive(call: Call) -> Reply:
        if not is_signed(call.headers, call.content):
            return HTTPStatus.UNAUTHORIZED, {"detail": "The signature is not valid"}
        data = call.body["data"]
        version = f" v{data['version']}" if data["version"] else ""
        print(  # noqa: T201 - for the terminal of `make run`
            f"webhook  {call.body['type']:22} {data['conversation_id'] or call.body['id']}"
            f"{version} {', '.join(data['fields'])}".rstrip(),
            flush=True,
        )
        return HTTPStatus.OK, {}

    return StandIn("receiver", (host, port), [("POST", "/events", receive)])


def is_signed(headers: Message, content: bytes) -> bool:
    """Return True if one of the signatures is ours and was made within MAX_AGE_S."""
    id_, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > MAX_AGE_S:
        return False
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{id_}.{timestamp}.".encode() + content, "sha256")
    expected = "v1," + base64.b64encode(digest).decode()
    found = headers.get("webhook-signature", "").split()
    return any(hmac.compare_digest(expected.encode(), each.encode()) for each in found)
