"""Checks the whole configuration, and reports every fault in a list.

config/env.py checks each variable alone. This module adds the checks that need several variables or
a database driver. gunicorn's master may not import drivers, so it runs this module in a child
process. No message contains a secret or a URL.
"""

import itertools
import re
import socket
import sys
from collections.abc import Iterator
from urllib.parse import unquote_plus, urlsplit

from django.core.exceptions import ImproperlyConfigured
from pymongo import uri_parser
from pymongo.errors import PyMongoError
from redis import ConnectionPool, RedisError

from config.env import DEPLOYED, KNOWN_DEFAULTS, env

MINIMUM_SECRET_BYTES = 32  # RFC 7518 section 3.2, for HS256
FAULTY = 2  # exit code of commands and gunicorn, as for an unknown option
ENCODE = (
    "a host or port is wrong, or a user name or password is not percent-encoded "
    "(/ is %2F, # is %23, ? is %3F, @ is %40, : is %3A, % is %25, a blank is %20)."
)


class FaultyConfiguration(ImproperlyConfigured):
    """Some variables are wrong. The message lists them all."""


def require_valid(*, deployed: bool = False, listens: bool = False) -> None:
    """Raise FaultyConfiguration if a variable is wrong, in staging and production if one is weak.

    `deployed` applies the rules for staging and production in every ENVIRONMENT. `listens` checks
    HOST, for processes that use HOST: conda and tcsh set HOST too, which must not stop a command.
    """
    single = env.faults()
    checks = [mongodb_faults(), redis_faults(), contradictions()]
    if deployed or env("ENVIRONMENT") in DEPLOYED:
        checks.append(weaknesses())
    if listens:
        checks.append(host_faults())
    # A variable in `single` has its default here, which needs no report.
    combined = [
        f"{name} {fault}"
        for name, fault in itertools.chain.from_iterable(checks)
        if name not in single
    ]
    if faults := [*single.values(), *combined]:
        raise FaultyConfiguration(
            "This configuration cannot be used. Wrong or missing:\n- " + "\n- ".join(faults)
        )


def mongodb_faults() -> Iterator[tuple[str, str]]:
    if not (uri := env("MONGODB_URL")):
        return
    if not re.match(r"mongodb(\+srv)?://", uri):
        yield "MONGODB_URL", "must begin with mongodb:// or mongodb+srv://."
        return
    address, _, query = uri.partition("?")
    scheme, _, rest = address.partition("://")
    place, _, database = rest.partition("/")
    if "@" in database + query or re.search(r"\s", uri):
        yield "MONGODB_URL", f"cannot be read: {ENCODE}"
        return
    if database and unquote_plus(database) != env("MONGODB_DATABASE"):
        yield (
            "MONGODB_URL",
            "names another database than MONGODB_DATABASE. Remove the one in the URL; "
            "the option authSource says where MongoDB keeps the user.",
        )
    if scheme == "mongodb+srv" and {",", ":"} & set(place.rpartition("@")[2]):
        yield "MONGODB_URL", "must name one host without a port after mongodb+srv://."
        return
    try:
        # With the scheme mongodb+srv:// the parser would query DNS.
        servers = uri_parser.parse_uri(f"mongodb://{place}/")["nodelist"]
    except (PyMongoError, ValueError):
        servers = []
    if not servers or not all(host for host, _ in servers):
        yield "MONGODB_URL", f"cannot be read: {ENCODE}"
        return
    # After the checks above, an option's name cannot be a part of a password: show the name.
    options = [option for option in re.split("[&;]", query) if option]
    wrong = [option.partition("=")[0] for option in options if not _is_option(option)]
    for name in wrong:
        yield "MONGODB_URL", f"has an option {name!r} that is unknown, or has a wrong value."
    if scheme == "mongodb" and not wrong:
        try:
            uri_parser.parse_uri(uri, warn=False)
        except (PyMongoError, ValueError):
            yield "MONGODB_URL", "has options that exclude each other."


def _is_option(option: str) -> bool:
    try:
        uri_parser.split_options(option, validate=True, warn=False)
    except (PyMongoError, ValueError, TypeError, OSError):  # OSError: an unreadable file
        return False
    return True


