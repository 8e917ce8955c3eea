"""What staff may do to a conversation: each is what the API does too, with their name to it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.utils import translation
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from conversation_service.errors import Message, ServiceError
from conversation_service.http.origin import of_staff
from conversations import states
from conversations.admin import roles
from conversations.models import Conversation
from conversations.states import ANY_STATE
from conversations.writes import changes, store
from conversations.writes.changes import Change

# What one action may change: each conversation is two writes, and the browser waits.
LIMIT = 1_000
REASON_LENGTH = 500


@dataclass(frozen=True)
class Staff:
    """Who acts, and why, where a reason is asked for."""

    name: str
    reason: str = ""


@dataclass(frozen=True)
class Action:
    """`apply` returns whether there was anything to do; `states` are where it is offered."""

    name: str
    label: Message
    done: Message
    question: Message
    permission: str
    icon: str
    apply: Callable[[Conversation, Staff], bool]
    states: tuple[str, ...] = ANY_STATE
    held: bool | None = None
    needs_reason: bool = False
    variant: str = "default"

    def is_offered(self, conversation: Conversation) -> bool:
        held = self.held is None or self.held == (conversation.hold is not None)
        return held and conversation.status in self.states


def change(row: Conversation, wanted: Change, staff: Staff) -> bool:
    origin = of_staff(staff.name)
    after = store.change(row.user_id, str(row.pk), wanted, origin=origin).document
    return bool(after["version"] != row.version)


def _hold(row: Conversation, staff: Staff) -> bool:
    return store.hold(row.user_id, str(row.pk), by=staff.name, reason=staff.reason)


ACTIONS: Mapping[str, Action] = {
    action.name: action
    for action in [
        Action(
            "archive",
            _("Archive"),
            _("Archived"),
            _("Move to the archive, as its user could?"),
            roles.ARCHIVE,
            "archive",
            lambda row, staff: change(row, changes.ARCHIVE, staff),
            states=states.ARCHIVE.starts,
        ),
        Action(
            "restore",
            _("Restore"),
            _("Restored"),
            _("Bring back from the trash to where it was, or from the archive?"),
            roles.ARCHIVE,
            "unarchive",
            lambda row, staff: change(row, changes.RESTORE, staff),
            states=states.RESTORE.starts,
        ),
        Action(
            "trash",
            _("Move to the trash"),
            _("Moved to the trash"),
            _("Move to the trash, which is emptied after a while?"),
            roles.TRASH,
            "delete",
            lambda row, staff: change(row, changes.trash(), staff),
            states=states.TRASH.starts,
            variant="danger",
        ),
        Action(
            "hold",
            _("Hold: keep from being purged"),
            _("Held"),
            _("Keep from being purged until it is released? Its user is not told."),
            roles.HOLD,
            "lock",
            _hold,
            held=False,
            needs_reason=True,
        ),
        Action(
            "release",
            _("Release from a hold"),
            _("Released"),
            _("End the hold? From then on it may be purged."),
            roles.HOLD,
            "lock_open",
            lambda row, staff: store.release(row.user_id, str(row.pk)),
            held=True,
            needs_reason=True,
        ),
    ]
}


def record(request: HttpRequest, row: Conversation, message: str) -> None:
    """Keep who did what. In English, whatever language the page was in: it is a record."""
    staff = cast(User, request.user)
    LogEntry.objects.log_actions(
        staff.pk, [row], CHANGE, change_message=message, single_object=True
    )


def perform(request: HttpRequest, action: Action, row: Conversation, reason: str) -> bool:
    """Do it and record it, and return whether there was anything to do."""
    if not action.apply(row, Staff(request.user.get_username(), reason)):
        return False
    with translation.override("en"):
        record(request, row, f"{action.done}: {reason}" if reason else f"{action.done}.")
    return True


@dataclass(frozen=True)
class Report:
    """What became of many: how many were changed, and how many left alone for which reason."""

    done: Message
    changed: int
    left_alone: Counter[str]

    def __str__(self) -> str:
        text = ngettext(
            "%(done)s: %(n)s conversation.", "%(done)s: %(n)s conversations.", self.changed
        )
        parts = [text % {"done": self.done, "n": self.changed}]
        parts += [
            gettext("Left alone: %(n)s (%(why)s).") % {"n": n, "why": why}
            for why, n in self.left_alone.items()
        ]
        return " ".join(parts)


def perform_all(
    request: HttpRequest, action: Action, rows: Iterable[Conversation], reason: str, vanished: int
) -> Report:
    """Act on one after the other, each as the API would, and report on all of them.

    `vanished` are those that were selected and have left the list since.
    """
    changed = 0
    left_alone = Counter({gettext("no longer in this list"): vanished})
    for row in rows:
        try:
            acted = perform(request, action, row, reason)
        except ServiceError as refused:
            left_alone[str(refused.message)] += 1
            continue
        changed += acted
        if not acted:
            left_alone[gettext("there was nothing to change")] += 1
    return Report(action.done, changed, +left_alone)
