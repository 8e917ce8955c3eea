"""Add pages from outside of docs/ to the site, and adapt links that leave docs/."""

import posixpath
import re
from typing import Any

from mkdocs.structure.files import File

ELSEWHERE = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "DECISIONS.md",
    "SECURITY.md",
    "benchmarks/README.md",
    "k8s/README.md",
)
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!\w+:|#)([^)#]+)([^)]*)\)")


def on_files(files: Any, config: Any) -> Any:
    for path in ELSEWHERE:
        source = posixpath.join(posixpath.dirname(config.config_file_path), path)
        files.append(File.generated(config, f"repository/{path}", abs_src_path=source))
    return files


def on_page_markdown(markdown: str, page: Any, files: Any, **_: Any) -> str:
    """Point links at the pages of the site. A link to a file outside of the site becomes text."""
    source = page.file.src_uri
    written = source.removeprefix("repository/") if page.file.generated_by else f"docs/{source}"

    def link(found: re.Match[str]) -> str:
        text, target, anchor = found.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(written), target))
        shown = path.removeprefix("docs/") if path.startswith("docs/") else f"repository/{path}"
        if shown.startswith("repository/") and files.get_file_from_path(shown) is None:
            return text
        return f"[{text}]({posixpath.relpath(shown, posixpath.dirname(source) or '.')}{anchor})"

    return _LINK.sub(link, markdown)
