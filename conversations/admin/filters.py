"""The filters for the list: a form with its values in the page's address.

Django's `list_filter` narrows a queryset. This list is read with the API's indexes and word
search, and one form submits several filters together.
"""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from bson import ObjectId
from django import forms
from django.contrib.admin.views.main import PAGE_VAR
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _

from conversation_service import external_ids
from conversations import limits, states
from conversations.admin import timeline
from conversations.queries import lookup, staff
from conversations.serializers.search import SearchField

_MILLISECOND = timedelta(milliseconds=1)
_DAY = timedelta(days=1)
_ID = re.compile(r"(?<![0-9a-z])[0-9a-f]{24}(?![0-9a-z])")
_EITHER = [("", _("all")), ("yes", _("yes")), ("no", _("no"))]
_CHARACTER_STATUSES = [("", _("all")), *timeline.CHARACTER_STATUSES.items()]
# Prefixes: form fields with a first and a last day, and their bounds in `filters`.
_DAYS = {"created": "created", "active": "activity", "trashed": "trashed"}


def _text(label: Any, max_length: int) -> forms.CharField:
    return forms.CharField(label=label, max_length=max_length, required=False)


def _choice(label: Any, choices: Any) -> forms.ChoiceField:
    return forms.ChoiceField(label=label, choices=choices, required=False)


def _day(label: Any) -> forms.DateField:
    widget = forms.DateInput(format="%Y-%m-%d", attrs={"type": "date"})
    return forms.DateField(label=label, required=False, widget=widget, input_formats=["%Y-%m-%d"])


class FilterForm(forms.Form):
    q = _text(_("Search"), limits.SEARCH_LENGTH)
    user = _text(_("user id"), external_ids.MAX_LENGTH)
    status__exact = _choice(_("state"), [("", _("all")), *states.LABELS.items()])
    character = _text(_("character id"), external_ids.MAX_LENGTH)
    character_status = _choice(_("character status"), _CHARACTER_STATUSES)
    tag = _text(_("tags"), limits.TAGS * (limits.TAG_LENGTH + 2))
    pinned = _choice(_("pinned"), _EITHER)
    held = _choice(_("legal hold"), _EITHER)
    created_from = _day(_("created from"))
    created_to = _day(_("created to"))
    active_from = _day(_("last activity from"))
    active_to = _day(_("last activity to"))
    trashed_from = _day(_("moved to the trash from"))
    trashed_to = _day(_("moved to the trash to"))

    use_required_attribute = False

    @property
    def main(self) -> Iterator[forms.BoundField]:
        """The fields that the page always shows, after the search box."""
        return (self[name] for name in ("user", "status__exact"))

    @property
    def more(self) -> list[forms.BoundField]:
        return [self[name] for name in self.fields if name not in {"q", "user", "status__exact"}]

    @property
    def more_are_set(self) -> bool:
        return any(field.value() for field in self.more)

    def filters(self) -> dict[str, Any]:
        """Return the filters for queries/staff.py. A search without a user is a title prefix."""
        data = self.cleaned_data
        found: dict[str, Any] = {}
        for name, field in (("user_id", "user"), ("character_id", "character")):
            if data[field]:
                found[name] = data[field]
        if term := data["q"]:
            if ids := _conversations(term):
                found["ids"] = ids
            elif data["user"]:
                found["search"] = SearchField().run_validation(term)
            else:
                found["title"] = term
        if data["status__exact"]:
            found["states"] = (data["status__exact"],)
        if data["character_status"]:
            found["character_status"] = data["character_status"]
        if tags := [tag.strip() for tag in data["tag"].split(",") if tag.strip()]:
            found["tags"] = tags
        found |= {name: data[name] == "yes" for name in ("pinned", "held") if data[name]}
        for field, name in _DAYS.items():
            if first := data[f"{field}_from"]:
                found[f"{name}_after"] = _midnight(max(first, date.min + _DAY)) - _MILLISECOND
            if last := data[f"{field}_to"]:
                found[f"{name}_before"] = _midnight(min(last, date.max - _DAY) + _DAY)
        return found


def ids_in(text: str) -> list[str]:
    """Return the conversation ids in a text, such as several ids or an address of the API."""
    return [*dict.fromkeys(_ID.findall(text.lower()))]


def _conversations(text: str) -> list[ObjectId]:
    return [*map(ObjectId, lookup.ownership(ids_in(text)))]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)


def with_user(query: QueryDict) -> QueryDict:
    """Return a query in which a user id is a filter: the search box accepts user ids, too."""
    term = query.get("q", "").strip()
    if not term or query.get("user"):
        return query
    if _conversations(term) or not staff.is_user(term):
        return query
    query = query.copy()
    del query["q"]
    query["user"] = term
    return query


def without_blanks(query: QueryDict) -> QueryDict:
    """Return a query without empty fields, and without a page number from release 0.1.0."""
    kept = QueryDict(mutable=True)
    for name, values in query.lists():
        if name != PAGE_VAR and (name not in FilterForm.base_fields or any(values)):
            kept.setlist(name, values)
    return kept
