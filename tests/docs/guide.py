"""The steps of the API guide, in three languages, with their output."""

import re
from dataclasses import dataclass
from pathlib import Path

from config.env import BASE_DIR

GUIDE = BASE_DIR / "docs" / "guide"
# In the order of the navigation, which is the same in both languages.
PAGES, PAGES_IN_SPANISH = (
    [
        BASE_DIR / "docs" / name
        for name in re.findall(
            rf"{folder}/[\w-]+\.md", (BASE_DIR / "mkdocs.yml").read_text("utf-8")
        )
    ]
    for folder in ("guide", "guia")
)
LANGUAGES = ("bash", "python", "javascript")

_FENCED = r"^```{language}\n(.*?)^```$"
_TERMINAL = re.compile(_FENCED.format(language="sh"), re.MULTILINE | re.DOTALL)
_CODE = re.compile(_FENCED.format(language=f"({'|'.join(LANGUAGES)})"), re.MULTILINE | re.DOTALL)
# Adjacent blocks are equivalent; a block without a runnable language is their output.
_STEP = re.compile(
    rf"((?:^```(?:{'|'.join(LANGUAGES)})\n.*?^```\n+)+)(?:{_FENCED.format(language='(?:text|json)')})?",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Step:
    code: dict[str, str]
    output: str | None


def steps(page: Path) -> list[Step]:
    text = page.read_text(encoding="utf-8")
    return [Step(dict(_CODE.findall(code)), output) for code, output in _STEP.findall(text)]


def terminal(page: Path) -> str:
    """Return the lines that the reader runs in a new shell before the steps, as on the page."""
    return "".join(_TERMINAL.findall(page.read_text(encoding="utf-8")))


def is_as_shown(printed: str, shown: str) -> bool:
    """Compare without white space, as languages differ in it; … matches any text of a line."""
    pieces = (re.escape(re.sub(r"\s", "", piece)) for piece in shown.split("…"))
    return bool(re.fullmatch(".*?".join(pieces), re.sub(r"\s", "", printed)))
