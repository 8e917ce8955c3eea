"""The list's input: its query string."""

from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from conversation_service.http import fields
from conversations import limits
from conversations.documents import RESOURCE_FIELDS, SORT_KEYS
from conversations.serializers.conversations import Tag
from conversations.serializers.search import SearchField
from conversations.states import ACTIVE, LISTS


class ListParameters(fields.Parameters):
    """The list's query string."""

    limit = fields.IntegerParameter(
        min_value=1,
        required=False,
        help_text="Rows per page; values above 100 count as 100. Default 20.",
    )
    cursor = fields.Text(
        max_length=limits.CURSOR_LENGTH,
        required=False,
        help_text="`next_cursor` or `prev_cursor` of a page.",
    )
    page = fields.IntegerParameter(
        min_value=1,
        required=False,
        help_text="Use `cursor`. A page number, to a depth of 10,000 rows.",
    )
    per_page = fields.IntegerParameter(
        min_value=1,
        required=False,
        help_text="Use `limit`. Rows per page with `page`; values above 100 count as 100.",
    )
    status = fields.Choice([*LISTS], default=ACTIVE, help_text="`all` excludes the trash.")
    character_id = fields.ExternalId(required=False)
    tags = fields.CommaSeparated(
        child=Tag(),
        max_length=limits.TAGS,
        required=False,
        help_text="`a,b`, or a repeated parameter.",
    )
    tags_match = fields.Choice(
        ["all", "any"],
        default="all",
        help_text="`all`: every tag is required; `any`: at least one.",
    )
    pinned = fields.Switch(required=False)
    search = SearchField(
        required=False,
        help_text="Each word must be the start of a word in the title or in a tag: `caf` finds "
        "*Café con Luna*; case, accents and width are ignored. In scripts without spaces, a word "
        "starts at each character, and a run of characters is one word. The first 8 words are "
        "searched; `search.ignored` in the response has the others. Signs are searched if the text "
        "has nothing else. An empty text does not filter. "
        'Operators: `tag:x` or `tag:"role play"` (exactly this tag), `character:id`, `is:pinned`, '
        "`is:archived` (overrides `status`), `before:2026-01-31` and `after:2026-01-31T15:00:00Z` "
        "for the last activity; a date without a time is midnight in UTC. The last quotation mark "
        "may be missing. An incomplete, invalid or unknown operator is searched as words.",
    )
    created_after = fields.Moment(
        required=False,
        help_text="Later than this time of RFC 3339. All four times are truncated to milliseconds. "
        "A leap second becomes the last millisecond before it.",
    )
    created_before = fields.Moment(required=False)
    activity_after = fields.Moment(required=False)
    activity_before = fields.Moment(required=False)
    sort = fields.Choice(list(SORT_KEYS), default="last_activity")
    order = fields.Choice(["desc", "asc"], default="desc")
    fields_ = fields.CommaSeparated(
        child=fields.Choice(RESOURCE_FIELDS),
        max_length=len(RESOURCE_FIELDS),
        required=False,
        help_text="Only these fields of each conversation, and its id.",
    )
    include_total = fields.Switch(
        default=False,
        help_text="Count all matching conversations; this costs a second statement.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        ways = [{"limit", "cursor"} & attrs.keys(), {"page", "per_page"} & attrs.keys()]
        if all(ways):
            raise serializers.ValidationError(
                _("Use either limit and cursor, or page and per_page."), code="contradiction"
            )
        return attrs


list_parameters = ListParameters()
