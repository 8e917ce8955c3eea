"""Conversation states. Choices, filters, validators and the API derive from this table."""

from collections.abc import Mapping
from dataclasses import dataclass

from django.utils.translation import gettext_lazy as _

from conversation_service.errors import Message

ACTIVE = "active"
ARCHIVED = "archived"
DELETED = "deleted"  # in the trash: its user can restore it until `purge_at`
PURGED = "purged"  # a tombstone: only the change feed shows it


@dataclass(frozen=True)
class State:
    """A state. The label is for staff."""

    name: str
    label: Message
    is_editable: bool = False
    takes_messages: bool = False
    # Not in the trash: the list with `status=all`, the quota, tags and statistics include it.
    is_kept: bool = False


# The states that users and staff see, in the order in which they are shown.
STATES = (
    State(ACTIVE, _("Active"), is_editable=True, takes_messages=True, is_kept=True),
    State(ARCHIVED, _("In the archive"), is_editable=True, is_kept=True),
    State(DELETED, _("In the trash")),
)
LABELS = {state.name: state.label for state in STATES}
ANY_STATE = tuple(LABELS)  # all but the tombstone
EDITABLE = tuple(state.name for state in STATES if state.is_editable)
NOT_TRASHED = tuple(state.name for state in STATES if state.is_kept)
WRITABLE = tuple(state.name for state in STATES if state.takes_messages)

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
