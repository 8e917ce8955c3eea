"""What staff ask, through the ORM. The API asks through store.py."""

from typing import Self

from bson import ObjectId
from django.db import models
from django.db.models import F

from conversations.limits import EPOCH
from conversations.states import ANY_STATE
from conversations.words import sort_key

# Sorts after every other character: the end of a range of titles with the same beginning.
_LAST = "\U0010ffff"


class ConversationQuerySet(models.QuerySet):
    """Questions that staff ask, over all users. Each has its index; nothing is counted."""

    def found_by(self, term: str) -> Self:
        """Find by conversation id, or else by user id, or else by how the title begins.

        By title regardless of case and accents, and in the order of titles. The indexes are
        `_id`, staff_user and staff_title.
        """
        if ObjectId.is_valid(term):
            with_id = self.filter(pk=ObjectId(term))
            if with_id.exists():
                return with_id
        of_user = self.filter(user_id=term)
        if of_user.exists():
            return of_user
        start = sort_key(term)
        titled = self.filter(title_key__gte=start, title_key__lt=start + _LAST)
        return titled.order_by("title_key", "-pk")

    def held(self) -> Self:
        """Keep those under a legal hold, by the index staff_held."""
        return self.filter(hold__at__gt=EPOCH)

    def for_list(self) -> Self:
        """Load only what a list shows and an action needs, and of the metadata only three.

        `only()` alone would load whole documents: the backend projects for annotations.
        """
        return self.only("user_id", "character_id", "title", "status", "version", "hold").annotate(
            message_count=F("metadata__message_count"),
            last_activity=F("metadata__last_activity"),
            created_at=F("metadata__created_at"),
        )


class ConversationManager(models.Manager.from_queryset(ConversationQuerySet)):  # type: ignore[misc]
    """Leaves out the tombstones that purged conversations left for the change feed.

    It names the other states, as the indexes of the console begin with them (staff_user with the
    user): the server merges one ordered scan for each and never meets a tombstone.
    """

    def get_queryset(self) -> ConversationQuerySet:
        return super().get_queryset().filter(status__in=ANY_STATE)  # type: ignore[no-any-return]
