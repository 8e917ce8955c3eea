"""Request bodies with defaults, clients and conversations for tests."""

from typing import Any

import jwt
from django.conf import settings
from factory.base import DictFactory
from factory.declarations import Sequence
from rest_framework.test import APIClient

from conversation_service import clock
from tests.documented import DocumentedClient

PATH = "/api/v1/conversations"


class NewConversation(DictFactory):
    """The body of a create request."""

    character_id = "luna"
    title = Sequence(lambda n: f"Conversation {n}")


def token(user_id: str = "alice", **claims: Any) -> str:
    now = int(clock.now().timestamp())
    payload = {"user_id": user_id, "token_type": "access", "iat": now, "exp": now + 3600} | claims
    return jwt.encode(payload, settings.JWT_SECRET_KEY, settings.JWT_ALGORITHM[0])


def client_of(user_id: str) -> APIClient:
    """Return a client with a token of this user."""
    return DocumentedClient(headers={"Authorization": f"Bearer {token(user_id)}"})


def conversation(client: APIClient, *states: str, **fields: Any) -> dict[str, Any]:
    """Create a conversation and apply states in order: "archived", "deleted", "pinned"."""
    response = client.post(PATH, NewConversation(**fields))
    assert response.status_code == 201, response.json()
    path = f"{PATH}/{response.json()['id']}"
    steps = {
        "archived": lambda: client.post(f"{path}/archive"),
        "deleted": lambda: client.delete(path),
        "pinned": lambda: client.post(f"{path}/pin"),
    }
    for state in states:
        response = steps[state]()
        assert response.status_code == 200, response.json()
    return response.json()
