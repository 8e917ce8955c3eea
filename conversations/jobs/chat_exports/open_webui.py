"""Reads conversations of Open WebUI."""

import re
from typing import Any

from conversations.jobs.chat_exports.conversation import COMMON_SETTINGS, Reader, as_dict
from conversations.jobs.chat_exports.values import read_number
from conversations.jobs.lenient import SECONDS_UNTIL_MILLISECONDS
from conversations.states import ARCHIVED

NAME = "Open WebUI"
FILES = re.compile(r"(?!__MACOSX/).*\.json")
KEYS = {"chat", "history", "models", "share_id"}

_SETTINGS = COMMON_SETTINGS | {"num_predict": "max_tokens", "num_ctx": "context_window"}
_KNOWN = {
    *("id", "user_id", "title", "created_at", "updated_at", "timestamp", "archived", "pinned"),
    *("folder_id", "meta", "chat", "tags", "params", "options", "models"),
    *("history", "messages", "last_read_at"),
}


def read(reader: Reader, value: dict[str, Any]) -> None:
    # The first exports had only the inner object.
    chat = value["chat"] if isinstance(value.get("chat"), dict) else value
    reader.read_id(value.get("id"), chat.get("id"))
    reader.chat.owner = reader.text("owner", value.get("user_id")) or None
    reader.read_title(value.get("title"), chat.get("title"))
    began = read_number(chat.get("timestamp"))
    if began is not None and began >= SECONDS_UNTIL_MILLISECONDS:
        began /= 1000  # in milliseconds, in every release
    times = reader.message_times("timestamp")
    reader.read_time("created_at", value.get("created_at"), began, *times[:1])
    latest = [value.get("updated_at"), value.get("timestamp") if chat is not value else None]
    reader.read_time("last_activity", *latest, *times[-1:])
    reader.read_flag("status", value.get("archived"), ARCHIVED)
    reader.read_flag("pinned", value.get("pinned"))
    meta = as_dict(value.get("meta"))
    reader.read_tags(chat.get("tags"), meta.get("tags"))
    params = as_dict(chat.get("params")) | as_dict(chat.get("options"))
    system = {"system": params.pop("system", None)}  # a message, not a parameter
    reader.read_settings(params, _SETTINGS, "params.")
    others = [name for name in params if name not in _SETTINGS]
    reader.read_extra(params, others, "params.")
    models = chat.get("models")
    reader.read_models(*(models if isinstance(models, list) else [models]))
    reader.read_custom("folder_id", value.get("folder_id"))
    reader.leave_out_rest(system, set(), "params.")
    reader.leave_out_rest(meta, {"tags"}, "meta.")
    for each in (value, chat):
        reader.leave_out_rest(each, _KNOWN)
