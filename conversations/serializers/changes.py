from typing import Any

from conversation_service.http import fields
from conversations import limits

MAX_WAIT_S = 25


class ChangesParameters(fields.Parameters):
    cursor = fields.Text(
        max_length=limits.CURSOR_LENGTH,
        required=False,
        help_text="`next_cursor` of a page, or `sync_cursor` of the overview. Without a cursor, "
        "the feed starts with all conversations.",
    )
    limit = fields.IntegerParameter(
        min_value=1,
        default=limits.CHANGES_PAGE_SIZE,
        help_text="Changes per page. Values above "
        f"{limits.MAX_CHANGES_PAGE_SIZE} count as {limits.MAX_CHANGES_PAGE_SIZE}.",
    )
    wait = fields.IntegerParameter(
        min_value=0,
        max_value=MAX_WAIT_S,
        default=0,
        help_text="Seconds to wait if there is no change. A stream always waits.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        return attrs | {"limit": min(attrs["limit"], limits.MAX_CHANGES_PAGE_SIZE)}


changes_parameters = ChangesParameters()
