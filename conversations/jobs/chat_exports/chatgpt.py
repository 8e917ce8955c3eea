"""Reads conversations of ChatGPT."""

import re
from typing import Any

from conversations.jobs.chat_exports.conversation import Reader
from conversations.states import ARCHIVED

NAME = "ChatGPT"
# Large exports have conversations-000.json, conversations-001.json and so on.
FILES = re.compile(r"(?:.*/)?conversations(?:-\d+)?\.json")
KEYS = {"mapping", "create_time", "update_time", "current_node", "conversation_id"}

_CUSTOM = ("gizmo_id", "conversation_template_id")
_KNOWN = {
    *("conversation_id", "id", "title", "create_time", "update_time", "default_model_slug"),
    *("is_archived", "is_starred", "pinned_time", *_CUSTOM),
    # Messages, and the state of the program itself.
    *("mapping", "current_node", "moderation_results", "safe_urls", "blocked_urls"),
    *("gizmo_type", "memory_scope", "conversation_origin", "async_status"),
}


def read(reader: Reader, value: dict[str, Any]) -> None:
    reader.read_id(value.get("conversation_id"), value.get("id"))
    reader.read_title(value.get("title"))
    times = reader.message_times("create_time")
    reader.read_time("created_at", value.get("create_time"), *times[:1])
    reader.read_time("last_activity", value.get("update_time"), *times[-1:])
    is_pinned = value.get("is_starred") if value.get("pinned_time") is None else True
    reader.read_flag("status", value.get("is_archived"), ARCHIVED)
    reader.read_flag("pinned", is_pinned)
    # Exports of 2023 have the model only in messages.
    *_earlier, latest = [None, *reader.in_messages("model_slug")]
    model = value.get("default_model_slug") or latest
    reader.read_models(None if model == "auto" else model)  # the platform chooses, as for null
    for name in _CUSTOM:
        reader.read_custom(name, value.get(name))
    reader.leave_out_rest(value, _KNOWN)
