"""Put equivalent code blocks in several languages into tabs, followed by their output."""

import re
from textwrap import indent
from typing import Any

LABELS = {"bash": "curl", "python": "Python", "javascript": "JavaScript"}

_BLOCK = re.compile(r"^```(\w+)\n.*?^```$", re.MULTILINE | re.DOTALL)
_SAME = re.compile(
    rf"((?:^```(?:{'|'.join(LABELS)})\n(?:(?!```).*\n)*```\n+){{2,}})(?:```(json|text)$)?",
    re.MULTILINE,
)


def on_page_markdown(markdown: str, **_: Any) -> str:
    return _SAME.sub(_tabs, markdown)


def _tabs(found: re.Match[str]) -> str:
    blocks, output = found.groups()
    tabs = [
        f'=== "{LABELS[block[1]]}"\n\n{indent(block[0], "    ")}\n\n'
        for block in _BLOCK.finditer(blocks)
    ]
    return "".join(tabs) + (f'```{output} title="prints"' if output else "")
