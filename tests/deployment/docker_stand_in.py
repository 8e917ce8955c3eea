#!/usr/bin/env python3
"""Stands in for `docker` where there is no engine, and records the commands.

$DOCKER_STAND_IN is a JSON file: `running` is the version that serves, `fails` names commands and
the tag they fail with ("up 2.0.0"), `commands` collects every command. The evaluation of the
Compose file is left to the real Compose.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = "registry.company.com/conversation-service"


def main(arguments: list[str]) -> int:
    environment = os.environ  # noqa: TID251
    place = Path(environment["DOCKER_STAND_IN"])
    state = json.loads(place.read_text())
    version = environment["VERSION"]
    words = [word for word in arguments if not word.startswith("-")]
    command = words[2] if words[0] == "compose" else " ".join(words[:-1])
    if command == "config":
        return subprocess.call([environment["DOCKER_COMPOSE"], *arguments[1:]])
    state["commands"].append(f"{command} {version}")
    if command == "up":
        state["running"] = version
    place.write_text(json.dumps(state))
    sys.stdout.write(output_of(command.split()[0], words[-1], state["running"]))
    return f"{command} {version.partition('@')[0]}" in state["fails"]


def output_of(command: str, last: str, running: str) -> str:
    if command == "ps":
        return "a-container\nanother\n" if running else ""
    if command == "inspect":
        return f"{REPOSITORY}:{running} sha256:image-of-{running}"
    if command == "image":
        tag = last.partition("@")[0].rpartition(":")[2].removeprefix("image-of-")
        return f"{REPOSITORY}@{digest_of(tag)}"
    return ""


def digest_of(tag: str) -> str:
    """Return a digest that contains the tag: 1.0.0 is 100…0."""
    return "sha256:" + tag.replace(".", "").ljust(64, "0")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
