"""What can go wrong with a conversation, apart from malformed input."""

from collections.abc import Iterable
from http import HTTPStatus

from django.utils.translation import gettext_lazy as _
from rest_framework.serializers import IntegerField

from conversation_service.errors import Message, ServiceError
from conversations.declaration import declarations
from conversations.models import LLMSettings


class ConversationNotFound(ServiceError):
    """There is none with this id, or it is somebody else's: a caller cannot tell which."""

    status = HTTPStatus.NOT_FOUND
    code = "CONVERSATION_NOT_FOUND"
    title = _("Conversation not found")


class ConversationStateConflict(ServiceError):
    """What was asked cannot be done in the state that the conversation is in."""

    status = HTTPStatus.CONFLICT
    code = "CONVERSATION_STATE_CONFLICT"
    title = _("The state of the conversation does not allow that")


class LegalHold(ServiceError):
    """Staff have ordered that the conversation be kept."""

    status = HTTPStatus.CONFLICT
    code = "LEGAL_HOLD"
    title = _("The conversation must be kept for legal reasons and cannot be erased")


class ConversationVersionConflict(ServiceError):
    """The conversation has moved on since the version in If-Match; `current` is how it is now."""

    status = HTTPStatus.PRECONDITION_FAILED
    code = "CONVERSATION_VERSION_CONFLICT"
    title = _("The conversation has changed since that version")


class LimitExceeded(ServiceError):
    """Fields of a PATCH, named by their paths, exceed a limit that depends on what is stored."""

    def __init__(self, paths: Iterable[str]) -> None:
        super().__init__(errors=[_exceeded(path) for path in paths])


def _exceeded(path: str) -> dict[str, Message]:
    pointer = f"/{path.replace('.', '/')}"
    if setting := declarations(LLMSettings).get(path.removeprefix("settings.")):
        return {"pointer": pointer, "code": "max_value", "message": too_high(setting.ceiling)}
    text = _("That would be too many tags or custom keys")
    return {"pointer": pointer, "code": "max_length", "message": text}


def too_high(ceiling: float | None) -> str:
    return str(IntegerField.default_error_messages["max_value"]).format(max_value=ceiling)


class ActivityAhead(ServiceError):
    """Times of an activity report are ahead of the database's clock."""

    def __init__(self, fields: Iterable[str]) -> None:
        text = _("The time must not be more than 5 minutes ahead of the clock of this service.")
        errors = [{"pointer": f"/{f}", "code": "in_the_future", "message": text} for f in fields]
        super().__init__(errors=errors)


class CharacterNotExists(ServiceError):
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "CHARACTER_NOT_EXISTS"
    title = _("There is no such character")


class QuotaExceeded(ServiceError):
    """The user has `limit` conversations, those in the trash not counted."""

    status = HTTPStatus.FORBIDDEN
    code = "QUOTA_EXCEEDED"
    title = _("There are too many conversations; put some into the trash")


class ConversationIdTaken(ServiceError):
    """No id can be found for an imported conversation."""

    status = HTTPStatus.CONFLICT
    code = "CONVERSATION_ID_TAKEN"
    title = _("The id of the conversation is taken")


class RevisionNotFound(ServiceError):
    """The conversation never had this version."""

    status = HTTPStatus.NOT_FOUND
    code = "REVISION_NOT_FOUND"
    title = _("There is no such version")


class RevisionExpired(ServiceError):
    """The version is older than the log; `oldest_version` is the oldest that can be had."""

    status = HTTPStatus.GONE
    code = "REVISION_EXPIRED"
    title = _("That version is no longer remembered")


class ChangesCursorExpired(ServiceError):
    """Of what was purged since then not all is remembered; `snapshot_cursor` begins anew."""

    status = HTTPStatus.GONE
    code = "CHANGES_CURSOR_EXPIRED"
    title = _("The cursor is too old; begin anew")


class StreamsExhausted(ServiceError):
    """This user, or everybody together, waits for changes as often as is allowed."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "STREAMS_EXHAUSTED"
    title = _("Too many are waiting for changes")
    again_in_s = 5


class TransfersExhausted(ServiceError):
    """This process already runs its maximum of imports or of exports."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "TRANSFERS_EXHAUSTED"
    title = _("Too many imports or exports are running")
    again_in_s = 5
