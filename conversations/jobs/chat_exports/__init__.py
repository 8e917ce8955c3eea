"""Reads the exports of ChatGPT, Open WebUI and LibreChat as lenient lines of an import.

A file can have several 100 MB, so it is read one conversation at a time. Messages belong to another
service: an export's messages give only times, and the model of a conversation without one.
"""

import json
import re
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from conversations.jobs.chat_exports import chatgpt, librechat, open_webui
from conversations.jobs.chat_exports.conversation import ExportedChat, Reader
from conversations.jobs.chat_exports.files import ExportError, read_values

__all__ = ["PROGRAMS", "ExportError", "ExportedChat", "read_export"]

# Each module has the program's NAME, the names of its FILES in an archive, the KEYS of which a
# conversation has at least one, and a function that reads a conversation.
PROGRAMS: dict[str, Any] = {"chatgpt": chatgpt, "open-webui": open_webui, "librechat": librechat}
# A byte of another encoding: see read_values.
_NOT_UTF_8 = re.compile("[\udc80-\udcff]")
_LISTS = ("conversations", "chats", "data", "items")  # of an object around the conversations


def read_export(source: str, path: Path) -> Iterator[ExportedChat]:
    """Yield each conversation in a file, which can be JSON, packed by gzip, or a zip archive.

    Raises ExportError, also after some conversations, and OSError if the file cannot be opened.
    """
    program = PROGRAMS[source]
    number = 0
    for value, text in read_values(path, program.FILES):
        for conversation, raw in _unwrap(value, text, program.KEYS):
            number += 1
            chat = ExportedChat(number)
            if not isinstance(conversation, dict) or program.KEYS.isdisjoint(conversation):
                chat.reason = f"This is not a conversation of {program.NAME}."
            elif _NOT_UTF_8.search(raw):
                chat.reason = "The conversation is not valid JSON in UTF-8."
            else:
                reader = Reader(source, chat, raw)
                program.read(reader, conversation)
                if not {"created_at", "last_activity"} & reader.line.keys():
                    reader.note("created_at")  # the time of the import
            yield chat


def _unwrap(value: Any, text: str, keys: Set[str]) -> Iterator[tuple[Any, str]]:
    """Return the value, or the conversations in an object around them, with their text."""
    if isinstance(value, dict) and keys.isdisjoint(value):
        for name in _LISTS:
            if isinstance(value.get(name), list):
                return ((item, json.dumps(item)) for item in value[name])
    return iter([(value, text)])
