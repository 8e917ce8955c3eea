"""Extraction of Django's template translations for Babel, like Django's makemessages."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

from babel.messages.extract import extract_javascript
from django.utils.translation.template import templatize


def extract(fileobj: Any, keywords: Any, comment_tags: Any, options: Any) -> Iterator[Any]:
    """Convert a template to text with gettext calls, which Babel's extractor finds."""
    source = templatize(fileobj.read().decode())
    return extract_javascript(BytesIO(source.encode()), keywords, comment_tags, options)
