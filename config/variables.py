"""The kinds of variables, which read and check the texts in the environment.

A reader raises ValueError. Its message continues the variable's name: "PORT is 'x' and must be an
integer from 1 to 65535." Messages show the values for numbers, switches, choices and HOST; other
kinds may contain a password.

gunicorn's master loads this module: do not import Django, PyMongo, redis or ssl here.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

TRUE = {"true", "yes", "on", "1"}
FALSE = {"false", "no", "off", "0"}
SHOWN_LENGTH = 24  # characters; a longer value is probably a secret in the wrong variable
HIGHEST_PORT = 65_535
DEFAULT_PORTS = {"http": 80, "https": 443}
# Of websites, apps in a web view, and extensions.
ORIGIN_SCHEMES = [
    *("https", "http", "capacitor", "ionic", "tauri"),
    *("chrome-extension", "moz-extension", "safari-web-extension"),
]
MODEL_LENGTH = 128  # as conversations.limits has it
HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")  # a label


class Variable(NamedTuple):
    """An environment variable."""

    read: Callable[[str], Any]
    default: Any
    kind: str  # for docs/configuration.md
    description: str
    example: str | None  # for .env.example, if not the default


def boolean(default: bool, description: str, *, example: str | None = None) -> Variable:
    def read(text: str) -> bool:
        word = text.strip().lower()
        if word not in TRUE | FALSE:
            raise ValueError(f"{_value(text)}must be true or false (yes or no, on or off, 1 or 0).")
        return word in TRUE

    return Variable(read, default, "`true` or `false`", description, example)


def integer(
    default: int, lowest: int, highest: int, description: str, *, example: str | None = None
) -> Variable:
    def read(text: str) -> int:
        digits = text.strip()
        if re.fullmatch(r"-?[0-9]{1,19}", digits) and lowest <= int(digits) <= highest:
            return int(digits)
        raise ValueError(f"{_value(text)}must be an integer from {lowest} to {highest}.")

    return Variable(read, default, f"integer, {lowest} to {highest}", description, example)


def number(default: float, lowest: float, highest: float, description: str) -> Variable:
    def read(text: str) -> float:
        digits = text.strip()
        pattern = r"-?([0-9]{1,15}(\.[0-9]{0,15})?|\.[0-9]{1,15})"
        if re.fullmatch(pattern, digits) and lowest <= float(digits) <= highest:
            return float(digits)
        raise ValueError(f"{_value(text)}must be a number from {lowest:g} to {highest:g}.")

    return Variable(read, default, f"number, {lowest:g} to {highest:g}", description, None)


def choice(default: str, options: tuple[str, ...], description: str) -> Variable:
    """A word from `options`, in any case. If the default is empty, empty is allowed too."""
    words = {option.lower(): option for option in options}
    if not default:
        words[""] = ""

    def read(text: str) -> str:
        word = words.get(text.strip().lower())
        if word is None:
            raise ValueError(f"{_value(text)}must be one of {', '.join(options)}.")
        return word

    kind = ", ".join(f"`{option}`" for option in options)
    return Variable(read, default, kind, description, None)


def choices(default: list[str], options: tuple[str, ...], description: str) -> Variable:
    """Comma-separated words from `options`, at least one, in any case."""
    words = {option.lower(): option for option in options}

    def read(text: str) -> list[str]:
        items = [words.get(item.strip().lower()) for item in text.split(",")]
        found = [item for item in items if item]
        if not items or len(found) < len(items):
            raise ValueError(f"{_value(text)}must be one or more of {', '.join(options)}.")
        return list(dict.fromkeys(found))

    kind = "list of " + ", ".join(f"`{option}`" for option in options)
    return Variable(read, default, kind, description, None)


def text(
    default: str,
    description: str,
    *,
    pattern: str = r"(?s).*",
    rule: str = "",
    example: str | None = None,
) -> Variable:
    """A text that matches a pattern as a whole. `rule` says in words what the pattern requires."""

    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(rule)
        return text

    return Variable(read, default, "text", description, example)


def words(
    description: str,
    *,
    pattern: str = r"(?s).*",
    rule: str = "",
    example: str | None = None,
) -> Variable:
    """A comma-separated list. Blanks around an item and empty items are dropped."""

    def read(text: str) -> list[str]:
        items = [item.strip() for item in text.split(",") if item.strip()]
        if not all(re.fullmatch(pattern, item) for item in items):
            raise ValueError(rule)
        return items

    return Variable(read, [], "`a,b`", description, example)


def ports(default: list[int], description: str) -> Variable:
    """Comma-separated ports, at least one."""

    def read(text: str) -> list[int]:
        items = [item.strip() for item in text.split(",")]
        if not all(
            re.fullmatch("[1-9][0-9]{0,4}", item) and int(item) <= HIGHEST_PORT for item in items
        ):
            raise ValueError(f"{_value(text)}must be ports from 1 to {HIGHEST_PORT}.")
        return [*dict.fromkeys(map(int, items))]

    return Variable(read, default, "list of ports", description, None)


def hosts(description: str) -> Variable:
    """Comma-separated host names and IP addresses, in lower case. An IPv6 address has no brackets.

    Blanks around an item and empty items are dropped.
    """

    def read(text: str) -> list[str]:
        items = [item.strip().lower() for item in text.split(",") if item.strip()]
        items = [item.removeprefix("[").removesuffix("]") for item in items]
        if not all(_is_host(item) and not item.endswith(".") for item in items):
            raise ValueError(
                "must be host names or IP addresses without scheme, port and path, such as "
                "127.0.0.1,receiver.example.org."
            )
        return [str(ipaddress.ip_address(item)) if ":" in item else item for item in items]

    return Variable(read, [], "`a,b`", description, None)


def origins(
    description: str, schemes: Sequence[str] = ORIGIN_SCHEMES, *, wildcards: bool = False
) -> Variable:
    """Comma-separated web origins, exactly as a browser sends them in Origin.

    With `wildcards`, `*.` at the start of a host stands for all its subdomains.
    """

    def read(text: str) -> list[str]:
        items = [item.strip() for item in text.split(",") if item.strip()]
        for position, item in enumerate(items, 1):
            origin = item.replace("://*.", "://", 1) if wildcards else item
            if fault := _origin_fault(origin, schemes):
                raise ValueError(
                    f"item {position} {fault} Write each origin as browsers send it, such as "
                    "https://app.example.org or http://localhost:3000."
                )
        return items

    return Variable(read, [], "`a,b`", description, None)


def _origin_fault(item: str, schemes: Sequence[str]) -> str | None:
    """Return why a text is not an origin (RFC 6454, section 6.2), or None."""
    scheme, separator, rest = item.partition("://")
    try:
        parts = urlsplit(item)
        host, port = parts.hostname or "", parts.port
        shortest = f"[{ipaddress.ip_address(host)}]" if ":" in host else host
    except ValueError:  # the port, or an IPv6 address
        host, port, shortest = "", None, ""
    is_complete = _is_host(host) and port != 0 and not rest.endswith(":")
    # The first fault counts.
    faults = {
        "is null, the origin of local files and of every sandboxed page.": item == "null",
        "has a *: each origin must be named, as its pages can act for their users.": "*" in item,
        f"must begin with one of {', '.join(schemes)} and ://.": (
            not separator or scheme.lower() not in schemes
        ),
        "has a user name or password.": "@" in rest,
        "has a path or a slash at its end.": re.search(r"[/?#\\]", rest),
        "has a host with letters beyond ASCII: use its form in Punycode, xn--….": (
            not item.isascii()
        ),
        "must have a host, and a port from 1 to 65535 if any.": (
            not is_complete or re.search(r"[^!-~]", item)
        ),
        "has capital letters; browsers send lower case.": item != item.lower(),
        "has the default port of its scheme, which browsers omit.": (
            port and port == DEFAULT_PORTS.get(scheme)
        ),
        "has a port or an IPv6 address that browsers write shorter.": (
            rest != shortest + (f":{port}" if port else "")
        ),
    }
    return next((reason for reason, applies in faults.items() if applies), None)


def ceilings(settings: tuple[str, ...], highest: int, description: str) -> Variable:
    """Maxima of LLM settings by model: `MODEL:SETTING=NUMBER,SETTING=NUMBER;MODEL:…`.

    A model's name can contain colons; a `*` at its end stands for any rest. White space around
    each part is dropped. The value is a dict of dicts.
    """
    form = "MODEL:SETTING=NUMBER, such as gpt-4o:max_tokens=16384,context_window=128000;llama-*:…"
    known = " and ".join(settings)

    def faults_of(model: str, maxima: list[tuple[str, str]]) -> Iterator[str]:
        if not model.rstrip("*").strip() or "*" in model[:-1]:
            yield "the model must be a name, or the start of names and one * at its end"
        if len(model) > MODEL_LENGTH or not model.isprintable():
            yield f"the model must have at most {MODEL_LENGTH} printable characters"
        if {name for name, _ in maxima} - {*settings}:
            yield f"the settings are {known}"
        if len(dict(maxima)) < len(maxima):
            yield "a setting is repeated"
        for _, digits in maxima:
            if not re.fullmatch(r"[0-9]{1,19}", digits) or not 1 <= int(digits) <= highest:
                yield f"a maximum must be an integer from 1 to {highest}"

    def read(text: str) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        faults = []
        for number, entry in enumerate(filter(str.strip, text.split(";")), 1):
            name, _, rest = entry.rpartition(":")
            model = unicodedata.normalize("NFC", name.strip())
            parts = [part.partition("=") for part in rest.split(",")]
            maxima = [(setting.strip(), digits.strip()) for setting, _, digits in parts]
            wrong = [*dict.fromkeys(faults_of(model, maxima))]
            if model in found:
                wrong.append("the model is repeated")
            faults += [f"entry {number}: {fault}" for fault in wrong]
            found[model] = {} if wrong else {name: int(digits) for name, digits in maxima}
        if faults:
            raise ValueError(f"must be entries {form} Wrong: {'; '.join(faults)}.")
        return found

    return Variable(read, {}, "`model:setting=n,…;…`", description, None)


def http_url(default: str, description: str, *, query: bool = False) -> Variable:
    """An absolute http or https URL. Empty if the default is empty.

    Unless `query` allows a query, the service appends paths to the URL, and a slash at the end is
    dropped. Only upstreams have a default. Their URL must not have a user name: `requests` would
    send the user name in Authorization instead of the token.
    """

    def read(text: str) -> str:
        if not text and not default:
            return text
        try:
            parts = urlsplit(text)
            valid = (
                re.fullmatch(r"[!-~]+", text)
                and parts.scheme in {"http", "https"}
                and _is_host(parts.hostname or "")
                and parts.port != 0
                and not (default and "@" in parts.netloc)
                and not set("#\\" if query else "?#\\") & set(text)
            )
        except ValueError:  # the port, or an IPv6 address
            valid = False
        if not valid:
            rest = "blanks or fragment" if query else "blanks, query or fragment"
            rest = f"user name, {rest}" if default else rest
            raise ValueError(
                "must be a URL such as https://example.org:8001/path: http or https, a host, a "
                f"port from 1 to 65535 if any, and no {rest}."
            )
        return text if query else text.rstrip("/")

    return Variable(read, default, "URL", description, None)


def url(description: str) -> Variable:
    """A database's URL. config/validation.py reads it with the driver's parser."""
    return Variable(str, "", "URL", description, None)


def redis_url(description: str) -> Variable:
    """A URL for Redis or Valkey. redis-py does not know Valkey's schemes, which mean the same."""

    def read(text: str) -> str:
        return re.sub(r"\Avalkey(s?)://", r"redis\1://", text)

    return Variable(read, "", "URL", description, None)


