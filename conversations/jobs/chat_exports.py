"""Reads the exports of ChatGPT, Open WebUI and LibreChat as lenient lines of an import.

A file can have several 100 MB, so it is read one conversation at a time. Messages belong to another
service: an export's messages give only times, and the model of a conversation without one.
"""

import gzip
import json
import math
import re
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, cast
from zipfile import BadZipFile, ZipFile

from django.db.models import IntegerField

from conversation_service.http.ndjson import is_utf_16
from conversation_service.integers import read_integer
from conversations import limits
from conversations.documents import SETTINGS
from conversations.jobs.lenient import SECONDS_UNTIL_MILLISECONDS, one_line, seconds
from conversations.states import ARCHIVED

_CHUNK = 256 * 1024
# A longer conversation is rejected; it would take several times its length in memory.
MAX_BYTES = 64 * 1024 * 1024
# Text between conversations: white space and commas, or values that are no conversations.
_MAX_BETWEEN = 64 * 1024
# Values that are nested deeper than json.loads can read are left out: they are in messages.
_MAX_DEPTH = 100
_LONG_INTEGER = 20  # digits
_MAX_TAGS = 100
MAX_LEFT_OUT = 50
_MAX_TAG = 4 * limits.TAG_LENGTH

_KEY = re.compile(limits.OBJECT_KEY)
_DIGITS = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_MIN_EPOCH_DIGITS = 9  # of seconds: from 1973 on
# By their number of digits. As milliseconds, 12 digits are before 1990 and 14 after 2286.
_COMPACT_DATES = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}

_STRUCTURE = re.compile(rb'["\[\]{}]')
_REST_OF_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
# Large exports of ChatGPT have conversations-000.json, conversations-001.json and so on.
_CHATGPT_FILE = re.compile(r"(?:.*/)?conversations(?:-\d+)?\.json")
_JSON_FILE = re.compile(r"(?!__MACOSX/).*\.json")
_LISTS = ("conversations", "chats", "data", "items")  # of an object around the conversations


class ExportError(Exception):
    """The file is no export, or it is damaged. The conversations before the damage were read."""


@dataclass
class ExportedChat:
    """A conversation in an export.

    `line` is a lenient line; without it, `reason` says why the conversation is rejected. `adjusted`
    names the fields here with a value that could not be used as it is, `left_out` the values in the
    export that have no place here, MAX_LEFT_OUT at most. `owner` is the user in the other program,
    if the export has one.
    """

    number: int
    line: dict[str, Any] = field(default_factory=dict)
    source_id: str | None = None
    owner: str | None = None
    adjusted: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    reason: str = ""


def read_export(source: str, path: Path) -> Iterator[ExportedChat]:
    """Yield each conversation in a file, which can be JSON, packed by gzip, or a zip archive.

    Raises ExportError, also after some conversations, and OSError if the file cannot be opened.
    """
    number = 0
    with _json_files(path, _CHATGPT_FILE if source == "chatgpt" else _JSON_FILE) as files:
        for file in files:
            for raw in _split(_chunks(file)):
                for value, text in _conversations(source, raw):
                    number += 1
                    yield _read(source, number, value, text)


@contextmanager
def _json_files(path: Path, names: re.Pattern[str]) -> Iterator[Iterator[IO[bytes]]]:
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start.startswith(b"PK"):
            try:
                archive = ZipFile(file)
            except BadZipFile:
                raise ExportError("The zip archive is damaged or incomplete.") from None
            with archive:
                found = sorted(name for name in archive.namelist() if names.fullmatch(name))
                if not found:
                    raise ExportError("The zip archive contains no conversations.json.")
                yield _opened(archive, found)
        elif start.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=file) as unzipped:
                yield iter([cast(IO[bytes], unzipped)])
        else:
            yield iter([file])


def _opened(archive: ZipFile, names: list[str]) -> Iterator[IO[bytes]]:
    for name in names:
        try:
            file = archive.open(name)
        except (RuntimeError, NotImplementedError, BadZipFile) as error:  # such as a password
            raise ExportError(f"The zip archive cannot be read: {error}.") from None
        with file:
            yield file


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    """Yield a file without its BOM. Raises ExportError if it is no JSON text in UTF-8."""
    try:
        chunk = file.read(_CHUNK)
        if is_utf_16(chunk):
            raise ExportError("The file is in UTF-16 or UTF-32. Convert it to UTF-8.")
        chunk = chunk.removeprefix(BOM_UTF8)
        if chunk.lstrip()[:1] not in {b"[", b"{"}:
            raise ExportError("The file does not start with a JSON array or object.")
        while chunk:
            yield chunk
            chunk = file.read(_CHUNK)
    except (EOFError, zlib.error, BadZipFile, gzip.BadGzipFile) as error:
        raise ExportError(f"The file is damaged or incomplete: {error}.") from None


