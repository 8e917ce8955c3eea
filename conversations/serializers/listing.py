"""The list's input: its query string."""

from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from conversation_service.http import fields
from conversations import limits
from conversations.documents import RESOURCE_FIELDS, SORT_KEYS
from conversations.serializers.conversations import ExternalId, Tag
from conversations.serializers.search import SearchField
from conversations.states import ACTIVE, LISTS


class _CommaSeparated(fields.List):
    """A list as `a,b`, or as a repeated parameter."""

    def to_internal_value(self, data: Any) -> Any:
        parts = [data] if isinstance(data, str) else data
        return super().to_internal_value([item for part in parts for item in part.split(",")])


class ListParameters(fields.Parameters):
    """The list's query string."""

    limit = serializers.IntegerField(
        min_value=1, required=False, help_text="Rows a page; above 100 is 100. Default 20."
    )
    cursor = fields.Text(
        max_length=limits.CURSOR_LENGTH,
        required=False,
        help_text="`next_cursor` or `prev_cursor` of a page.",
    )
    page = serializers.IntegerField(
        min_value=1,
        required=False,
        help_text="By number instead of by cursor, to a depth of 10,000 rows.",
    )
    per_page = serializers.IntegerField(
        min_value=1,
        required=False,
        help_text="By number instead of by cursor, to a depth of 10,000 rows.",
    )
    status = fields.Choice([*LISTS], default=ACTIVE, help_text="`all` leaves out the trash.")
    character_id = ExternalId(required=False)
    tags = _CommaSeparated(
        child=Tag(),
        max_length=limits.TAGS,
        required=False,
        help_text="`a,b`, or the parameter repeated.",
    )
    tags_match = fields.Choice(
        ["all", "any"], default="all", help_text="Whether every tag must be there, or one."
    )
    pinned = fields.Choice(["true", "false"], required=False)
    search = SearchField(
        required=False,
        help_text="Every word must begin a word of the title or of a tag: `caf` finds *Café con "
        "Luna*, as case, accents and width do not matter. Where a script has no spaces, a word "
        "begins at each character. At most 8 words; without one it filters nothing. Among the "
        'words may be: `tag:x` or `tag:"role play"` (that very tag), `character:id`, '
        "`is:pinned`, `is:archived` (whatever `status` says), `before:2026-01-31` and "
        "`after:2026-01-31T15:00:00Z` for the last activity; a date alone is its midnight in "
        "UTC. A last quotation mark may be missing; what looks like another operator is words.",
    )
    created_after = fields.Moment(
        required=False, help_text="Later than this; cut to milliseconds, as all four."
    )
    created_before = fields.Moment(required=False)
    activity_after = fields.Moment(required=False)
    activity_before = fields.Moment(required=False)
    sort = fields.Choice(list(SORT_KEYS), default="last_activity")
    order = fields.Choice(["desc", "asc"], default="desc")
    fields_ = _CommaSeparated(
        child=fields.Choice(RESOURCE_FIELDS),
        max_length=len(RESOURCE_FIELDS),
        required=False,
        help_text="Only these fields of each conversation, and its id.",
    )
    include_total = fields.Choice(
        ["true", "false"],
        default="false",
        help_text="Count all that match, at the cost of a second statement.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        ways = [{"limit", "cursor"} & attrs.keys(), {"page", "per_page"} & attrs.keys()]
        if all(ways):
            raise serializers.ValidationError(
                _("Use either limit and cursor, or page and per_page.")
            )
        return attrs


list_parameters = ListParameters()
