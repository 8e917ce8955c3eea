"""The steps of the API guide, in three languages, with their output."""

import re
from dataclasses import dataclass
from pathlib import Path

from config.env import BASE_DIR

GUIDE = BASE_DIR / "docs" / "guide"
PAGES = sorted(GUIDE.glob("*.md"))
LANGUAGES = ("bash", "python", "javascript")

_FENCED = r"^```{language}\n(.*?)^```$"
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


def prelude(language: str) -> str:
    """Return the start of every page: the first step of the first page."""
    return steps(GUIDE / "first-call.md")[0].code[language]


def is_as_shown(printed: str, shown: str) -> bool:
    """Compare without white space, as languages differ in it; … matches any text of a line."""
    pieces = (re.escape(re.sub(r"\s", "", piece)) for piece in shown.split("…"))
    return bool(re.fullmatch(".*?".join(pieces), re.sub(r"\s", "", printed)))
