"""A conversation of another program, and the reader that makes a lenient line of it."""

import json
import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from conversations import limits
from conversations.jobs.chat_exports.values import read_number, read_seconds
from conversations.jobs.lenient import one_line

_MAX_LEFT_OUT = 50
_MAX_TEXT = 4_096  # characters; each field of a line accepts less, and names a longer text
_KEY = re.compile(limits.OBJECT_KEY)
# A text or a positive number with a name, also in MongoDB's extended JSON.
_NAMED_VALUE = r'"%s"\s*:\s*(?:\{\s*"\$date"\s*:\s*)?("[^"\\]+"|[0-9][0-9.eE+-]*)'

# Settings by their name in an export.
_SAME_NAME = ("temperature", "top_p", "max_tokens", "frequency_penalty", "presence_penalty")
COMMON_SETTINGS = {name: name for name in (*_SAME_NAME, "reasoning_effort")}
COMMON_SETTINGS |= {"topP": "top_p", "stop": "stop_sequences"}


@dataclass
class ExportedChat:
    """A conversation in an export.

    `line` is a lenient line; without it, `reason` says why the conversation is rejected. `adjusted`
    names the fields here with a value that could not be used as it is, `left_out` the values in the
    export that have no place here, 50 at most. `owner` is the user in the other program, if the
    export has one.
    """

    number: int
    line: dict[str, Any] = field(default_factory=dict)
    source_id: str | None = None
    owner: str | None = None
    adjusted: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    reason: str = ""


class Reader:
    """Collects a conversation's values, and the names of unusable values.

    The import of lenient lines adjusts values beyond a limit and half characters, and names them
    too.
    """

    def __init__(self, source: str, chat: ExportedChat, raw: str) -> None:
        self.source = source
        self.chat = chat
        self.raw = raw
        self.line = chat.line
        self.line |= {"settings": {}, "custom": {"source": source}}

    def note(self, name: str) -> None:
        if name not in self.chat.adjusted:
            self.chat.adjusted.append(name)

    def leave_out(self, name: str) -> None:
        """Name a value in the export that has no place here."""
        name = name[: limits.ID_LENGTH].encode("utf-8", "replace").decode()
        if name not in self.chat.left_out and len(self.chat.left_out) < _MAX_LEFT_OUT:
            self.chat.left_out.append(name)

    def leave_out_rest(self, values: Mapping[str, Any], known: Set[str], prefix: str = "") -> None:
        """Name the fields with a value that are neither read nor messages."""
        for name, value in values.items():
            if name not in known and value not in (None, "", False, [], {}):
                self.leave_out(prefix + name)

    def text(self, name: str, value: Any) -> str:
        """Return a text, or "" for null and for a value of another type."""
        if isinstance(value, dict) and "$oid" in value:
            value = value["$oid"]
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str):
            return value[:_MAX_TEXT]
        if value is not None:
            self.note(name)
        return ""

    def read_id(self, *values: Any) -> None:
        """Read the first id. Without one, the conversation is identified by its content."""
        id_ = next(filter(None, (self.text("external_id", value) for value in values)), "")
        longest = limits.EXTERNAL_ID_LENGTH - len(self.source) - 1
        if not id_ or len(id_) > longest or not id_.isprintable():
            self.note("external_id")
            id_ = f"sha256-{sha256(self.raw.encode()).hexdigest()}"
        else:
            self.read_custom("source_id", id_)
        self.chat.source_id = id_
        self.line["external_id"] = f"{self.source}:{id_}"

    def read_title(self, *values: Any) -> None:
        for value in values:
            text = self.text("title", value)
            title = one_line(text, limits.TITLE_LENGTH)
            if title != text:
                self.note("title")
            if title:
                self.line["title"] = text
                return

    def read_tags(self, *values: Any) -> None:
        """Read lists with names, or objects that have a name. Open WebUI also lists tag ids."""
        names: list[str] = []
        known = set()
        for value in values:
            if not isinstance(value, list | None):
                self.note("tags")
                continue
            for item in value or []:
                name = self.text("tags", item.get("name") if isinstance(item, dict) else item)
                if name and name not in known:
                    names.append(name)
                    known |= {name, name.casefold().replace(" ", "_")}
        if names:
            self.line["tags"] = names

    def read_time(self, name: str, *values: Any) -> None:
        """Read the first usable time: a number, text, or MongoDB's extended JSON."""
        for value in values:
            if value is None:
                continue
            seconds, as_expected = read_seconds(value)
            if not as_expected:
                self.note(name)
            if seconds is not None:
                self.line[name] = seconds
                return

    def in_messages(self, name: str) -> list[Any]:
        """Return the texts and positive numbers with a name, at any depth.

        A quote within a string is escaped, so that a message's text never matches.
        """
        return [json.loads(each) for each in re.findall(_NAMED_VALUE % name, self.raw)]

    def message_times(self, name: str) -> list[float]:
        times = (read_seconds(value)[0] for value in self.in_messages(name))
        return sorted(time for time in times if time is not None)

    def read_flag(self, name: str, value: Any, meaning: Any = True) -> None:
        if value not in (None, False, True):  # 0 and 1 are equal to these
            self.note(name)
        elif value:
            self.line[name] = meaning

    def read_settings(
        self, values: Mapping[str, Any], names: Mapping[str, str], prefix: str = ""
    ) -> None:
        """Read settings, by their name in the export.

        Of several names for a setting, the first usable value counts.
        """
        for exported, name in names.items():
            value = values.get(exported)
            path = f"settings.{name}"
            if value is None or value == "":
                continue
            if name == "stop_sequences":
                items = value if isinstance(value, list) else [value]
                read: Any = [text for item in items if (text := self.text(path, item))]
            elif name == "reasoning_effort":
                read = self.text(path, value)
            else:
                read = read_number(value)
            if read is None:
                self.note(path)
            elif self.line["settings"].setdefault(name, read) != read:
                self.leave_out(prefix + exported)

    def read_extra(self, values: Mapping[str, Any], names: Iterable[str], prefix: str = "") -> None:
        """Keep parameters that are no setting here, by their name in the export, as `extra`."""
        extra: dict[str, Any] = {}
        for name in names:
            value = values.get(name)
            if value is None or value == "":
                continue
            if isinstance(value, str):
                value = self.text(f"settings.extra.{name}", value)
            elif not isinstance(value, bool):
                value = read_number(value)
                if value is not None and abs(value) > limits.MAX_COUNT:
                    value = None
            if value is not None and len(extra) < limits.EXTRA_KEYS and _KEY.fullmatch(name):
                extra[name] = value
            else:
                self.leave_out(prefix + name)
        if extra:
            self.line["settings"]["extra"] = extra

    def read_models(self, *values: Any) -> None:
        """Read the first model as the setting. Several models are also kept in `custom`."""
        texts = [text for value in values if (text := self.text("settings.model", value))]
        if texts:
            self.line["settings"]["model"] = texts[0]
        if len(texts) > 1:
            self.note("settings.model")
            self.read_custom("models", ", ".join(texts))

    def read_custom(self, name: str, value: Any) -> None:
        """Keep a text that this service has no field for."""
        if text := self.text(f"custom.{name}", value):
            self.line["custom"][name] = text


def as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