def path(default: str, description: str, *, fields: tuple[str, ...] = ()) -> Variable:
    """A path on an upstream, with at least one field from `fields` in braces."""
    wanted = " or ".join(f"{{{field}}}" for field in fields)
    rule = "must be a path that begins with /, without "
    rule += f"blanks or #, with {wanted} and no other braces." if fields else "blanks, # or braces."

    def read(text: str) -> str:
        allowed = "|".join(rf"\{{{field}\}}" for field in fields) or "(?!)"
        has_field = not fields or re.search(allowed, text)
        if not has_field or not re.fullmatch(rf"/(?:[!\"$-z|~]|{allowed})*", text):
            raise ValueError(rule)
        return text

    return Variable(read, default, "path", description, None)


def host(default: str, description: str) -> Variable:
    """The address to listen on. Brackets around an IPv6 address are removed."""

    def read(text: str) -> str:
        address = text.strip().removeprefix("[").removesuffix("]")
        if not _is_host(address):
            raise ValueError(
                f"{_value(text)}must be an IP address without a port: 0.0.0.0 for every IPv4 "
                "address, :: for every IPv6 address too, 127.0.0.1 for this machine only."
            )
        return address

    return Variable(read, default, "address", description, None)


def _value(text: str) -> str:
    return f"is {text!r} and " if len(text) <= SHOWN_LENGTH else ""


def _is_host(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        # Digits and dots only: an address with a mistake, and no name.
        labels = text.removesuffix(".").split(".")
        return bool(re.search("[A-Za-z]", text)) and all(map(HOST_NAME.fullmatch, labels))
    return True
