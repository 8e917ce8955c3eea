"""The domain's errors. Malformed input is a ValidationError."""

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Self

from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _
from rest_framework.serializers import IntegerField

from conversation_service.errors import Message, ServiceError
from conversations.declaration import declarations
from conversations.models import LLMSettings
from conversations.states import DELETED, EDITABLE, conflict_message


class ConversationNotFound(ServiceError):
    """No conversation has this id, or it belongs to another user: the response is the same."""

    status = HTTPStatus.NOT_FOUND
    code = "CONVERSATION_NOT_FOUND"
    title = _("Conversation not found")
    cause = _(
        "The user has no conversation with this id: it never existed, it was purged, or it "
        "belongs to another user."
    )
    remedy = _("Use the id of a conversation in a list of the user.")


class ConversationStateConflict(ServiceError):
    """The conversation has a state that the request does not accept.

    `allowed` are the states that the request accepts. Without `state`, other requests changed the
    conversation during each attempt.
    """

    status = HTTPStatus.CONFLICT
    code = "CONVERSATION_STATE_CONFLICT"
    title = _("The state of the conversation does not allow this")
    cause = _(
        "The request is not possible in the state of the conversation, which is in "
        "`details.status`."
    )
    remedy = _(
        "Bring the conversation into a state in `details.allowed_from`, then send the request "
        "again."
    )

    def __init__(self, state: str | None = None, allowed: Sequence[str] = ()) -> None:
        details: dict[str, Any] = {"allowed_from": [*allowed]} if allowed else {}
        message: Message = _("Other requests changed the conversation. Send the request again.")
        if state is not None:
            details["status"] = state
            message = conflict_message(state, tuple(allowed))
        super().__init__(message, **details)

    @classmethod
    def example(cls) -> Self:
        return cls(DELETED, EDITABLE)


class LegalHold(ServiceError):
    status = HTTPStatus.CONFLICT
    code = "LEGAL_HOLD"
    title = _("The conversation must be kept for legal reasons and cannot be purged")
    cause = _("The operator has put a legal hold on the conversation.")
    remedy = _(
        "Leave the conversation in the trash. The purge is possible after the operator ends the "
        "legal hold."
    )


class ConversationVersionConflict(ServiceError):
    """If-Match does not have the present version; `current` is the conversation."""

    status = HTTPStatus.PRECONDITION_FAILED
    code = "CONVERSATION_VERSION_CONFLICT"
    title = _("If-Match does not have the present version of the conversation")
    cause = _(
        "Another request changed the conversation after the version in `If-Match`, or no such "
        "version exists."
    )
    remedy = _(
        "Compare `details.changes` with the own changes, and send the request with the `ETag` of "
        "the present version."
    )
    changed = _("The conversation has changed since the version in If-Match.")
    unknown = _(
        "If-Match names no version that this conversation has had. Send the ETag of a response "
        "with this conversation."
    )


class LimitExceeded(ServiceError):
    """Fields in a PATCH exceed limits that depend on the stored document.

    Each limit is a dict with `path` and `maximum`.
    """

    def __init__(self, exceeded: Iterable[Mapping[str, Any]]) -> None:
        super().__init__(errors=[_exceeded(**limit) for limit in exceeded])


def _exceeded(path: str, maximum: int) -> dict[str, Message]:
    pointer = f"/{path.replace('.', '/')}"
    setting = declarations(LLMSettings).get(path.removeprefix("settings."))
    if setting and setting.ceiling_variable:
        return {"pointer": pointer, "code": "max_value", "message": too_high(maximum)}
    if path == "custom":
        text = _("Use at most {limit} custom keys.")
    elif setting:
        text = _("Use at most {limit} keys.")
    else:
        text = _("Use at most {limit} tags.")
    message = format_lazy(text, limit=maximum)
    return {"pointer": pointer, "code": "max_length", "message": message}


def too_high(ceiling: float) -> str:
    return str(IntegerField.default_error_messages["max_value"]).format(max_value=ceiling)


