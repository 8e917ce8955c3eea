"""Keep pages free of external resources: add the script of diagrams, fail for anything else."""

import re
import shutil
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

SCRIPT = "assets/mermaid.min.js"
_ELSEWHERE = re.compile(r"<(?:script|img|iframe|link)\b[^>]*(?:src|href)=\"?(?:https?:)?//[^>]*>")


def on_post_page(output: str, page: Any, **_: Any) -> str:
    if 'class="mermaid"' in output:
        up = "../" * page.url.count("/")
        output = output.replace("</head>", f'<script src="{up}{SCRIPT}"></script></head>')
    if found := _ELSEWHERE.search(output):
        raise PluginError(f"{page.file.src_uri} loads an external resource: {found[0]}")
    return output


def on_post_build(config: Any) -> None:
    source = Path(config.config_file_path).parent / ".tools" / "docs" / "mermaid.min.js"
    shutil.copy(source, Path(config.site_dir) / SCRIPT)
