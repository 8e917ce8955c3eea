"""Staff actions on conversations, by the same writes as in the API."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from django.conf import settings
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model
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
SHOWN_ACTIONS = 50  # on a conversation's page

# By primary key. For django-stubs, this is an integer in every model.
Results = Mapping[Any, BulkResult]
Condition = Mapping[str, Any]


@dataclass(frozen=True)
class Staff:
    """The account that acts, and its reason for the action, or an empty text."""

    name: str
    reason: str = ""


@dataclass(frozen=True)
class Action:
    """`apply` acts on a single user's conversations; with a filter, only on matching ones.

    The console offers the action in `states`. On all a user's conversations the action applies to
    `states_at_once`, unless the list is filtered by a state.
    """

    name: str
    label: Message
    done: Message
    question: Message | Callable[[], str]
    permission: str
    icon: str
    apply: Callable[[str, Sequence[Any], Staff, Condition | None], Results]
    states: tuple[str, ...] = ANY_STATE
    states_at_once: tuple[str, ...] = ANY_STATE
    held: bool | None = None
    needs_reason: bool = False
    variant: str = "default"

    def is_offered(self, conversation: Conversation) -> bool:
        held = self.held is None or self.held == (conversation.hold is not None)
        return held and conversation.status in self.states


def _updating(update: Callable[[], Update]) -> Callable[..., Results]:
    def apply(
        user_id: str, ids: Sequence[Any], staff: Staff, only: Condition | None = None
    ) -> Results:
        actor = Actor.staff(staff.name)
        return apply_to_many(user_id, ids, update(), actor=actor, only=only)

    return apply


def hold(user_id: str, ids: Sequence[Any], staff: Staff, only: Condition | None = None) -> Results:
    return _one_by_one(
        ids, lambda id_: holds.hold(user_id, id_, by=staff.name, reason=staff.reason)
    )


def release(
    user_id: str, ids: Sequence[Any], staff: Staff, only: Condition | None = None
) -> Results:
    return _one_by_one(ids, lambda id_: holds.release(user_id, id_, only=only))


def _one_by_one(ids: Sequence[Any], act: Callable[[str], bool]) -> Results:
    results = {}
    for id_ in ids:
        try:
            results[id_] = BulkResult("ok" if act(str(id_)) else "skipped")
        except ConversationNotFound:
            results[id_] = ABSENT
    return results


def _trash_question() -> str:
    question = ngettext(
        "Move to the trash, which is emptied after %(n)s day?",
        "Move to the trash, which is emptied after %(n)s days?",
        settings.TRASH_DAYS,
    )
    return question % {"n": settings.TRASH_DAYS}


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
            _updating(lambda: updates.ARCHIVE),
            states=states.ARCHIVE.starts,
        ),
        Action(
            "restore",
            _("Restore"),
            _("Restored"),
            _("Restore from the trash to the former state, or from the archive?"),
            roles.ARCHIVE,
            "unarchive",
            _updating(lambda: updates.RESTORE),
            states=states.RESTORE.starts,
            # From the trash only: a run can restore to the archive, and a repeated run would
            # restore from there.
            states_at_once=(states.DELETED,),
        ),
        Action(
            "trash",
            _("Move to the trash"),
            _("Moved to the trash"),
            _trash_question,
            roles.TRASH,
            "delete",
            _updating(updates.trash),
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
            release,
            held=True,
            needs_reason=True,
        ),
    ]
}


VIEWED = "Viewed."
REVERTED = _("Reverted to version %(n)s.")
EXPORTED = _("Exported %(n)s as %(kind)s (%(query)s).")
EXPORTED_ALL = _("Exported everything: %(n)s conversations.")
RUN = _(
    "All in a list (%(query)s): %(done)s. Changed: %(changed)s. Unchanged: %(unchanged)s.%(reason)s"
)
NO_FILTER = _("no filter")
# Other log texts that in_words() translates; ACTIONS has the rest.
_LOGGED = [_("Viewed")]


def in_english(text: Message, **values: Any) -> str:
    """Return the text of a log entry, which in_words() translates."""
    with translation.override("en"):
        return str(text) % values


def in_words(message: str) -> str:
    """Translate a log entry, which is stored in English."""
    for text in (REVERTED, EXPORTED, EXPORTED_ALL, RUN):
        with translation.override("en"):
            pattern = re.sub(r"%\\\((\w+)\\\)s", r"(?P<\1>.*?)", re.escape(str(text)))
        if found := re.fullmatch(pattern, message, re.DOTALL):
            words = {n: gettext(found[n]) for n in ("done", "query") if found.groupdict().get(n)}
            return str(text) % {**found.groupdict(), **words}
    done, separator, reason = message.partition(": ")
    if separator:
        return f"{gettext(done)}: {reason}"
    return f"{gettext(done.removesuffix('.'))}." if done.endswith(".") else gettext(done)


@dataclass(frozen=True)
class StaffAction:
    at: datetime
    by: str
    what: str


def staff_actions(object_id: str) -> list[StaffAction]:
    """Return the last SHOWN_ACTIONS by staff on a conversation, without views, the newest first.

    Uses the index history_of_object.
    """
    found = LogEntry.objects.filter(object_id=object_id).exclude(change_message=VIEWED)
    return [
        StaffAction(
            entry.action_time,
            entry.user.get_username(),
            in_words(entry.get_change_message()),
        )
        for entry in found.order_by("-action_time")[:SHOWN_ACTIONS].prefetch_related("user")
    ]


def record(request: HttpRequest, rows: Sequence[Model], message: str) -> None:
    """Record the action in the staff log, always in English."""
    staff = cast(User, request.user)
    LogEntry.objects.log_actions(staff.pk, rows, CHANGE, change_message=message)


def record_user(request: HttpRequest, user_id: str, text: Message, **values: Any) -> None:
    """Record an action on all a user's conversations in the staff log, always in English."""
    LogEntry.objects.create(
        user=cast(User, request.user),
        content_type=ContentType.objects.get_for_model(Conversation),
        object_id=user_id,
        object_repr=f"user {user_id}"[:200],
        action_flag=CHANGE,
        change_message=in_english(text, **values),
    )