class ActivityAhead(ServiceError):
    """Times in an activity report are ahead of the database's clock."""

    def __init__(self, fields: Iterable[str]) -> None:
        text = _("The time must not be more than 5 minutes ahead of the clock of this service.")
        errors = [{"pointer": f"/{f}", "code": "in_the_future", "message": text} for f in fields]
        super().__init__(errors=errors)


class CharacterNotExists(ServiceError):
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "CHARACTER_NOT_EXISTS"
    title = _("The character does not exist")
    cause = _("The Characters service has no character with this id.")
    remedy = _("Choose another character.")


class QuotaExceeded(ServiceError):
    """The user has `limit` conversations outside the trash."""

    status = HTTPStatus.FORBIDDEN
    code = "QUOTA_EXCEEDED"
    title = _("The maximum number of conversations is reached: move some to the trash")
    cause = _(
        "The user has the maximum number of conversations outside the trash, which is in "
        "`details.limit`."
    )
    remedy = _("Move conversations to the trash, then send the request again.")


class ConversationIdTaken(ServiceError):
    """Every possible id for an imported conversation is in use."""

    status = HTTPStatus.CONFLICT
    code = "CONVERSATION_ID_TAKEN"
    title = _("Another conversation has this id")
    cause = _("All ids that this line of an import can get are in use.")
    remedy = _("Import the line with another id.")


class ConversationPurged(ServiceError):
    """An imported conversation was purged, and its tombstone still exists."""

    status = HTTPStatus.GONE
    code = "CONVERSATION_PURGED"
    title = _("The conversation was purged: an import does not bring it back")
    cause = _("The conversation was purged, and the change feed still lists the purge.")
    remedy = _("Remove the line from the file: a purge is final.")


class RevisionNotFound(ServiceError):
    status = HTTPStatus.NOT_FOUND
    code = "REVISION_NOT_FOUND"
    title = _("The conversation has no such version")
    cause = _("The conversation has never had this version.")
    remedy = _("Choose a version from the history.")


class RevisionExpired(ServiceError):
    """The version is older than the history, which starts at `oldest_version`."""

    status = HTTPStatus.GONE
    code = "REVISION_EXPIRED"
    title = _("The history no longer has this version")
    cause = _(
        "The history keeps the newest 50 revisions. The oldest version is in "
        "`details.oldest_version`."
    )
    remedy = _("Choose a later version.")


class ChangesCursorExpired(ServiceError):
    """Tombstones since the cursor have expired; `snapshot_cursor` starts with a snapshot."""

    status = HTTPStatus.GONE
    code = "CHANGES_CURSOR_EXPIRED"
    title = _("The cursor is too old: continue with snapshot_cursor")
    cause = _(
        "The cursor is older than the tombstones: the service no longer knows each conversation "
        "that was purged since."
    )
    remedy = _("Delete the local data, and continue from `details.snapshot_cursor`.")


class EventsCursorExpired(ServiceError):
    """The event log has no longer each event since the cursor."""

    status = HTTPStatus.GONE
    code = "EVENTS_CURSOR_EXPIRED"
    title = _("The cursor is too old: continue with oldest_cursor")
    cause = _(
        "The event log no longer has each event since the cursor, or the database was restored "
        "from a backup."
    )
    remedy = _(
        "Read the conversations that your service stores again, and continue from "
        "`details.oldest_cursor`."
    )


class StreamsExhausted(ServiceError):
    """This user, or this process, has its maximum number of waiting requests."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "STREAMS_EXHAUSTED"
    title = _("Too many clients are waiting for changes")
    cause = _("The user, or the process, has the maximum number of requests that wait for changes.")
    remedy = _(
        "Close streams that are not in use. Wait for the seconds in `Retry-After`, then send the "
        "request again."
    )
    again_in_s = 5


class TransfersExhausted(ServiceError):
    """This process already runs its maximum number of imports or exports."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "TRANSFERS_EXHAUSTED"
    title = _("Too many imports or exports are running")
    cause = _("The process runs the maximum number of imports or exports.")
    remedy = _("Wait for the seconds in `Retry-After`, then send the request again.")
    again_in_s = 5