def _split(chunks: Iterator[bytes]) -> Iterator[bytes | None]:
    """Yield each value's text, in a JSON array or in a sequence.

    Only strings and brackets matter, so a faulty value does not affect the others. Yields None for
    a value above MAX_BYTES. Raises ExportError if the text ends within a value.
    """
    depth = list_depth = begin = 0  # list_depth: 1 within the array
    value, between = _Bounded(MAX_BYTES), _Bounded(_MAX_BETWEEN)
    for chunk, position in _brackets(chunks):
        bracket = chunk[position : position + 1]
        is_between = depth == list_depth
        if not bracket:  # the end of the chunk
            (between if is_between else value).add(chunk[begin:])
            begin = 0
        elif bracket in b"[{":
            if is_between:
                between.add(chunk[begin:position])
                yield from _strays(between)
                begin = position
            if depth == 0 and bracket == b"[":
                list_depth, begin = 1, position + 1
            depth += 1
        else:
            depth -= 1
            if depth < 0:
                raise ExportError("The file has a closing bracket without an opening one.")
            if depth == list_depth:
                value.add(chunk[begin : position + 1])
                yield value.take()
                begin = position + 1
            elif depth < list_depth:  # the end of the array
                between.add(chunk[begin:position])
                yield from _strays(between)
                list_depth, begin = 0, position + 1
    if depth:
        raise ExportError("The file ends too early: it is incomplete.")
    yield from _strays(between)


