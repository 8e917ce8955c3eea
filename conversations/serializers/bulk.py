"""Serializers for bulk actions."""

from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from conversation_service.http import fields
from conversations import limits
from conversations.serializers.conversations import Tags
from conversations.serializers.listing import ListParameters

MAX_IDS = 100
ACTIONS = ["archive", "restore", "trash", "purge", "pin", "unpin", "tag", "untag"]

# Parameters of the list that do not select conversations.
_NO_FILTERS = {"limit", "cursor", "page", "per_page", "sort", "order", "fields", "include_total"}


class BulkFilterSerializer(fields.StrictSerializer):
    """The list's filters, as JSON."""

    tags = Tags(required=False)
    pinned = fields.Flag(required=False)

    def get_fields(self) -> dict[str, Any]:
        own = super().get_fields()
        excluded = _NO_FILTERS | own.keys()
        listed = ListParameters().get_fields()
        listed["search"].help_text = "As in the list, but with at most 8 words."
        return {name: listed[name] for name in listed if name not in excluded} | own

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Reject a search with ignored words: it matches more conversations than its words."""
        if "search" in attrs and attrs["search"].ignored:
            error = _("Search for at most {most} words.").format(most=limits.SEARCH_WORDS)
            raise serializers.ValidationError({"search": error}, code="max_length")
        return attrs


class BulkSerializer(fields.StrictSerializer):
    action = fields.Choice(ACTIONS)
    ids = fields.List(
        max_length=MAX_IDS, min_length=1, child=fields.Text(max_length=64), required=False
    )
    filter = BulkFilterSerializer(required=False)
    tags = Tags(
        required=False, min_length=1, help_text="The tags that `tag` adds and `untag` removes."
    )
    dry_run = fields.Flag(default=False, help_text="Return the results and change nothing.")
    cursor = fields.Text(
        max_length=limits.CURSOR_LENGTH,
        required=False,
        allow_null=True,
        help_text="`next_cursor` of the previous step.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("ids" in attrs) == ("filter" in attrs):
            raise serializers.ValidationError(
                _("Send either ids or a filter."), code="contradiction"
            )
        if ("tags" in attrs) != (attrs["action"] in {"tag", "untag"}):
            raise serializers.ValidationError(
                {"tags": _("Send tags with the actions tag and untag, and only with these.")},
                code="contradiction",
            )
        if attrs.get("cursor") and ("ids" in attrs or attrs["dry_run"]):
            raise serializers.ValidationError(
                {"cursor": _("Send a cursor only with a filter and without dry_run.")},
                code="contradiction",
            )
        return attrs


bulk_input = BulkSerializer()
