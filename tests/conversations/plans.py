"""The plan of MongoDB for the only statement of a response."""

from typing import Any

from pymongo.database import Database


def only_aggregate(commands: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the only command that was sent, an aggregation."""
    [command] = commands
    return explainable(command)


def explainable(command: dict[str, Any]) -> dict[str, Any]:
    """Return a command without the fields that the driver adds."""
    names = {"find", "filter", "sort", "limit", "projection", "hint"}
    names |= {"aggregate", "pipeline", "cursor"}
    return {name: value for name, value in command.items() if name in names}


def users_of(command: dict[str, Any]) -> set[str]:
    """Return the user ids in the filter of each part of the statement."""
    [first, *stages] = command["pipeline"]
    parts = [stage["$unionWith"]["pipeline"][0] for stage in stages if "$unionWith" in stage]
    return {part["$match"]["user_id"] for part in [first, *parts]}


def documents_examined(mongo: Database, command: dict[str, Any]) -> int:
    return _examined(mongo.command("explain", command, verbosity="executionStats"))


def _examined(plan: Any) -> int:
    if isinstance(plan, list):
        return sum(map(_examined, plan))
    if not isinstance(plan, dict):
        return 0
    # The total of a plan includes its parts.
    parts = [part for name, part in plan.items() if name != "executionStages"]
    return int(plan.get("totalDocsExamined", 0)) + sum(map(_examined, parts))
