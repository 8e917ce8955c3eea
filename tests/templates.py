"""How Babel reads what Django's templates translate: as Django's own makemessages does."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

from babel.messages.extract import extract_javascript
from django.utils.translation.template import templatize


def extract(fileobj: Any, keywords: Any, comment_tags: Any, options: Any) -> Iterator[Any]:
    """Turn a template into something with calls of gettext, which any tolerant reader finds."""
    source = templatize(fileobj.read().decode())
    return extract_javascript(BytesIO(source.encode()), keywords, comment_tags, options)
