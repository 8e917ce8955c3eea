from time import monotonic, sleep
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rest_framework.exceptions import ValidationError

from conversation_service.commands import add_json, as_json, as_text, end_help
from conversation_service.errors import ServiceError
from conversation_service.http.actor import Actor
from conversations.events import log
from conversations.webhooks import deliveries, endpoints
from conversations.webhooks.endpoints import FORMATS, IN_FLIGHT, MAX_IN_FLIGHT, STANDARD, resource
from conversations.webhooks.serializers import endpoint_input

HELP = """
Manage webhook endpoints, which get the events of conversations.

  list                list the endpoints, with the events not yet attempted (pending)
  add URL             create an endpoint for the events from now on; prints its secret, once
  show ID             show an endpoint
  rotate ID           replace its secret; prints the new one, once. The former one is valid for 24
                      hours more
  enable ID --from …  enable it again: from its position (cursor) or with the next event (now)
  disable ID          disable it; it keeps its position
  test ID             send it the event webhook.test, and print the result
  delete ID           delete it, and the records of its deliveries
"""

WAIT_S = 20.0  # for the result of a test event
LOOK_S = 0.25

ACTIONS = ("list", "add", "show", "rotate", "enable", "disable", "test", "delete")


class Command(BaseCommand):
    help = HELP

    def add_arguments(self, parser: CommandParser) -> None:
        end_help(
            parser,
            {
                0: "done",
                1: "no such endpoint, a wrong value, a failed test event, or it could not run",
            },
            "manage.py webhooks add https://hooks.example.org/in --type conversation.created",
        )
        parser.add_argument("action", choices=ACTIONS)
        parser.add_argument("target", nargs="?", metavar="URL or ID")
        parser.add_argument("--description", default="", help="with add: a text for staff")
        parser.add_argument(
            "--type",
            action="append",
            default=[],
            choices=log.TYPES,
            metavar="TYPE",
            help="with add: a type to send, repeatable (default all types)",
        )
        parser.add_argument(
            "--format", choices=FORMATS, default=STANDARD, help="with add (default standard)"
        )
        parser.add_argument(
            "--in-flight",
            type=int,
            default=IN_FLIGHT,
            help=f"with add: concurrent requests, 1 to {MAX_IN_FLIGHT} (default {IN_FLIGHT})",
        )
        parser.add_argument(
            "--from",
            choices=("cursor", "now"),
            dest="start",
            help="with enable: what to send first",
        )
        add_json(parser)

    def handle(self, *, action: str, target: str | None, json: bool, **options: Any) -> None:
        if (action == "list") is not (target is None):
            rule = "takes no URL and no ID" if target else "needs a URL or an ID"
            raise CommandError(f"{action} {rule}.")
        if (action == "enable") is not (options["start"] is not None):
            raise CommandError("Use --from cursor or --from now with enable, and with it only.")
        try:
            rows = self.rows(action, target or "", options)
        except ServiceError as error:
            raise CommandError(str(error.message)) from None
        except ValidationError as error:
            faults: Any = error.detail
            texts = [f"{name}: {details[0]}" for name, details in faults.items()]
            raise CommandError(" ".join(texts)) from None
        if json:
            for row in rows:
                self.stdout.write(as_json(row))
            if action == "list":
                self.stdout.write(as_json({"webhooks": len(rows)}))
        elif action == "list":
            for row in rows:
                line = "{id}  {state:<8}  {pending_events:>9,} pending  {url}".format(**row)
                since = row["failing_since"]
                failing = f"  failing since {since:%Y-%m-%d %H:%M} UTC" if since else ""
                self.stdout.write(line + failing)
        else:
            self.stdout.write("\n".join(as_text(rows[0])))

    def rows(self, action: str, target: str, options: dict[str, Any]) -> list[dict[str, Any]]:
        by = Actor.service("webhooks").by
        secret = None
        match action:
            case "list":
                return endpoints.list_resources()
            case "add":
                sent = {name: options[name] for name in ("description", "format", "in_flight")}
                values = {"url": target, "types": options["type"], **sent}
                endpoint, secret = endpoints.create(
                    endpoint_input.run_validation(values), created_by=by
                )
            case "rotate":
                endpoint, secret = endpoints.rotate_secret(target)
            case "enable":
                endpoint = deliveries.enable(target, from_now=options["start"] == "now")
            case "disable":
                endpoint = endpoints.disable(target, endpoints.STAFF, by=by)
            case "test":
                return [self.result(target, deliveries.send_test(target, by=by))]
            case "delete":
                deliveries.delete_endpoint(target)
                return [{"id": target}]
            case _:
                endpoint = endpoints.get(target)
        return [{**resource(endpoint), **({"secret": secret} if secret else {})}]

    def result(self, endpoint_id: str, event_id: str) -> dict[str, Any]:
        """Wait for the delivery of a test event, and return its attempt."""
        ends = monotonic() + WAIT_S
        while monotonic() < ends:
            record = deliveries.read(endpoint_id, event_id)
            if record and record["attempts"]:
                [attempt] = record["attempts"]
                if record["state"] != deliveries.DELIVERED:
                    fault = attempt["reason"] or f"status {attempt['status']}"
                    raise CommandError(f"The test event {event_id} failed: {fault}.")
                return {"event_id": event_id, "state": record["state"], **attempt}
            sleep(LOOK_S)
        raise CommandError(
            f"The test event {event_id} was not sent within {WAIT_S:.0f} s: does "
            "manage.py deliver_webhooks run?"
        )
