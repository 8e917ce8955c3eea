"""Reads conversations of LibreChat."""

import re
from typing import Any

from conversations.jobs.chat_exports.conversation import COMMON_SETTINGS, Reader, as_dict
from conversations.states import ARCHIVED

NAME = "LibreChat"
FILES = re.compile(r"(?!__MACOSX/).*\.json")
KEYS = {"conversationId", "messagesTree", "exportAt"}

_SETTINGS = COMMON_SETTINGS | {
    "maxOutputTokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "maxTokens": "max_tokens",
    "maxContextTokens": "context_window",
    "effort": "reasoning_effort",
}
_EXTRA = (
    *("topK", "top_k", "seed", "thinking", "thinkingBudget", "thinkingLevel", "reasoning_summary"),
    *("verbosity", "promptCache", "promptCacheTtl", "web_search", "useResponsesApi", "region"),
    *("disableStreaming", "imageDetail", "resendFiles", "resendImages", "fileTokenLimit"),
)
_CUSTOM = ("endpoint", "agent_id", "assistant_id", "spec", "chatProjectId")
_KNOWN = {
    *("conversationId", "user", "title", "createdAt", "updatedAt", "isArchived", "pinned"),
    *("isPinned", "tags", "model", "options", *_SETTINGS, *_EXTRA, *_CUSTOM),
    # Messages, the file's own fields, and those of the database.
    *("messages", "messagesTree", "exportAt", "branches", "recursive", "presetId"),
    *("_id", "__v", "_meiliIndex", "tenantId", "endpointType", "iconURL"),
}


def read(reader: Reader, value: dict[str, Any]) -> None:
    # An exported conversation has `options`; a document of the database has them itself.
    options = {**value, **as_dict(value.get("options"))}
    reader.read_id(value.get("conversationId"))
    reader.chat.owner = reader.text("owner", value.get("user")) or None
    reader.read_title(value.get("title"), options.get("title"))
    times = reader.message_times("createdAt")
    reader.read_time("created_at", value.get("createdAt"), *times[:1])
    reader.read_time("last_activity", value.get("updatedAt"), *times[-1:])
    reader.read_flag("status", options.get("isArchived"), ARCHIVED)
    reader.read_flag("pinned", options.get("pinned", options.get("isPinned")))
    reader.read_tags(options.get("tags"))
    reader.read_settings(options, _SETTINGS)
    reader.read_extra(options, _EXTRA)
    reader.read_models(options.get("model"))
    for name in _CUSTOM:
        reader.read_custom(name, options.get(name))
    reader.leave_out_rest(options, _KNOWN)
