from typing import Self

from bson import ObjectId
from django.db import models

from conversations.documents import sort_key

# Sorts after every other character: the end of a range of titles with the same beginning.
_LAST = "\U0010ffff"


class ConversationQuerySet(models.QuerySet):
    """Questions that staff ask, over all users. Each has its index; nothing is counted."""

    def found_by(self, term: str) -> Self:
        """Find by conversation id, by user id, or else by how the title begins.

        By title regardless of case and accents (index staff_title).
        """
        if ObjectId.is_valid(term):
            return self.filter(pk=ObjectId(term))
        of_user = self.filter(user_id=term)
        if of_user.exists():
            return of_user
        start = sort_key(term)
        return self.filter(title_key__gte=start, title_key__lt=start + _LAST)


class ConversationManager(models.Manager.from_queryset(ConversationQuerySet)):  # type: ignore[misc]
    """Leaves out the tombstones that purged conversations left for the change feed."""

    def get_queryset(self) -> ConversationQuerySet:
        return super().get_queryset().exclude(status="purged")  # type: ignore[no-any-return]