def _brackets(chunks: Iterator[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield the chunk and the position of each bracket outside strings, and each chunk's end."""
    skip = 0
    in_string = False
    for chunk in chunks:
        position, skip = skip, 0
        while True:
            if in_string:
                rest = _REST_OF_STRING.match(chunk, position)
                position = rest.end() if rest else position
                if chunk[position : position + 1] == b"\\":
                    skip = 1  # the escaped byte is in the next chunk
                if chunk[position : position + 1] != b'"':
                    break
                in_string = False
                position += 1
            match = _STRUCTURE.search(chunk, position)
            if match is None:
                break
            position = match.end()
            if match[0] == b'"':
                in_string = True
            else:
                yield chunk, match.start()
        yield chunk, len(chunk)
    if in_string:
        raise ExportError("The file ends too early: it is incomplete.")


class _Bounded:
    """A text with at most `limit` bytes. A longer one is dropped."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.text = bytearray()
        self.is_too_long = False

    def add(self, part: bytes) -> None:
        self.is_too_long = self.is_too_long or len(self.text) + len(part) > self.limit
        if self.is_too_long:
            self.text.clear()
        else:
            self.text += part

    def take(self) -> bytes | None:
        """Return the text, or None if it was too long, and begin anew."""
        text = None if self.is_too_long else bytes(self.text)
        self.text.clear()
        self.is_too_long = False
        return text


def _strays(between: _Bounded) -> Iterator[bytes]:
    """Yield the values between two conversations, such as null."""
    text = between.take()
    if text is None:
        raise ExportError("The file has a long text between two conversations.")
    # A BOM is there if files were written one behind the other.
    yield from filter(None, map(bytes.strip, text.replace(BOM_UTF8, b"").split(b",")))


def _conversations(source: str, raw: bytes | None) -> Iterator[tuple[Any, bytes | None]]:
    """Yield each value with its text: a conversation, or the conversations in an object."""
    if raw is None:
        yield None, None
        return
    value = _loads(raw)
    known = isinstance(value, dict) and _SOURCES[source].recognizes(value)
    inner = [] if known or not isinstance(value, dict) else [value.get(name) for name in _LISTS]
    lists = [each for each in inner if isinstance(each, list)]
    if not lists:
        yield value, raw
    for each in lists[:1]:
        for item in each:
            yield item, json.dumps(item).encode()


def _loads(raw: bytes) -> Any:
    """Parse a value as Python does, which accepts NaN and lone surrogates.

    Returns the ValueError of a text that is not JSON in UTF-8.
    """
    for simplify in (bytes, _shallow):
        try:
            return json.loads(simplify(raw).decode(), parse_int=_integer)
        except RecursionError:
            continue
        except ValueError as error:
            return error
    return ValueError("The value is nested too deeply.")


def _integer(digits: str) -> float:
    # Python rejects integers with more than 4,300 digits.
    return int(digits) if len(digits) < _LONG_INTEGER else float(digits)


def _shallow(raw: bytes) -> bytes:
    """Replace each value that is nested deeper than _MAX_DEPTH by null."""
    kept = bytearray()
    depth = begin = 0
    for match in _STRING_OR_BRACKET.finditer(raw):
        if match[0] in {b"[", b"{"}:
            depth += 1
            if depth == _MAX_DEPTH + 1:
                kept += raw[begin : match.start()] + b"null"
        elif match[0] in {b"]", b"}"}:
            depth -= 1
            if depth == _MAX_DEPTH:
                begin = match.end()
    return bytes(kept + raw[begin:])


def _read(source: str, number: int, value: Any, raw: bytes | None) -> ExportedChat:
    chat = ExportedChat(number)
    if raw is None:
        chat.reason = f"The conversation has more than {MAX_BYTES // 2**20} MiB."
    elif isinstance(value, ValueError):
        chat.reason = "The conversation is not valid JSON in UTF-8."
    elif not isinstance(value, dict) or not _SOURCES[source].recognizes(value):
        chat.reason = f"This is not a conversation of {_SOURCES[source].name}."
    else:
        reader = _Reader(source, chat, raw)
        _SOURCES[source].read(reader, value)
        reader.finish()
    return chat


class _Reader:
    """Collects a conversation's values, and the names of unusable values."""

    def __init__(self, source: str, chat: ExportedChat, raw: bytes) -> None:
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
        if name not in self.chat.left_out and len(self.chat.left_out) < MAX_LEFT_OUT:
            self.chat.left_out.append(name)

    def leave_out_rest(self, values: Mapping[str, Any], known: Set[str], prefix: str = "") -> None:
        """Name the fields with a value that are neither read nor messages."""
        for name, value in values.items():
            if name not in known and value not in (None, "", False, [], {}):
                self.leave_out(prefix + name)

    def text(self, name: str, value: Any) -> str:
        """Return a text that can be stored, or "" for null.

        NUL is removed, a pair of surrogates is joined, and a lone one is replaced.
        """
        if isinstance(value, dict) and "$oid" in value:
            value = value["$oid"]
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if value is None:
            return ""
        if not isinstance(value, str):
            self.note(name)
            return ""
        text = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        text = text.replace("\0", "")
        if text != value:
            self.note(name)
        return text

    def read_id(self, *values: Any) -> None:
        """Read the first id. Without one, the conversation is identified by its content."""
        id_ = next(filter(None, (self.text("external_id", value) for value in values)), "")
        longest = limits.EXTERNAL_ID_LENGTH - len(self.source) - 1
        if not id_ or len(id_) > longest or not id_.isprintable():
            self.note("external_id")
            id_ = f"sha256-{sha256(self.raw).hexdigest()}"
        else:
            self.custom("source_id", id_)
        self.chat.source_id = id_
        self.line["external_id"] = f"{self.source}:{id_}"

    def read_owner(self, value: Any) -> None:
        self.chat.owner = self.text("owner", value) or None

    def read_title(self, *values: Any) -> None:
        for value in values:
            text = self.text("title", value)
            title = one_line(text, limits.TITLE_LENGTH)
            if title != text:
                self.note("title")
            if title:
                self.line["title"] = title
                return

    def read_tags(self, *values: Any) -> None:
        """Read lists with names, or objects that have a name. Open WebUI also lists tag ids."""
        names: list[str] = []
        for value in values:
            if value is not None and not isinstance(value, list):
                self.note("tags")
                continue
            for item in (value or [])[:_MAX_TAGS]:
                name = self.text("tags", item.get("name") if isinstance(item, dict) else item)
                same = {known.casefold().replace(" ", "_") for known in names} | {*names}
                if name and name not in same:
                    names.append(name[:_MAX_TAG])
            if len(value or []) > _MAX_TAGS:
                self.note("tags")
        if names:
            self.line["tags"] = names

    def read_time(self, name: str, *values: Any) -> None:
        """Read the first usable time: a number, text, or MongoDB's extended JSON."""
        for value in values:
            if value is None:
                continue
            seconds, as_expected = _seconds(value)
            if not as_expected:
                self.note(name)
            if seconds is not None:
                self.line[name] = seconds
                return

    def message_times(self, pattern: bytes) -> list[float]:
        """Return the times in the messages, at any depth, in their order in time.

        A quote within a string is escaped, so that a message's text never matches.
        """
        found = (text.decode("ascii", "replace") for text in re.findall(pattern, self.raw))
        times = (_seconds(number if (number := _number(text)) else text)[0] for text in found)
        return sorted(seconds for seconds in times if seconds is not None)

    def read_flags(self, *, archived: Any, pinned: Any) -> None:
        if self._flag("status", archived):
            self.line["status"] = ARCHIVED
        if self._flag("pinned", pinned):
            self.line["pinned"] = True

    def _flag(self, name: str, value: Any) -> bool:
        if value not in (None, False, True):  # 0 and 1 are equal to these
            self.note(name)
            return False
        return bool(value)

    def read_settings(
        self, values: Mapping[str, Any], names: Mapping[str, str], prefix: str = ""
    ) -> None:
        """Read settings, by their name in the export. Lenient lines leave out what is too high.

        Of several names for a setting, the first usable value counts.
        """
        for exported, name in names.items():
            value = values.get(exported)
            if value is None or value == "":
                continue
            if name == "stop_sequences":
                read: Any = self._stop_sequences(value)
            elif name == "reasoning_effort":
                read = self.text(f"settings.{name}", value)[: limits.REASONING_EFFORT_LENGTH + 1]
            else:
                read = _number(value)
                if isinstance(SETTINGS[name].field, IntegerField):
                    read = read_integer(read)
                if read is None or abs(read) > limits.MAX_COUNT:
                    self.note(f"settings.{name}")
                    continue
            if self.line["settings"].setdefault(name, read) != read:
                self.leave_out(prefix + exported)

    def read_extra(self, values: Mapping[str, Any], names: Iterable[str], prefix: str = "") -> None:
        """Keep parameters that are no setting here, by their name in the export, as `extra`."""
        extra: dict[str, Any] = {}
        for name in names:
            value = values.get(name)
            if value is None or value == "":
                continue
            if isinstance(value, str):
                # Lenient lines leave out a text that is too long.
                value = self.text(f"settings.extra.{name}", value)[: limits.EXTRA_VALUE_LENGTH + 1]
            elif not isinstance(value, bool):
                number = _number(value)
                if number is None or abs(number) > limits.MAX_COUNT:
                    value = None
                elif isinstance(value, dict):
                    value = int(number) if number.is_integer() else number
            if value is not None and len(extra) < limits.EXTRA_KEYS and _KEY.fullmatch(name):
                extra[name] = value
            else:
                self.leave_out(prefix + name)
        if extra:
            self.line["settings"]["extra"] = extra

    def _stop_sequences(self, value: Any) -> list[str]:
        """Return texts that are cut where they are too long: the import leaves those out."""
        name = "settings.stop_sequences"
        values = value if isinstance(value, list) else [value]
        texts = [self.text(name, item) for item in values[: 2 * limits.STOP_SEQUENCES]]
        return [text[: limits.STOP_SEQUENCE_LENGTH + 1] for text in texts if text]

    def read_models(self, *values: Any) -> None:
        """Read the first model as the setting. Several models are also kept in `custom`."""
        texts = [text for value in values if (text := self.text("settings.model", value))]
        if texts:
            self.line["settings"]["model"] = texts[0][: limits.MODEL_LENGTH + 1]
        if len(texts) > 1:
            self.note("settings.model")
            self.custom("models", ", ".join(texts))

    def last_text(self, name: bytes) -> str | None:
        """Return the last text with a name in the messages."""
        found = re.findall(rb'"%s"\s*:\s*("[^"\\]+")' % name, self.raw)
        return json.loads(found[-1]) if found else None

    def custom(self, name: str, value: Any) -> None:
        """Keep a text that this service has no field for."""
        path = f"custom.{name}"
        text = self.text(path, value)
        if len(text) > limits.CUSTOM_VALUE_LENGTH:
            self.note(path)
        if text:
            self.line["custom"][name] = text[: limits.CUSTOM_VALUE_LENGTH]

    def finish(self) -> None:
        if "created_at" not in self.line and "last_activity" not in self.line:
            self.note("created_at")  # the time of the import


def _number(value: Any) -> float | None:
    if isinstance(value, dict) and [*value][:1] and next(iter(value)).startswith("$number"):
        value = next(iter(value.values()))  # MongoDB's {"$numberLong": "5"}
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _seconds(value: Any) -> tuple[float | None, bool]:
    """Return the seconds since 1970, or None; and whether the value is as exports have it.

    That is a number of seconds, MongoDB's extended JSON, or text with an offset. Other text is in
    UTC.
    """
    if isinstance(value, dict):
        value = value.get("$date")
        if (milliseconds := _number(value)) is not None:
            value = milliseconds / 1000
    if isinstance(value, str):
        return _seconds_of_text(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None, False
    number = seconds(value)
    return number, number == value


def _seconds_of_text(text: str) -> tuple[float | None, bool]:
    """Read digits such as 20240131 as a date, not as the seconds until August 1970."""
    try:
        if not _DIGITS.fullmatch(text):
            moment = datetime.fromisoformat(text)
        elif (form := _COMPACT_DATES.get(len(text))) and "1970" <= text < "2100":
            moment = datetime.strptime(text, form).replace(tzinfo=UTC)
            return moment.timestamp(), False
        else:
            is_epoch = len(text.partition(".")[0]) >= _MIN_EPOCH_DIGITS
            return (seconds(float(text)) if is_epoch else None), False
        number = seconds((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return None, False
    return number, moment.tzinfo is not None and number is not None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


_COMMON_SETTINGS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "topP": "top_p",
    "max_tokens": "max_tokens",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "stop": "stop_sequences",
    "reasoning_effort": "reasoning_effort",
}

_CHATGPT_CUSTOM = ("gizmo_id", "conversation_template_id")
_CHATGPT_KNOWN = {
    *("conversation_id", "id", "title", "create_time", "update_time", "default_model_slug"),
    *("is_archived", "is_starred", "pinned_time", *_CHATGPT_CUSTOM),
    # Messages, and the state of the program itself.
    *("mapping", "current_node", "moderation_results", "safe_urls", "blocked_urls"),
    *("gizmo_type", "memory_scope", "conversation_origin", "async_status"),
}


def _chatgpt(reader: _Reader, value: dict[str, Any]) -> None:
    reader.read_id(value.get("conversation_id"), value.get("id"))
    reader.read_title(value.get("title"))
    times = reader.message_times(rb'"create_time"\s*:\s*([0-9][0-9.eE+-]*)')
    reader.read_time("created_at", value.get("create_time"), *times[:1])
    reader.read_time("last_activity", value.get("update_time"), *times[-1:])
    pinned_at = value.get("pinned_time")
    pinned = value.get("is_starred") if pinned_at is None else True
    reader.read_flags(archived=value.get("is_archived"), pinned=pinned)
    # Exports of 2023 have the model only in messages.
    model = value.get("default_model_slug") or reader.last_text(b"model_slug")
    reader.read_models(None if model == "auto" else model)  # the platform chooses, as for null
    for name in _CHATGPT_CUSTOM:
        reader.custom(name, value.get(name))
    reader.leave_out_rest(value, _CHATGPT_KNOWN)


_OPEN_WEBUI_SETTINGS = _COMMON_SETTINGS | {"num_predict": "max_tokens", "num_ctx": "context_window"}
_OPEN_WEBUI_KNOWN = {
    *("id", "user_id", "title", "created_at", "updated_at", "timestamp", "archived", "pinned"),
    *("folder_id", "meta", "chat", "tags", "params", "options", "models"),
    *("history", "messages", "last_read_at"),
}


def _open_webui(reader: _Reader, value: dict[str, Any]) -> None:
    # The first exports had only the inner object.
    chat = value["chat"] if isinstance(value.get("chat"), dict) else value
    reader.read_id(value.get("id"), chat.get("id"))
    reader.read_owner(value.get("user_id"))
    reader.read_title(value.get("title"), chat.get("title"))
    began = _number(chat.get("timestamp"))
    if began is not None and began >= SECONDS_UNTIL_MILLISECONDS:
        began /= 1000  # in milliseconds, in every release
    times = reader.message_times(rb'"timestamp"\s*:\s*([0-9][0-9.]*)')
    reader.read_time("created_at", value.get("created_at"), began, *times[:1])
    latest = [value.get("updated_at"), value.get("timestamp") if chat is not value else None]
    reader.read_time("last_activity", *latest, *times[-1:])
    reader.read_flags(archived=value.get("archived"), pinned=value.get("pinned"))
    meta = _dict(value.get("meta"))
    reader.read_tags(chat.get("tags"), meta.get("tags"))
    params = _dict(chat.get("params")) | _dict(chat.get("options"))
    system = {"system": params.pop("system", None)}  # a message, not a parameter
    reader.read_settings(params, _OPEN_WEBUI_SETTINGS, "params.")
    others = [name for name in params if name not in _OPEN_WEBUI_SETTINGS]
    reader.read_extra(params, others, "params.")
    models = chat.get("models")
    reader.read_models(*(models if isinstance(models, list) else [models]))
    reader.custom("folder_id", value.get("folder_id"))
    reader.leave_out_rest(system, frozenset(), "params.")
    reader.leave_out_rest(meta, {"tags"}, "meta.")
    for each in (value, chat):
        reader.leave_out_rest(each, _OPEN_WEBUI_KNOWN)


_LIBRECHAT_SETTINGS = _COMMON_SETTINGS | {
    "maxOutputTokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "maxTokens": "max_tokens",
    "maxContextTokens": "context_window",
    "effort": "reasoning_effort",
}
_LIBRECHAT_EXTRA = (
    *("topK", "top_k", "seed", "thinking", "thinkingBudget", "thinkingLevel", "reasoning_summary"),
    *("verbosity", "promptCache", "promptCacheTtl", "web_search", "useResponsesApi", "region"),
    *("disableStreaming", "imageDetail", "resendFiles", "resendImages", "fileTokenLimit"),
)
_LIBRECHAT_CUSTOM = ("endpoint", "agent_id", "assistant_id", "spec", "chatProjectId")
_LIBRECHAT_KNOWN = {
    *("conversationId", "user", "title", "createdAt", "updatedAt", "isArchived", "pinned"),
    *("isPinned", "tags", "model", "options", *_LIBRECHAT_SETTINGS, *_LIBRECHAT_EXTRA),
    *_LIBRECHAT_CUSTOM,
    # Messages, the file's own fields, and those of the database.
    *("messages", "messagesTree", "exportAt", "branches", "recursive", "presetId"),
    *("_id", "__v", "_meiliIndex", "tenantId", "endpointType", "iconURL"),
}


def _librechat(reader: _Reader, value: dict[str, Any]) -> None:
    # An exported conversation has `options`; a document of the database has them itself.
    options = {**value, **_dict(value.get("options"))}
    reader.read_id(value.get("conversationId"))
    reader.read_owner(value.get("user"))
    reader.read_title(value.get("title"), options.get("title"))
    times = reader.message_times(rb'"createdAt"\s*:\s*(?:\{\s*"\$date"\s*:\s*)?"([^"]*)"')
    reader.read_time("created_at", value.get("createdAt"), *times[:1])
    reader.read_time("last_activity", value.get("updatedAt"), *times[-1:])
    pinned = options.get("pinned") if "pinned" in options else options.get("isPinned")
    reader.read_flags(archived=options.get("isArchived"), pinned=pinned)
    reader.read_tags(options.get("tags"))
    reader.read_settings(options, _LIBRECHAT_SETTINGS)
    reader.read_extra(options, _LIBRECHAT_EXTRA)
    reader.read_models(options.get("model"))
    for name in _LIBRECHAT_CUSTOM:
        reader.custom(name, options.get(name))
    reader.leave_out_rest(options, _LIBRECHAT_KNOWN)


@dataclass(frozen=True)
class _Source:
    name: str
    keys: frozenset[str]  # a conversation has at least one
    read: Callable[[_Reader, dict[str, Any]], None]

    def recognizes(self, value: dict[str, Any]) -> bool:
        return not self.keys.isdisjoint(value)


_SOURCES = {
    "chatgpt": _Source(
        "ChatGPT",
        frozenset({"mapping", "create_time", "update_time", "current_node", "conversation_id"}),
        _chatgpt,
    ),
    "open-webui": _Source(
        "Open WebUI", frozenset({"chat", "history", "models", "share_id"}), _open_webui
    ),
    "librechat": _Source(
        "LibreChat", frozenset({"conversationId", "messagesTree", "exportAt"}), _librechat
    ),
}
SOURCES = tuple(_SOURCES)