def redis_faults() -> Iterator[tuple[str, str]]:
    if not (uri := env("REDIS_URL")):
        return
    if not uri.startswith(("redis://", "rediss://", "unix://")):
        yield (
            "REDIS_URL",
            "must begin with redis://, rediss://, valkey://, valkeys:// or unix://.",
        )
        return
    try:
        parts = urlsplit(uri)
        encoded = not ("@" in parts.path + parts.query or re.search(r"[\s#]", uri))
        port = parts.port
    except ValueError:  # the port is not a number: usually from a password
        encoded = False
    if not encoded:
        yield "REDIS_URL", f"cannot be read: {ENCODE}"
        return
    if parts.scheme == "unix":
        if not parts.path:
            yield "REDIS_URL", "names no socket."
    elif not parts.hostname or port == 0:
        yield "REDIS_URL", "must name a host, and a port from 1 to 65535 if any."
    elif not re.fullmatch(r"/?|/[0-9]{1,4}", parts.path):
        yield "REDIS_URL", "must end with the number of a database, such as /0, or have no path."
    try:
        # Without connecting: this reads the host name and every option.
        (parts.hostname or "").encode("idna")
        ConnectionPool.from_url(uri).make_connection()
    except (ValueError, TypeError, RedisError):
        yield "REDIS_URL", "has a host name or an option that is wrong."


def host_faults() -> Iterator[tuple[str, str]]:
    try:
        socket.getaddrinfo(env("HOST"), env("PORT"), type=socket.SOCK_STREAM)
    except OSError:
        yield (
            "HOST",
            f"is {env('HOST')!r} and must be an address of this machine, such as 127.0.0.1 or "
            "0.0.0.0. conda and tcsh set HOST, too: unset it, or set the address.",
        )


def contradictions() -> Iterator[tuple[str, str]]:
    lowest, highest = env("CONNECTION_POOL_MIN"), env("CONNECTION_POOL_MAX")
    if lowest > highest:
        yield (
            "CONNECTION_POOL_MIN",
            f"is {lowest} and must not be more than CONNECTION_POOL_MAX, which is {highest}.",
        )
    public = [name for name in env("JWT_ALGORITHM") if not name.startswith("HS")]
    if env("JWT_JWKS_URL") and not public:
        yield (
            "JWT_ALGORITHM",
            f"is {','.join(env('JWT_ALGORITHM'))}, but JWT_JWKS_URL serves public keys: add RS256 "
            "or ES256, for example.",
        )
    if not env("JWT_JWKS_URL") and public:
        yield (
            "JWT_JWKS_URL",
            f"is not set, but JWT_ALGORITHM has {public[0]}: it needs public keys.",
        )


def weaknesses() -> Iterator[tuple[str, str]]:
    """Check that each secret is set and strong: it has no default in staging and production."""
    secrets = [("SECRET_KEY", env("SECRET_KEY"))]
    secrets += [("SECRET_KEY_FALLBACKS", value) for value in env("SECRET_KEY_FALLBACKS")]
    if any(name.startswith("HS") for name in env("JWT_ALGORITHM")):
        secrets += [("JWT_SECRET_KEY", env("JWT_SECRET_KEY"))]
        fallbacks = env("JWT_SECRET_KEY_FALLBACKS")
        secrets += [("JWT_SECRET_KEY_FALLBACKS", value) for value in fallbacks]
    for name, value in secrets:
        if not value.strip():
            yield name, "is not set."
        elif value in KNOWN_DEFAULTS:
            yield name, "is a published default."
        elif len(value.encode()) < MINIMUM_SECRET_BYTES:
            yield name, f"is shorter than {MINIMUM_SECRET_BYTES} bytes."
    if not env("MONGODB_URL"):
        yield "MONGODB_URL", "is not set."
    if not env("ALLOWED_HOSTS") or "*" in env("ALLOWED_HOSTS"):
        yield "ALLOWED_HOSTS", "must name the hosts of the console."
    if env("DEBUG"):
        yield "DEBUG", "must be off."


if __name__ == "__main__":
    try:
        require_valid(listens=True)
    except FaultyConfiguration as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(FAULTY)
