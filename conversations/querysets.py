"""The console's queries through the ORM."""

from typing import Self

from django.db import models
from django.db.models import F

from conversations.states import ANY_STATE


class ConversationQuerySet(models.QuerySet):
    """Loads rows that queries/staff.py found."""

    def for_list(self) -> Self:
        """Load only the fields that a list shows and an action needs.

        The backend has a projection only with annotations: `only()` alone loads whole documents.
        """
        return self.only("user_id", "character_id", "title", "status", "version", "hold").annotate(
            message_count=F("metadata__message_count"),
            last_activity=F("metadata__last_activity"),
            created_at=F("metadata__created_at"),
        )


class ConversationManager(models.Manager.from_queryset(ConversationQuerySet)):  # type: ignore[misc]
    """Excludes the tombstones that purged conversations leave.

    The filter names all other states, as the console's indexes start with the state (staff_user
    with the user): MongoDB merges an ordered scan for each state and reads no tombstone.
    """

    def get_queryset(self) -> ConversationQuerySet:
        return super().get_queryset().filter(status__in=ANY_STATE)  # type: ignore[no-any-return]
