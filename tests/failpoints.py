"""Failures that MongoDB itself stages: its fail point failCommand."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from config.env import env

COMMANDS = [
    *("find", "aggregate", "count", "distinct", "getMore"),
    *("insert", "update", "delete", "findAndModify"),
]
COMMAND_NOT_FOUND = 59


@contextmanager
def failing(
    *, times: int | None = None, commands: list[str] = COMMANDS, **how: Any
) -> Iterator[None]:
    """Let commands of the service fail: `times` times, or all of them until the end.

    `how` is the rest of failCommand's data, for example errorCode=112. Commands of other clients
    are not affected.
    """
    mode: Any = {"times": times} if times else "alwaysOn"
    data = {"failCommands": commands, "appName": env("SERVICE_NAME"), **how}
    with MongoClient[dict[str, Any]](env("MONGODB_URL")) as client:
        try:
            client.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)
        except OperationFailure as error:
            if error.code != COMMAND_NOT_FOUND:
                raise
            pytest.skip("this MongoDB runs without enableTestCommands=1")
        try:
            yield
        finally:
            client.admin.command("configureFailPoint", "failCommand", mode="off")
