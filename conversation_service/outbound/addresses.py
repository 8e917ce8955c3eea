"""The guard for URLs that staff or another service enters: only public addresses are reachable.

Otherwise a URL could make the service send requests to the private network, to a cloud's metadata
service, or to the machine itself. The hosts in WEBHOOK_ALLOWED_HOSTS are exempt.

`ipaddress.is_global` is no guard: it is True for IPv6 forms of private IPv4 addresses (NAT64, 6to4,
IPv4-compatible), for site-local fec0::/10, and for an address inside Azure's virtual network.
"""

import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, NamedTuple

from django.conf import settings
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from config.variables import DEFAULT_PORTS, HIGHEST_PORT
from conversation_service.errors import Message
from conversation_service.upstreams.http import Exchange

MAX_URL_LENGTH = 2_048
MAX_HOST_LENGTH = 253
# Limits the look-up when a URL is entered. After it, only the client checks the addresses.
LOOKUP_S = 3.0

# https://www.iana.org/assignments/iana-ipv4-special-registry, multicast, reserved, and others.
NOT_PUBLIC_V4 = [
    IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24"),
        *("192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # Azure's DNS and metadata, inside each virtual network
    )
]
# All global unicast addresses are in this network; the others in it are special.
PUBLIC_V6 = IPv6Network("2000::/3")
NOT_PUBLIC_V6 = [
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocols: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: contains an IPv4 address
        "2620:4f:8000::/48",  # AS112: a sink for names of private addresses
        "3fff::/20",  # documentation
    )
]
# Names that end with these are never on the internet (RFC 6761, 6762, 7686, 8375, 9476, ICANN), or
# are short names in Kubernetes, which the search list in resolv.conf completes.
PRIVATE_NAMES = ("localhost", "local", "internal", "home.arpa", "onion", "alt", "invalid", "svc")

# Check and request share this parser: two parsers could find different hosts in a malformed URL.
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<target>[^#]*)(?P<fragment>#.*)?"
)
# RFC 3986 excludes blanks, controls, backslash and non-ASCII. Two hexadecimal digits follow a %.
_CHARACTERS = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*")
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>.*))?", re.DOTALL)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# With such a last label, programs read the host as an IPv4 address: 127.1, 0x7f000001.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


RULES: dict[str, Message] = {
    "url_length": format_lazy(_("Use a URL of at most {limit} characters."), limit=MAX_URL_LENGTH),
    "url_characters": _(
        "Use ASCII characters that a URL can have: percent-encode others in the path, and write an "
        "international host name in Punycode, xn--…."
    ),
    "url_form": _("Use an absolute URL such as https://example.org/hook."),
    "url_scheme": _("Use https."),
    "url_credentials": _("Use a URL without a user name and a password."),
    "url_fragment": _("Use a URL without a fragment (#)."),
    "url_host": _(
        "Use a public host name with a dot, or an IP address in its usual form, without a dot or a "
        "zone at its end."
    ),
    "url_port": _("Use a port that the operator allows, such as 443."),
    "url_address": _(
        "Use a host with public addresses only: private, local and special addresses are not "
        "allowed."
    ),
}


class AddressRejected(Exception):
    """A URL, or an address that its host resolves to, breaks one of RULES."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule
        self.text = RULES[rule]


class Target(NamedTuple):
    """A URL with an allowed text. `host` is in lower case, an IPv6 address without brackets."""

    scheme: str
    host: str
    port: int
    path: str  # with the query
    is_exempt: bool  # in WEBHOOK_ALLOWED_HOSTS


def is_public(address: str | IPv4Address | IPv6Address) -> bool:
    """Return True for an address that only the internet can route."""
    ip = ip_address(address)
    if isinstance(ip, IPv4Address):
        return not any(ip in network for network in NOT_PUBLIC_V4)
    is_special = any(ip in network for network in NOT_PUBLIC_V6)
    return ip in PUBLIC_V6 and not is_special and not ip.scope_id


def check_url(url: str) -> None:
    """Check a URL when it is entered. Raises AddressRejected.

    The name is looked up, for LOOKUP_S at most. A name without an address is accepted: its server
    can be set up later, and the client checks the addresses for each request.
    """
    target = parse(url)
    try:
        Exchange(partial(resolve, target)).wait(LOOKUP_S)
    except AddressRejected as rejected:
        raise rejected.with_traceback(None) from None
    except OSError as failed:  # also TimeoutError
        # The traceback's frames refer to the error and to the request: a cycle for the garbage
        # collector.
        failed.__traceback__ = None


def parse(url: str) -> Target:
    """Check the text of a URL, without a look-up. Raises AddressRejected."""
    if len(url) > MAX_URL_LENGTH:
        raise AddressRejected("url_length")
    if not _CHARACTERS.fullmatch(url):
        raise AddressRejected("url_characters")
    parts = _URL.fullmatch(url)
    authority = parts and _AUTHORITY.fullmatch(parts["authority"].rpartition("@")[2])
    if not parts or not authority:
        raise AddressRejected("url_form")
    if "@" in parts["authority"]:
        raise AddressRejected("url_credentials")
    if parts["fragment"] is not None:
        raise AddressRejected("url_fragment")
    scheme = parts["scheme"].lower()
    host, is_exempt = _host(authority["host"].lower())
    if scheme != "https" and not (scheme == "http" and is_exempt):
        raise AddressRejected("url_scheme")
    port = _port(authority["port"], DEFAULT_PORTS[scheme])
    if not is_exempt and port not in settings.WEBHOOK_ALLOWED_PORTS:
        raise AddressRejected("url_port")
    path = parts["target"]
    return Target(scheme, host, port, path if path.startswith("/") else f"/{path}", is_exempt)


def resolve(target: Target) -> Sequence[tuple[Any, ...]]:
    """Look up the host's addresses; return them as socket.getaddrinfo does.

    Raises AddressRejected if an address is not public, and OSError without an address. Connect to
    the returned addresses only: a second look-up can have another result.
    """
    found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    if not target.is_exempt and not all(is_public(str(address[0])) for *_rest, address in found):
        raise AddressRejected("url_address")
    return found


def _host(text: str) -> tuple[str, bool]:
    """Return a host in the form to connect to, and whether it is exempt."""
    ip: IPv4Address | IPv6Address | None = None
    with suppress(ValueError):  # a name, or an odd form of an address
        ip = IPv6Address(text[1:-1]) if text.startswith("[") else IPv4Address(text)
    host = str(ip or text)
    if host in settings.WEBHOOK_ALLOWED_HOSTS:
        return host, True
    if not (_is_public_name(host) if ip is None else "%" not in host):
        raise AddressRejected("url_host")
    if ip is not None and not is_public(ip):
        raise AddressRejected("url_address")
    return host, False


def _is_public_name(host: str) -> bool:
    labels = host.split(".")
    return (
        len(labels) > 1
        and len(host) <= MAX_HOST_LENGTH
        and all(map(_LABEL.fullmatch, labels))
        and not _NUMBER.fullmatch(labels[-1])
        and not any(host == name or host.endswith(f".{name}") for name in PRIVATE_NAMES)
    )


def _port(text: str | None, default: int) -> int:
    if text is None:
        return default
    if not re.fullmatch("[1-9][0-9]{0,4}", text) or int(text) > HIGHEST_PORT:
        raise AddressRejected("url_port")
    return int(text)
