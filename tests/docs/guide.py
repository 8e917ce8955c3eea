"""What the pages of the API guide show: steps, in three languages, and what they print."""

import re
from dataclasses import dataclass
from pathlib import Path

from config.env import BASE_DIR

GUIDE = BASE_DIR / "docs" / "guide"
PAGES = sorted(GUIDE.glob("*.md"))
LANGUAGES = ("bash", "python", "javascript")

_FENCED = r"^```{language}\n(.*?)^```$"
_CODE = re.compile(_FENCED.format(language=f"({'|'.join(LANGUAGES)})"), re.MULTILINE | re.DOTALL)
# Blocks that follow one another say the same; one without a language to run is what they print.
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
    """Return what every page begins with: the first step of the first page."""
    return steps(GUIDE / "first-call.md")[0].code[language]


def is_as_shown(printed: str, shown: str) -> bool:
    """Compare without white space, as languages differ in it; … stands for anything on a line."""
    pieces = (re.escape(re.sub(r"\s", "", piece)) for piece in shown.split("…"))
    return bool(re.fullmatch(".*?".join(pieces), re.sub(r"\s", "", printed)))
