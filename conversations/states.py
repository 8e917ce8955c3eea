"""Conversation states. Choices, filters, validators and the API derive from these."""

from collections.abc import Mapping
from dataclasses import dataclass

from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from conversation_service.errors import Message

ACTIVE = "active"
ARCHIVED = "archived"
DELETED = "deleted"  # in the trash: its user can restore it until `purge_at`
PURGED = "purged"  # a tombstone: only the change feed shows it

# The states that users and staff see, in the order in which they are shown, and labels for staff.
LABELS: Mapping[str, Message] = {
    ACTIVE: _("Active"),
    ARCHIVED: _("In the archive"),
    DELETED: _("In the trash"),
}
ANY_STATE = tuple(LABELS)  # all but the tombstone
EDITABLE = (ACTIVE, ARCHIVED)
WRITABLE = (ACTIVE,)  # a conversation accepts messages
# The list with `status=all`, the quota, tags and statistics include these.
NOT_TRASHED = (ACTIVE, ARCHIVED)

# The list parameter `status`: its values, and the states in each.
LISTS: Mapping[str, tuple[str, ...]] = {name: (name,) for name in ANY_STATE} | {"all": NOT_TRASHED}


@dataclass(frozen=True)
class Transition:
    """A way from one state to another; `accepts` includes the states that it does not change."""

    starts: tuple[str, ...]
    ends: tuple[str, ...]

    @property
    def accepts(self) -> tuple[str, ...]:
        return tuple(name for name in ANY_STATE if name in self.starts + self.ends)


ARCHIVE = Transition((ACTIVE,), (ARCHIVED,))
RESTORE = Transition((ARCHIVED, DELETED), (ACTIVE, ARCHIVED))
TRASH = Transition(EDITABLE, (DELETED,))
PURGE = Transition((DELETED,), (PURGED,))

_IS: Mapping[str, Message] = {
    ACTIVE: _("The conversation is active."),
    ARCHIVED: _("The conversation is archived."),
    DELETED: _("The conversation is in the trash."),
}
_REMEDIES: Mapping[tuple[str, ...], Message] = {
    EDITABLE: _("Only an active or archived conversation allows this: restore it first."),
    PURGE.accepts: _("Only a conversation in the trash can be purged: delete it first."),
}


def conflict_message(state: str, allowed: tuple[str, ...]) -> Message:
    """Return why a request is not possible in a state, and what to do first."""
    return format_lazy("{} {}", _IS[state], _REMEDIES[allowed])
