"""Write docs/configuration.md and .env.example, both from the tables of config/env.py.

`make configuration` runs this module.
"""

import textwrap
from collections.abc import Iterator
from typing import Any

from config.env import BASE_DIR, SECTIONS
from config.variables import Variable

PAGE = BASE_DIR / "docs" / "configuration.md"
EXAMPLE = BASE_DIR / ".env.example"
WIDTH = 98

INTRODUCTION = """\
# Configuration

Every setting is an environment variable. `NAME_FILE` can name a file that contains the value of
`NAME`, for Docker and Kubernetes secrets. A `.env` file in the project's root is read too; the
environment takes precedence. To start, copy `.env.example`.

Every process checks all variables before it starts, in every environment. If a variable is wrong,
the process does not start, and lists all faults with the names of the variables and without
secrets:

- gunicorn and `manage.py` exit with code 2, `make run` with 1.
- `true`, `yes`, `on` and `1` mean true, `false`, `no`, `off` and `0` false, in upper or lower
  case. Other words are rejected, and so is an empty value of a switch or number.
- Blanks around the items of a list are dropped, and so are empty items. A `$` is an ordinary
  character.
- User name and password in `MONGODB_URL` and `REDIS_URL` must be percent-encoded: `/` is `%2F`.
- A name that is similar to a variable below, such as `RATE_LIMT_LIST`, is rejected as a probable
  mistake. Names that other programs use too, such as `LOG_LEVEL`, `DEBUG` and `PORT`, are checked
  for swapped letters at most, and names of 11 or more letters also for a missing one:
  `ENVIROMENT` is rejected, `LOG_LEVL` is ignored.
- `staging` and `production` have no default for `SECRET_KEY`, `MONGODB_URL`, `ALLOWED_HOSTS`, and
  `JWT_SECRET_KEY` or `JWT_JWKS_URL`. Secrets need at least 32 bytes, and `DEBUG` must be off.

The column *default* is the value of an unset variable. Development adds published secrets.
"""

EXAMPLE_INTRODUCTION = """\
# Every variable that the service reads, with its default for development. `make configuration`
# writes this file. Copy it to .env to change some values; the environment takes precedence over
# .env. NAME_FILE can name a file that contains the value, for secrets.
"""


def page() -> str:
    return "\n".join([INTRODUCTION, *_sections()]) + "\n"


def _sections() -> Iterator[str]:
    for title, variables in SECTIONS.items():
        yield f"\n## {title}\n\n| variable | type | default | |\n| --- | --- | --- | --- |"
        for name, variable in variables.items():
            # Some defaults differ between machines; the example of the variable does not.
            default = variable.default
            if isinstance(default, str) and default.startswith("/") and variable.example:
                default = variable.example
            shown = f"`{_text(default)}`" if _text(default) else "empty"
            yield f"| `{name}` | {variable.kind} | {shown} | {variable.description} |"


def example() -> str:
    """Return the text of .env.example."""
    return "\n".join([EXAMPLE_INTRODUCTION, *_example_lines()])


def _example_lines() -> Iterator[str]:
    for title, variables in SECTIONS.items():
        yield f"# --- {title} ".ljust(WIDTH, "-")
        for name, variable in variables.items():
            yield from textwrap.wrap(
                variable.description.replace("`", ""),
                WIDTH,
                initial_indent="# ",
                subsequent_indent="# ",
                break_on_hyphens=False,
                break_long_words=False,
            )
            yield f"{name}={_example_value(variable)}"
        yield ""


def _example_value(variable: Variable) -> str:
    return _text(variable.default) if variable.example is None else variable.example


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(map(str, value)) if isinstance(value, list | dict) else str(value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    EXAMPLE.write_text(example(), encoding="utf-8")
