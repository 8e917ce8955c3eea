"""A stand-in for Message: counts messages, and pushes the totals to the Conversation Service."""

from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from threading import Lock
from typing import Any

import requests

from conversation_service import clock
from conversation_service.development.stand_ins.server import LOOPBACK, Call, Reply, StandIn
from conversation_service.tokens import service_token

PUSH_S = 5.0
USER, CHARACTER = "user", "character"
CHARACTERS_PER_TOKEN = 4  # an estimate


@dataclass
class Conversation:
    # Starts with the time, to be greater than each number of an earlier run.
    sequence: int = field(default_factory=lambda: int(clock.now().timestamp() * 1000))
    message_count: int = 0
    total_input_tokens: int = 0
    total_output_tokens: int = 0
    first_message_at: str | None = None
    last_message_at: str | None = None

    def add(self, sender: str, text: str) -> None:
        tokens = -(-len(text) // CHARACTERS_PER_TOKEN)
        if sender == USER:
            self.total_input_tokens += tokens
        else:
            self.total_output_tokens += tokens
        now = clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self.first_message_at = self.first_message_at or now
        self.last_message_at = now
        self.message_count += 1
        self.sequence += 1

    def activity(self) -> dict[str, Any]:
        total = self.total_input_tokens + self.total_output_tokens
        return asdict(self) | {"total_tokens": total}


def message(port: int, *, service_url: str, host: str = LOOPBACK) -> StandIn:
    """Return a stand-in that pushes activity to the Conversation Service at `service_url`."""
    conversations: dict[str, Conversation] = {}
    lock = Lock()

    def stats(call: Call) -> Reply:
        with lock:
            found = conversations.get(call.path["id"])
            if found is None:
                return HTTPStatus.NOT_FOUND, {"detail": "This conversation has no messages"}
            totals = found.activity()
        del totals["sequence"]
        return HTTPStatus.OK, totals

    def say(call: Call) -> Reply:
        match call.body:
            case {"sender": "user" | "character" as sender, "text": str(text)} if text:
                with lock:
                    talk = conversations.setdefault(call.path["id"], Conversation())
                    talk.add(sender, text)
                    activity = talk.activity()
                pushed = _push(service_url, call.path["id"], activity)
                return HTTPStatus.CREATED, {"activity": activity, "pushed": pushed}
        return HTTPStatus.UNPROCESSABLE_ENTITY, {"detail": "Send sender (user, character) and text"}

    one = "/api/v1/conversations/(?P<id>[0-9a-f]{24})"
    return StandIn(
        "message-service",
        (host, port),
        [("GET", f"{one}/stats", stats), ("POST", f"{one}/messages", say)],
    )


def _push(service_url: str, conversation_id: str, activity: dict[str, Any]) -> dict[str, Any]:
    """Return the push's outcome; Message accepts the text even if the push fails."""
    token = service_token("message-service", "conversations:activity")
    try:
        with requests.Session() as session:
            session.trust_env = False  # a proxy cannot reach this machine
            response = session.put(
                f"{service_url}/internal/v1/conversations/{conversation_id}/activity",
                json=activity,
                headers={"Authorization": f"Bearer {token}"},
                timeout=PUSH_S,
            )
    except requests.RequestException as error:
        return {"status": None, "error": type(error).__name__}
    return {"status": response.status_code, "applied": response.status_code == HTTPStatus.OK}
