"""The console's queries through the ORM."""

from typing import Self

from bson import ObjectId
from django.db import models
from django.db.models import F

from conversations.limits import EPOCH
from conversations.states import ANY_STATE
from conversations.words import PREFIX_RANGE_END, sort_key


class ConversationQuerySet(models.QuerySet):
    """Queries over all users. Each uses an index, and none counts."""

    def found_by(self, term: str) -> Self:
        """Filter by conversation id, or else by user id, or else by a title prefix.

        Titles match without case and accents, in title order. The indexes are `_id`,
        staff_user and staff_title.
        """
        if ObjectId.is_valid(term):
            with_id = self.filter(pk=ObjectId(term))
            if with_id.exists():
                return with_id
        of_user = self.filter(user_id=term)
        if of_user.exists():
            return of_user
        start = sort_key(term)
        titled = self.filter(title_key__gte=start, title_key__lt=start + PREFIX_RANGE_END)
        return titled.order_by("title_key", "-pk")

    def held(self) -> Self:
        """Filter conversations under a legal hold, by the index staff_held."""
        return self.filter(hold__at__gt=EPOCH)

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
