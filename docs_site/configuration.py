"""Print docs/configuration.md: each variable with its type and default, as config/env.py says.

What it is for stands in .env.example. `make configuration` writes the page.
"""

import re
import sys
from collections.abc import Iterator
from typing import Any

from config.env import BASE_DIR, env

INTRODUCTION = """\
# Configuration

Everything is a variable of the environment; there is no other file. `NAME_FILE` may hold the path
of a file whose content is used as `NAME`: that is how Docker and Kubernetes hand over secrets. In
development a `.env` is read as well, and the environment wins; `.env.example` is one to begin with.

`ENVIRONMENT=production` and `staging` refuse to start until these are good enough, and say at once
all that is wrong: `SECRET_KEY`, `MONGODB_URL`, `ALLOWED_HOSTS`, and `JWT_SECRET_KEY` or
`JWT_JWKS_URL`.

*default* is what holds where nothing is set. Development adds secrets that everybody knows.
"""
_SECTION = re.compile(r"# --- (.*?) -*")
_VARIABLE = re.compile(r"([A-Z_]+)=")
KINDS = {str: "text", int: "integer", float: "number", bool: "`true`, `false`", list: "`a,b`"}
# Where it is on every machine another one.
DEFAULTS = {"VAR_DIR": "var", "WORKER_TMP_DIR": "/dev/shm"}  # noqa: S108


def page() -> str:
    return "\n".join([INTRODUCTION, *_sections()]) + "\n"


def _sections() -> Iterator[str]:
    comment: list[str] = []
    follows = False  # a variable: what comes with it shares its comment
    for line in (BASE_DIR / ".env.example").read_text(encoding="utf-8").splitlines():
        if section := _SECTION.fullmatch(line):
            yield f"\n## {section[1]}\n\n| variable | type | default | |\n| --- | --- | --- | --- |"
            comment, follows = [], False
        elif line.startswith("# "):
            comment = [*([] if follows else comment), line.removeprefix("# ")]
            follows = False
        elif variable := _VARIABLE.match(line):
            yield _row(variable[1], "" if follows else " ".join(comment))
            follows = True
        else:
            comment, follows = [], False


def _row(name: str, description: str) -> str:
    kind, default = env.scheme[name]
    return f"| `{name}` | {KINDS[kind]} | {_shown(DEFAULTS.get(name, default))} | {description} |"


def _shown(value: Any) -> str:
    if value in ("", []):
        return "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    sys.stdout.write(page())
