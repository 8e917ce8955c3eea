"""Reads the JSON values in a file of any size, one value at a time."""

import gzip
import re
import zlib
from collections.abc import Iterator
from io import TextIOWrapper
from json import JSONDecoder
from pathlib import Path
from typing import IO, Any, cast
from zipfile import BadZipFile, ZipFile

_CHUNK = 256 * 1024  # characters
# The characters of a value. In memory, a value takes several times as much.
MAX_LENGTH = 64 * 1024 * 1024
# A BOM is between values if files were written one behind the other.
_START_OF_VALUE = re.compile(r"[^\s,\ufeff]")


class ExportError(Exception):
    """The file is no export, or it is damaged. The values before the damage were read."""


def read_values(path: Path, names: re.Pattern[str]) -> Iterator[tuple[Any, str]]:
    """Yield each value in a JSON array, or in a sequence, with its text.

    The file can be packed by gzip, or be a zip archive, of which the files with these names are
    read. A byte that is not UTF-8 becomes an unpaired surrogate. Raises ExportError, also after
    some values, and OSError if the file cannot be opened.
    """
    try:
        with path.open("rb") as file:
            start = file.peek(2)
            if start.startswith(b"PK"):
                yield from _values_in_archive(file, names)
            elif start.startswith(b"\x1f\x8b"):
                yield from _values(cast(IO[bytes], gzip.GzipFile(fileobj=file)))
            else:
                yield from _values(file)
    except (EOFError, zlib.error, BadZipFile, gzip.BadGzipFile) as error:
        raise ExportError(f"The file is damaged or incomplete: {error}.") from None


def _values_in_archive(file: IO[bytes], names: re.Pattern[str]) -> Iterator[tuple[Any, str]]:
    with ZipFile(file) as archive:
        found = sorted(name for name in archive.namelist() if names.fullmatch(name))
        if not found:
            raise ExportError("The zip archive contains no conversations.json.")
        for name in found:
            try:
                unpacked = archive.open(name)
            except (RuntimeError, NotImplementedError) as error:  # such as a password
                raise ExportError(f"The zip archive cannot be read: {error}.") from None
            yield from _values(unpacked)


def _values(file: IO[bytes]) -> Iterator[tuple[Any, str]]:
    """Yield each value, and close the file.

    Reads more text until the next value can be decoded, up to MAX_LENGTH.
    """
    with TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="") as stream:
        text = stream.read(_CHUNK)
        if "\0" in text[:4]:
            raise ExportError("The file is in UTF-16 or UTF-32. Convert it to UTF-8.")
        if text.lstrip()[:1] not in {"[", "{"}:
            raise ExportError("The file does not start with a JSON array or object.")
        decode = JSONDecoder().raw_decode  # accepts NaN and unpaired surrogates
        position = dropped = 0  # dropped: the number of characters before `text`
        in_array = False
        while True:
            start = _START_OF_VALUE.search(text, position)
            position = start.start() if start else len(text)
            if start and start[0] == ("]" if in_array else "["):
                in_array = not in_array
                position += 1
                continue
            is_valid = True
            try:
                value, end = decode(text, position)
            except RecursionError:
                raise ExportError(
                    "A conversation is nested too deeply. Export it without nesting; in LibreChat, "
                    'that is without "Recursive".'
                ) from None
            except ValueError:  # damaged, or not yet read to its end
                value, end, is_valid = None, len(text), False
            room = MAX_LENGTH - (end - position)
            if end == len(text) and room > 0:
                more = stream.read(min(room, max(_CHUNK, end - position)))
                if more:
                    dropped += position
                    text, position = text[position:] + more, 0
                    continue
            if not is_valid:
                break
            yield value, text[position:end]
            position = end
    if position < len(text) or in_array:
        raise ExportError(
            f"The file is damaged or incomplete: the text from character {dropped + position:,} on "
            f"is not valid JSON, or a conversation has more than {MAX_LENGTH // 2**20} MiB."
        )
