"""One stand-in for an upstream, as a process: `python -m tests.faults.stand_in NAME PORT`."""

import sys
from http import HTTPStatus
from urllib.parse import unquote

import django

django.setup()

from conversation_service.development.stand_ins.auth import auth  # noqa: E402
from conversation_service.development.stand_ins.server import (  # noqa: E402
    LOOPBACK,
    Call,
    Reply,
    Route,
    StandIn,
)


def any_character(call: Call) -> Reply:
    name = unquote(call.path["id"])
    return HTTPStatus.OK, {"id": name, "name": name, "description": ""}


def stand_in(name: str, port: int) -> StandIn:
    if name == "auth":
        return auth(port)
    routes: list[Route] = [("GET", "/api/v1/characters/(?P<id>[^/]+)", any_character)]
    return StandIn(f"{name}-service", (LOOPBACK, port), routes)


if __name__ == "__main__":
    stand_in(sys.argv[1], int(sys.argv[2])).serve_forever()
