"""The least that a Python service under gunicorn could do for `list` and `get`: no framework.

It checks the token, queries MongoDB and writes JSON. It checks no parameter and has no errors.
"""

import base64
import os
from collections.abc import Callable, Iterable
from typing import Any

import jwt
import orjson
from bson import ObjectId
from pymongo import MongoClient

PATH = "/api/v1/conversations"
LIMIT = 20
SHOWN = [
    *("user_id", "character_id", "character_status", "title", "title_source", "status"),
    *("pinned_at", "settings", "settings_given", "tags", "custom", "metadata"),
    *("archived_at", "deleted_at", "purge_at", "forked_from", "version"),
]
# Settings that are stored only while they differ from these defaults.
NOT_STORED: dict[str, Any] = {"model": None, "reasoning_effort": None, "extra": {}}
NEWEST_FIRST = [("metadata.last_activity", -1), ("_id", -1)]
OPTIONS = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
SECRET = os.environ["JWT_SECRET_KEY"]

client: MongoClient[dict[str, Any]] = MongoClient(
    os.environ["MONGODB_URL"], minPoolSize=5, maxPoolSize=20, connect=False
)
conversations = client[os.environ["MONGODB_DATABASE"]].conversations


def application(
    environ: dict[str, str], start_response: Callable[[str, list[tuple[str, str]]], Any]
) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/health/live":
        body = b"{}"
    else:
        token = environ["HTTP_AUTHORIZATION"].removeprefix("Bearer ")
        user_id = jwt.decode(token, SECRET, ["HS256"])["user_id"]
        answer = page(user_id) if path == PATH else one(user_id, path.rpartition("/")[2])
        body = orjson.dumps(answer, default=str, option=OPTIONS)
    length = str(len(body))
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", length)])
    return [body]


def page(user_id: str) -> dict[str, Any]:
    found = conversations.find({"user_id": user_id, "status": "active"}, SHOWN)
    rows = found.sort(NEWEST_FIRST).limit(LIMIT + 1).to_list()
    more = len(rows) > LIMIT
    rows = [shown(row) for row in rows[:LIMIT]]
    return {
        "conversations": rows,
        "pagination": {
            "total_count": None if more else len(rows),
            "has_next": more,
            "has_prev": False,
            "next_cursor": cursor_after(rows[-1]) if more else None,
            "prev_cursor": None,
            "limit": LIMIT,
        },
    }


def one(user_id: str, conversation_id: str) -> dict[str, Any]:
    wanted = {"_id": ObjectId(conversation_id), "user_id": user_id}
    document = conversations.find_one(wanted, SHOWN)
    if document is None:
        raise LookupError(conversation_id)
    return shown(document)


def shown(document: dict[str, Any]) -> dict[str, Any]:
    document["id"] = document.pop("_id")
    document["object"] = "conversation"
    document["settings"] = NOT_STORED | document["settings"]
    document["is_archived"] = document["status"] == "archived"
    document["retention"] = None
    return document


def cursor_after(row: dict[str, Any]) -> str:
    position = [row["metadata"]["last_activity"], row["id"]]
    return base64.urlsafe_b64encode(orjson.dumps(position, default=str)).decode()
