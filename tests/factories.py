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
# Titles and tags with signs, quotes, markup, emoji, a private character, and scripts of both
# directions. A file or a page must show each as it is.
WIDE_NAMES = [
    *("\U0001f525", "C++", "C#", "R&D", "a/b", 'the "best"', "50 %", "@home", "don't", "$set"),
    *("{x}", "{{ x }}", "1:1", "a;b", "-x", "=1+1", "<b>x</b>", "(a)|[b]^$.*+?\\", "\ue000"),
    "\U0001f525" * 50,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u2764\ufe0f",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "abc \u05e2\u05d1\u05e8\u05d9\u05ea (12)",
    "\u202eabc\u202c",
    "\u65e5\u672c\u8a9e",
    "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22",
]


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
