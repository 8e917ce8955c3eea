import logging
from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversation_service.commands import add_json, as_json, end_help
from conversation_service.diagnosis import Found, diagnose
from conversation_service.mongodb import failures

HELP = """
Print the state of this deployment, as seen from here: versions, MongoDB, Redis and the upstreams
with latency and reason, the clock of MongoDB, indexes, validator and migrations, errors that the
service on this machine has counted since its start, and the settings in effect with their source.
Secrets are masked. It changes nothing, and also works while MongoDB is away.
"""
WIDTH = 62  # a longer value is cut
SHOWN = 10  # differing indexes


class Command(BaseCommand):
    help = HELP
    requires_system_checks = []  # they use the database

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {0: "everything works", 1: "something is wrong; the last lines name it"},
            "manage.py diagnose",
            "docker compose exec conversation-service python manage.py diagnose --json",
        )
        parser.add_argument(
            "--all", action="store_true", help="also print the settings with their default"
        )
        add_json(parser)

    def handle(self, *, json: bool, all: bool, **options: Any) -> None:  # noqa: A002
        logging.disable(logging.CRITICAL)  # the probes log what this prints
        try:
            found = diagnose()
        finally:
            logging.disable(logging.NOTSET)
        self.stdout.write(as_json(found) if json else "\n".join(lines(found, with_defaults=all)))
        if wrong := found["wrong"]:
            mongodb, indexes = found["dependencies"]["mongodb"], found["indexes"] or {}
            # With a missing permission, MongoDB is healthy and the indexes cannot be read.
            reason = mongodb["reason"] or indexes.get("unknown")
            text = "\n".join(["Wrong:", *(f"- {fault}" for fault in wrong)])
            raise CommandError(text, returncode=failures.exit_code(reason) if reason else 1)


def lines(found: Found, *, with_defaults: bool) -> Iterator[str]:
    versions = found["versions"]
    yield f"Conversation Service {versions['service']}, {versions['environment']}"
    rest = {name: text for name, text in versions.items() if name not in {"service", "environment"}}
    yield "  " + ", ".join(f"{name} {text or '-'}" for name, text in rest.items())
    yield "Dependencies"
    for name, each in found["dependencies"].items():
        took = "" if each["response_time_ms"] is None else f"{each['response_time_ms']} ms"
        end = f"  {each['reason']}" if each["reason"] else ""
        yield f"  {name:<19} {each['status']:<15} {took:>10}  {each['address'] or '-'}{end}"
    yield from database_lines(found)
    yield from service_lines(found["service"])
    rows = [row for row in found["settings"] if with_defaults or not row["is_default"]]
    hidden = len(found["settings"]) - len(rows)
    yield "Settings" + (f"; {hidden} more have their default, see --all" if hidden else "")
    for row in rows:
        value = str(row["value"])
        value = value if len(value) <= WIDTH else f"{value[:WIDTH]}…"
        yield f"  {row['name']:<28} {value or 'empty'}  ({row['source']})"


def database_lines(found: Found) -> Iterator[str]:
    server, indexes, redis = found["mongodb"] or {}, found["indexes"] or {}, found["redis"]
    yield "Databases"
    if "version" in server:
        yield (
            f"  MongoDB {server['version']}, replica set {server['replica_set'] or '-'} "
            f"({', '.join(server['members'])}), clock {server['clock_skew_s']:+.3f} s"
        )
    else:
        yield f"  MongoDB: {server.get('unknown', 'not available')}"
    if redis:
        yield f"  {redis['name']} {redis['version']}"
    if "states" in indexes:
        states = ", ".join(f"{number} {state}" for state, number in indexes["states"].items())
        yield f"  Indexes and validators: {states}; {len(indexes['migrations'])} migrations missing"
        for row in indexes["differing"][:SHOWN]:
            yield f"    {row['state']:<9} {row['collection']}  {row['name']}"
        if (more := len(indexes["differing"]) - SHOWN) > 0:
            yield f"    and {more} more"


def service_lines(service: Found) -> Iterator[str]:
    if not service["runs"] and not service["fault"]:
        yield f"Service: none runs at {service['url']}"
        return
    yield f"Service at {service['url']}: {service['fault'] or 'ready'}"
    counted = {**service["server_errors"], **service["counters"]}
    shown = [f"{name}: {value:,.0f}" for name, value in counted.items()]
    yield f"  Since its start: {', '.join(shown) or 'no errors'}"