def perform(request: HttpRequest, action: Action, row: Conversation, reason: str) -> bool:
    """Act on a conversation and record the action; return False if it had no effect.

    Raises the ServiceError that the API would respond with.
    """
    result = apply_to_user(request, action, row.user_id, [row], reason).get(row.pk, ABSENT)
    if result.error:
        raise result.error()
    return result.outcome == "ok"


def revert(request: HttpRequest, row: Conversation, then: Document) -> bool:
    """Revert a conversation to a former version and record it; return False without an effect."""
    update = edits.revert(then, REVERTIBLE_FIELDS)
    actor = Actor.staff(request.user.get_username())
    written = apply_to_one(row.user_id, str(row.pk), update, actor=actor).written
    if written:
        record(request, [row], in_english(REVERTED, n=then["version"]))
    return written


@dataclass(frozen=True)
class ActionSummary:
    """The number of changed conversations, and of unchanged ones by reason."""

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


def perform_all(  # noqa: PLR0913
    request: HttpRequest,
    action: Action,
    rows: Sequence[Conversation],
    reason: str,
    *,
    vanished: int = 0,
    only: Condition | None = None,
) -> tuple[ActionSummary, list[Conversation]]:
    """Act on many conversations, user by user, record it, and return the changed ones, too.

    `vanished` counts selected conversations that the list no longer has.
    """
    rows_by_user: dict[str, list[Conversation]] = defaultdict(list)
    for row in rows:
        rows_by_user[row.user_id].append(row)
    results: dict[Any, BulkResult] = {}
    for user_id, own in rows_by_user.items():
        results |= apply_to_user(request, action, user_id, own, reason, only=only)
    changed = changed_rows(rows, results)
    unchanged = Counter({gettext("no longer in this list"): vanished})
    unchanged += why_unchanged(rows, results)
    return ActionSummary(action.done, len(changed), unchanged), changed


def changed_rows(rows: Sequence[Conversation], results: Results) -> list[Conversation]:
    return [row for row in rows if results.get(row.pk, ABSENT).outcome == "ok"]


def why_unchanged(rows: Sequence[Conversation], results: Results) -> Counter[str]:
    """Count the unchanged conversations by the reason."""
    unchanged: Counter[str] = Counter()
    for row in rows:
        result = results.get(row.pk, ABSENT)
        if result.error:
            unchanged[str(result.error().title)] += 1
        elif result.outcome == "skipped":
            unchanged[gettext("there was nothing to change")] += 1
    return unchanged


def apply_to_user(  # noqa: PLR0913
    request: HttpRequest,
    action: Action,
    user_id: str,
    rows: Sequence[Conversation],
    reason: str,
    *,
    only: Condition | None = None,
) -> Results:
    """Act on a user's conversations, and record the action for each changed conversation."""
    staff = Staff(request.user.get_username(), reason)
    results = action.apply(user_id, [row.pk for row in rows], staff, only)
    if changed := changed_rows(rows, results):
        with translation.override("en"):
            record(request, changed, f"{action.done}: {reason}" if reason else f"{action.done}.")
    return results
