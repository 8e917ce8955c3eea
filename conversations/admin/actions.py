"""Staff actions on conversations, by the same writes as in the API."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.utils import translation
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from conversation_service.errors import Message
from conversation_service.http.actor import Actor
from conversation_service.mongodb.connection import Document
from conversations import states
from conversations.admin import roles
from conversations.documents import REVERTIBLE_FIELDS
from conversations.exceptions import ConversationNotFound
from conversations.models import Conversation
from conversations.states import ANY_STATE
from conversations.writes import edits, holds, updates
from conversations.writes.updates import Update
from conversations.writes.writer import ABSENT, BulkResult, apply_to_many, apply_to_one

LIMIT = 1_000  # conversations in an action, because the browser waits
REASON_LENGTH = 500

# By primary key. For django-stubs, this is an integer in every model.
Results = Mapping[Any, BulkResult]


@dataclass(frozen=True)
class Staff:
    """The account that acts, and its reason for the action, or an empty text."""

    name: str
    reason: str = ""


@dataclass(frozen=True)
class Action:
    """`apply` acts on a single user's conversations. `states` are where the console offers it."""

    name: str
    label: Message
    done: Message
    question: Message
    permission: str
    icon: str
    apply: Callable[[str, Sequence[Any], Staff], Results]
    states: tuple[str, ...] = ANY_STATE
    held: bool | None = None
    needs_reason: bool = False
    variant: str = "default"

    def is_offered(self, conversation: Conversation) -> bool:
        held = self.held is None or self.held == (conversation.hold is not None)
        return held and conversation.status in self.states


def _update(user_id: str, ids: Sequence[Any], update: Update, staff: Staff) -> Results:
    return apply_to_many(user_id, ids, update, actor=Actor.staff(staff.name))


def hold(user_id: str, ids: Sequence[Any], staff: Staff) -> Results:
    return _one_by_one(
        ids, lambda id_: holds.hold(user_id, id_, by=staff.name, reason=staff.reason)
    )


def _one_by_one(ids: Sequence[Any], act: Callable[[str], bool]) -> Results:
    results = {}
    for id_ in ids:
        try:
            results[id_] = BulkResult("ok" if act(str(id_)) else "skipped")
        except ConversationNotFound:
            results[id_] = ABSENT
    return results


ACTIONS: Mapping[str, Action] = {
    action.name: action
    for action in [
        Action(
            "archive",
            _("Archive"),
            _("Archived"),
            _("Archive, as its user can?"),
            roles.ARCHIVE,
            "archive",
            lambda user_id, ids, staff: _update(user_id, ids, updates.ARCHIVE, staff),
            states=states.ARCHIVE.starts,
        ),
        Action(
            "restore",
            _("Restore"),
            _("Restored"),
            _("Restore from the trash to the former state, or from the archive?"),
            roles.ARCHIVE,
            "unarchive",
            lambda user_id, ids, staff: _update(user_id, ids, updates.RESTORE, staff),
            states=states.RESTORE.starts,
        ),
        Action(
            "trash",
            _("Move to the trash"),
            _("Moved to the trash"),
            _("Move to the trash, from which it is purged later?"),
            roles.TRASH,
            "delete",
            lambda user_id, ids, staff: _update(user_id, ids, updates.trash(), staff),
            states=states.TRASH.starts,
            variant="danger",
        ),
        Action(
            "hold",
            _("Place a legal hold"),
            _("Legal hold placed"),
            _("Prevent the purge until the legal hold is released? The user cannot see it."),
            roles.HOLD,
            "lock",
            hold,
            held=False,
            needs_reason=True,
        ),
        Action(
            "release",
            _("Release the legal hold"),
            _("Legal hold released"),
            _("Release the legal hold? Afterwards the conversation can be purged."),
            roles.HOLD,
            "lock_open",
            lambda user_id, ids, staff: _one_by_one(ids, lambda id_: holds.release(user_id, id_)),
            held=True,
            needs_reason=True,
        ),
    ]
}


def record(request: HttpRequest, rows: list[Conversation], message: str) -> None:
    """Record the action in the staff log, always in English."""
    staff = cast(User, request.user)
    LogEntry.objects.log_actions(staff.pk, rows, CHANGE, change_message=message)


def perform(request: HttpRequest, action: Action, row: Conversation, reason: str) -> bool:
    """Act on a conversation and record the action; return False if it had no effect.

    Raises the ServiceError that the API would respond with.
    """
    result = _perform(request, action, row.user_id, [row], reason).get(row.pk, ABSENT)
    if result.error:
        raise result.error()
    return result.outcome == "ok"


def revert(request: HttpRequest, row: Conversation, then: Document) -> bool:
    """Revert a conversation to a former version and record it; return False without an effect."""
    update = edits.revert(then, REVERTIBLE_FIELDS)
    actor = Actor.staff(request.user.get_username())
    written = apply_to_one(row.user_id, str(row.pk), update, actor=actor).written
    if written:
        record(request, [row], f"Reverted to version {then['version']}.")
    return written


@dataclass(frozen=True)
class ActionSummary:
    """The number of changed conversations, and the numbers of unchanged ones by reason."""

    done: Message
    changed: int
    unchanged: Counter[str]

    def __str__(self) -> str:
        text = ngettext(
            "%(done)s: %(n)s conversation.", "%(done)s: %(n)s conversations.", self.changed
        )
        parts = [text % {"done": self.done, "n": self.changed}]
        parts += [
            gettext("Unchanged: %(n)s (%(why)s).") % {"n": n, "why": why}
            for why, n in self.unchanged.items()
        ]
        return " ".join(parts)


def perform_all(
    request: HttpRequest,
    action: Action,
    rows: Sequence[Conversation],
    reason: str,
    vanished: int,
) -> ActionSummary:
    """Act on many conversations, user by user, and record the action.

    `vanished` counts selected conversations that the list no longer has.
    """
    rows_by_user: dict[str, list[Conversation]] = defaultdict(list)
    for row in rows:
        rows_by_user[row.user_id].append(row)
    results: dict[Any, BulkResult] = {}
    for user_id, own in rows_by_user.items():
        results |= _perform(request, action, user_id, own, reason)
    changed = 0
    unchanged = Counter({gettext("no longer in this list"): vanished})
    for row in rows:
        result = results.get(row.pk, ABSENT)
        if result.error:
            unchanged[str(result.error().title)] += 1
        elif result.outcome == "skipped":
            unchanged[gettext("there was nothing to change")] += 1
        else:
            changed += 1
    return ActionSummary(action.done, changed, +unchanged)


def _perform(
    request: HttpRequest, action: Action, user_id: str, rows: Sequence[Conversation], reason: str
) -> Results:
    staff = Staff(request.user.get_username(), reason)
    results = action.apply(user_id, [row.pk for row in rows], staff)
    changed = [row for row in rows if results.get(row.pk, ABSENT).outcome == "ok"]
    if changed:
        with translation.override("en"):
            record(request, changed, f"{action.done}: {reason}" if reason else f"{action.done}.")
    return results
