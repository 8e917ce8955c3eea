"""Deprecated endpoints, parameters and fields in the API: their headers and documentation.

A view marks them by handler, as Endpoint.handler returns it:

    deprecated = {"list": Deprecated(date(2026, 12, 1), date(2028, 1, 1), names={"page"})}
"""

from collections.abc import Set
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

from django.http import HttpResponseBase
from django.utils.http import http_date

_LINK = '</api/redoc>; rel="deprecation"; type="text/html"'
_SENT = {
    "Deprecation": "The time since which a part of the request is deprecated (RFC 9745).",
    "Sunset": "The time from which the deprecated part is not served (RFC 8594).",
}


@dataclass(frozen=True)
class Deprecated:
    """A whole endpoint, or its parameters and body fields with these names."""

    since: date
    sunset: date
    names: Set[str] = frozenset()

    def mark(self, response: HttpResponseBase) -> None:
        links = [response.headers.get("Link"), _LINK]
        response.headers["Deprecation"] = f"@{_seconds(self.since)}"
        response.headers["Sunset"] = http_date(_seconds(self.sunset))
        response.headers["Link"] = ", ".join(filter(None, links))


def _seconds(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp())


def mark_deprecated(result: dict[str, Any], generator: Any, **_options: Any) -> dict[str, Any]:
    """Set `deprecated` in docs/openapi.json, as a drf-spectacular hook."""
    for path, _regex, method, view in generator.endpoints:
        marks = getattr(view.cls, "deprecated", {})  # a documentation page has none
        handlers = getattr(view, "actions", None) or {}
        deprecated = marks.get(handlers.get(method.lower(), method.lower()))
        if deprecated is None:
            continue
        operation = result["paths"][path][method.lower()]
        entries = [p for p in operation.get("parameters", []) if p["name"] in deprecated.names]
        for content in operation.get("requestBody", {}).get("content", {}).values():
            name = content["schema"]["$ref"].rpartition("/")[2]
            properties = result["components"]["schemas"][name]["properties"]
            entries += [properties[n] for n in deprecated.names & properties.keys()]
        for entry in entries if deprecated.names else [operation]:
            entry["deprecated"] = True
        for response in operation["responses"].values():
            for header, description in _SENT.items():
                response.setdefault("headers", {})[header] = {
                    "schema": {"type": "string"},
                    "description": description,
                }
    return result
