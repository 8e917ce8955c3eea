"""How the API of conversations is documented; the views only name an entry of here."""

from datetime import UTC, datetime
from typing import Any

import orjson
from bson import ObjectId
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_serializer,
)
from rest_framework import serializers

from conversation_service.errors import (
    InvalidCursor,
    LengthRequired,
    PageTooDeep,
    PayloadTooLarge,
    PreconditionRequired,
    ServiceError,
    UnsupportedMediaType,
)
from conversation_service.http import rendering
from conversation_service.http.idempotency import IdempotencyInProgress, IdempotencyKeyReused
from conversation_service.http.openapi import COMMON, RATE_LIMITED, RATES, failures, response_header
from conversation_service.upstreams.characters import CharacterServiceUnavailable
from conversations import documents
from conversations.documents import RESOURCE_FIELDS
from conversations.exceptions import (
    CharacterNotExists,
    ConversationNotFound,
    ConversationStateConflict,
    ConversationVersionConflict,
    LegalHold,
    QuotaExceeded,
    RevisionExpired,
    RevisionNotFound,
)
from conversations.serializers.conversations import (
    CreateParameters,
    CreateSerializer,
    DeleteParameters,
    DuplicateSerializer,
    HistoryParameters,
    PatchSerializer,
    RetrieveParameters,
    RevertSerializer,
    TagsParameters,
)
from conversations.serializers.fields import OBJECT_ID, output_field
from conversations.serializers.listing import ListParameters
from conversations.states import ACTIVE, ARCHIVED, DELETED


def schema(request: HttpRequest) -> HttpResponse:
    """Respond with the committed document and the ceilings of this deployment."""
    document = orjson.loads(settings.OPENAPI_DOCUMENT.read_bytes())
    return rendering.JSONResponse(show_ceilings(document))


def show_ceilings(result: dict[str, Any], **_hook: Any) -> dict[str, Any]:
    """Set the maximum of each setting in requests; also a hook of drf-spectacular."""
    properties = result["components"]["schemas"]["LLMSettings"]["properties"]
    for name, setting in documents.SETTINGS.items():
        if setting.ceiling_variable:
            properties[name] |= {
                "maximum": setting.ceiling,
                "description": "A PATCH may repeat a stored value that is above the maximum.",
            }
    return result


class FaultSerializer(serializers.Serializer):
    pointer = serializers.CharField()
    code = serializers.CharField()
    message = serializers.CharField()


class SettingsSerializer(serializers.Serializer):
    """How the character's language model runs."""

    def get_fields(self) -> dict[str, Any]:
        return {name: output_field(setting) for name, setting in documents.SETTINGS.items()}


class MetadataSerializer(serializers.Serializer):
    """Totals that the Message service reports, and the times of a conversation."""

    def get_fields(self) -> dict[str, Any]:
        return {name: output_field(field) for name, field in documents.METADATA.items()}


class RetentionSerializer(serializers.Serializer):
    policy = serializers.ChoiceField(["archive_idle", "purge"])
    acts_at = serializers.DateTimeField(help_text="At the earliest.")


class ConversationSerializer(serializers.Serializer):
    """One user talking with one character. Its messages live in the Message service."""

    id = serializers.RegexField(OBJECT_ID)
    object = serializers.ChoiceField(["conversation"])
    settings = SettingsSerializer()
    custom = serializers.DictField(child=serializers.CharField())
    metadata = MetadataSerializer()
    is_archived = serializers.BooleanField()
    retention = RetentionSerializer(
        allow_null=True,
        help_text="What becomes of it by itself, as things stand: archived when idle for long "
        "(pinned ones are not), or purged from the trash.",
    )

    def get_fields(self) -> dict[str, Any]:
        own = super().get_fields()
        public = {
            name: own.get(name) or output_field(documents.FIELDS[name]) for name in documents.PUBLIC
        }
        return {name: (own | public)[name] for name in dict.fromkeys([*RESOURCE_FIELDS, *own])}


class RevisionSerializer(serializers.Serializer):
    """What made a version: who, when, with what, and each changed field before and after."""

    version = serializers.IntegerField()
    at = serializers.DateTimeField()
    by = serializers.CharField(
        help_text='"user", or such as "staff:ana" and "service:message"; "imported:…" if '
        "an import says so."
    )
    client = serializers.CharField(allow_null=True, help_text="From X-Client, or the User-Agent.")
    request_id = serializers.CharField()
    changes = serializers.DictField(
        child=serializers.DictField(), help_text="By path, such as `settings.temperature`."
    )


class HistorySerializer(serializers.Serializer):
    revisions = RevisionSerializer(many=True)
    next_cursor = serializers.CharField(allow_null=True)


class PaginationSerializer(serializers.Serializer):
    total_count = serializers.IntegerField(
        allow_null=True, help_text="Exact where it is given: on request, or where it is free."
    )
    has_next = serializers.BooleanField()
    has_prev = serializers.BooleanField()
    next_cursor = serializers.CharField(allow_null=True)
    prev_cursor = serializers.CharField(allow_null=True)
    limit = serializers.IntegerField()


class CharacterSerializer(serializers.Serializer):
    id = serializers.CharField()
    name = serializers.CharField()
    description = serializers.CharField()


class ConversationWithCharacterSerializer(ConversationSerializer):
    character = CharacterSerializer(
        allow_null=True, required=False, help_text="With `include=character` only."
    )


@extend_schema_serializer(many=False)
class ConversationListSerializer(serializers.Serializer):
    conversations = ConversationSerializer(many=True)
    pagination = PaginationSerializer()


class MostUsedCharacterSerializer(serializers.Serializer):
    character_id = serializers.CharField()
    character_name = serializers.CharField(allow_null=True)
    conversation_count = serializers.IntegerField()


class TagCountSerializer(serializers.Serializer):
    tag = serializers.CharField()
    count = serializers.IntegerField()


class TagsSerializer(serializers.Serializer):
    tags = TagCountSerializer(many=True)


class RecentActivitySerializer(serializers.Serializer):
    last_conversation_created = serializers.DateTimeField(allow_null=True)
    last_message_sent = serializers.DateTimeField(allow_null=True)
    conversations_this_week = serializers.IntegerField(help_text="Begun in the last seven days.")
    active_this_week = serializers.IntegerField()


class StatisticsSerializer(serializers.Serializer):
    total_conversations = serializers.IntegerField(help_text="Without those in the trash.")
    active_conversations = serializers.IntegerField()
    archived_conversations = serializers.IntegerField()
    deleted_conversations = serializers.IntegerField()
    total_messages = serializers.IntegerField()
    total_tokens = serializers.IntegerField()
    most_used_character = MostUsedCharacterSerializer(allow_null=True)
    top_tags = TagCountSerializer(many=True)
    recent_activity = RecentActivitySerializer()


class SummarySerializer(serializers.Serializer):
    user_id = serializers.CharField()
    statistics = StatisticsSerializer()
    generated_at = serializers.DateTimeField()


class CharacterOverviewSerializer(serializers.Serializer):
    character_id = serializers.CharField()
    conversation_count = serializers.IntegerField(help_text="Of active conversations.")
    latest = ConversationSerializer(help_text="The active one with the latest activity.")


class CountsSerializer(serializers.Serializer):
    active = serializers.IntegerField()
    archived = serializers.IntegerField()
    deleted = serializers.IntegerField(help_text="In the trash.")


class OverviewSerializer(serializers.Serializer):
    """All that a client shows at first."""

    pinned = ConversationSerializer(
        many=True, help_text="Active ones, at most 20, the newest pin first."
    )
    characters = CharacterOverviewSerializer(
        many=True, help_text="At most 50, the one with the latest activity first."
    )
    tags = TagCountSerializer(
        many=True,
        help_text="At most 50, the most frequent first; archived conversations count, the trash "
        "does not. A tag is spelt as in the oldest conversation that has it.",
    )
    counts = CountsSerializer()
    sync_cursor = serializers.CharField(
        help_text="Follow the change feed from here: it misses nothing since, and may repeat "
        "what you have been shown."
    )
    generated_at = serializers.DateTimeField()


ID = OpenApiParameter(
    "id", {"type": "string", "pattern": "^[0-9a-fA-F]{24}$"}, OpenApiParameter.PATH
)
IF_MATCH = OpenApiParameter(
    "If-Match",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description='The ETag you last saw, such as `"v3"`: a change in between is a 412 then.',
)
IDEMPOTENCY = [
    OpenApiParameter(
        "Idempotency-Key",
        OpenApiTypes.STR,
        OpenApiParameter.HEADER,
        description="1 to 255 visible ASCII characters: sent again within 24 hours, the request "
        "is not done again but answered as it was.",
    ),
    response_header(
        "Idempotency-Replayed", "`true` if the answer is that of an earlier request.", 200, 201
    ),
]
X_CLIENT = OpenApiParameter(
    "X-Client",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="The name of your client, for the history; else that of User-Agent.",
)
ETAG = response_header("ETag", 'The version, such as `"v3"`, for If-Match.', 200, 201)
CACHE = response_header("Cache-Control", "Always `private, no-store`.", 200, 201)

_BEGUN = documents.new(
    user_id="u-1",
    character_id="luna",
    title="Noche con Luna",
    tags=["casual"],
    now=datetime(2026, 1, 15, 15, tzinfo=UTC),
)
EXAMPLE: dict[str, Any] = orjson.loads(
    rendering.dumps(documents.resource(_BEGUN | {"_id": ObjectId("507f1f77bcf86cd799439014")}))
)
_PINNED = EXAMPLE | {"pinned_at": "2026-01-15T15:10:00.000Z"}
_AS_READ = OpenApiExample("A conversation", EXAMPLE, response_only=True)
_ONE = OpenApiResponse(ConversationSerializer, "The conversation as it now is.", [_AS_READ])


def operation(operation_id: str, summary: str, *, responses: dict[Any, Any], **schema: Any) -> Any:
    parameters = [*COMMON, *RATES, *schema.pop("parameters", [])]
    return extend_schema(
        operation_id=operation_id,
        summary=summary,
        tags=["conversations"],
        parameters=parameters,
        responses=responses | RATE_LIMITED,
        **schema,
    )


def _set_state(operation_id: str, summary: str, description: str) -> Any:
    return operation(
        operation_id,
        summary,
        description=f"{description} Repeating it changes nothing.",
        request=None,
        parameters=[ID, IF_MATCH, X_CLIENT, ETAG, CACHE],
        responses={200: _ONE, **failures(ServiceError, ConversationNotFound, *_CONFLICTS)},
    )


_CONFLICTS = (ConversationVersionConflict, ConversationStateConflict)
_CHARACTER = (QuotaExceeded, CharacterNotExists, CharacterServiceUnavailable)
_KEYED = (IdempotencyKeyReused, IdempotencyInProgress)
_BODY = (ServiceError, LengthRequired, PayloadTooLarge, UnsupportedMediaType)

list_ = operation(
    "listConversations",
    "List my conversations",
    description="Newest activity first, unless sorted otherwise. Follow "
    "`pagination.next_cursor` (or the `Link` header) with the same parameters; a cursor is bound "
    "to them. Nothing that you do between pages makes a page skip or repeat a row that did not "
    "itself move.",
    parameters=[
        ListParameters,
        OpenApiParameter(
            "If-None-Match",
            OpenApiTypes.STR,
            OpenApiParameter.HEADER,
            description="The ETag of the page you have: 304 if it has not changed.",
        ),
        response_header("ETag", "Of the content of this page, weak.", 200, 304),
        response_header("Cache-Control", "Always `private, no-cache`.", 200, 304),
        response_header("Link", "The pages on either side (RFC 8288), relative.", 200),
    ],
    responses={
        200: OpenApiResponse(
            ConversationListSerializer,
            "A page of conversations.",
            [
                OpenApiExample(
                    "A page",
                    {
                        "conversations": [EXAMPLE],
                        "pagination": {
                            "total_count": 1,
                            "has_next": False,
                            "has_prev": False,
                            "next_cursor": None,
                            "prev_cursor": None,
                            "limit": 20,
                        },
                    },
                    response_only=True,
                )
            ],
        ),
        304: OpenApiResponse(description="You have this page."),
        **failures(ServiceError, InvalidCursor, PageTooDeep),
    },
)
create = operation(
    "createConversation",
    "Begin a conversation",
    request=CreateSerializer,
    parameters=[
        CreateParameters,
        *IDEMPOTENCY,
        ETAG,
        CACHE,
        response_header("Location", "Where it is to be found.", 201),
    ],
    examples=[
        OpenApiExample("The least", {"character_id": "luna"}, request_only=True),
        OpenApiExample(
            "With settings",
            {
                "character_id": "luna",
                "title": "Noche con Luna",
                "tags": ["casual"],
                "settings": {"temperature": 0.9, "max_tokens": 1024},
            },
            request_only=True,
        ),
    ],
    responses={
        201: OpenApiResponse(ConversationSerializer, "The new conversation.", [_AS_READ]),
        200: OpenApiResponse(ConversationSerializer, "The one there was, with get_or_create."),
        **failures(*_BODY, ConversationStateConflict, *_CHARACTER, *_KEYED),
    },
)
duplicate = operation(
    "duplicateConversation",
    "Begin a copy",
    description="The same character, settings, tags and custom data, and the same title unless "
    "another is given; no messages. `forked_from` names the original.",
    request=DuplicateSerializer,
    parameters=[
        ID,
        *IDEMPOTENCY,
        ETAG,
        CACHE,
        response_header("Location", "Where it is to be found.", 201),
    ],
    responses={
        201: OpenApiResponse(ConversationSerializer, "The copy.", [_AS_READ]),
        **failures(*_BODY, ConversationNotFound, ConversationStateConflict, *_CHARACTER, *_KEYED),
    },
)
retrieve = operation(
    "getConversation",
    "Read a conversation",
    parameters=[ID, RetrieveParameters, ETAG, CACHE],
    responses={
        200: OpenApiResponse(
            ConversationWithCharacterSerializer, "The conversation as it now is.", [_AS_READ]
        ),
        **failures(ServiceError, ConversationNotFound, RevisionNotFound, RevisionExpired),
    },
)
partial_update = operation(
    "patchConversation",
    "Change a conversation",
    description="A merge patch (RFC 7396): only the fields that you name change, in one atomic "
    "statement, so two devices that change different fields both win. `tags_add` and "
    "`tags_remove` never conflict. What changes nothing makes no new version.",
    request={
        "application/json": PatchSerializer,
        "application/merge-patch+json": PatchSerializer,
    },
    parameters=[ID, IF_MATCH, X_CLIENT, *IDEMPOTENCY, ETAG, CACHE],
    examples=[
        OpenApiExample("A new title", {"title": "Otra noche con Luna"}, request_only=True),
        OpenApiExample(
            "One setting, one more tag",
            {"settings": {"temperature": 1.1}, "tags_add": ["night"]},
            request_only=True,
        ),
    ],
    responses={
        200: _ONE,
        **failures(*_BODY, ConversationNotFound, PreconditionRequired, *_CONFLICTS, *_KEYED),
    },
)
destroy = operation(
    "deleteConversation",
    "Put a conversation into the trash, or purge it",
    description="Into the trash, from where `restore` brings it back until `purge_at`. With "
    "`mode=purge` it is erased for good, which only what is in the trash can be.",
    parameters=[
        ID,
        IF_MATCH,
        X_CLIENT,
        DeleteParameters,
        OpenApiParameter(
            "Prefer",
            OpenApiTypes.STR,
            OpenApiParameter.HEADER,
            description="`return=minimal` for an empty 204 instead of the conversation.",
        ),
        response_header("ETag", "The version of what is in the trash.", 200),
        response_header("Preference-Applied", "`return=minimal` if you preferred that.", 204),
    ],
    responses={
        200: _ONE,
        204: OpenApiResponse(description="Purged, or in the trash and nothing more to say."),
        **failures(
            ServiceError, ConversationNotFound, PreconditionRequired, *_CONFLICTS, LegalHold
        ),
    },
)
history = operation(
    "getHistory",
    "The history of a conversation",
    description="The newest 50 revisions, newest first. Counters have no history.",
    parameters=[ID, HistoryParameters],
    responses={
        200: HistorySerializer,
        **failures(ServiceError, InvalidCursor, ConversationNotFound),
    },
)
revert = operation(
    "revertConversation",
    "Bring fields back to a former version",
    description="The named fields become what they were in that version, which makes a new one.",
    request=RevertSerializer,
    parameters=[ID, IF_MATCH, X_CLIENT, *IDEMPOTENCY, ETAG, CACHE],
    examples=[
        OpenApiExample("The first title", {"version": 1, "fields": ["title"]}, request_only=True)
    ],
    responses={
        200: _ONE,
        **failures(
            *_BODY,
            ConversationNotFound,
            RevisionNotFound,
            RevisionExpired,
            PreconditionRequired,
            *_CONFLICTS,
            *_KEYED,
        ),
    },
)
archive = _set_state("archiveConversation", "Archive", "Active becomes archived.")
restore = _set_state(
    "restoreConversation",
    "Restore",
    "From the trash back to where it was; from the archive to the active ones.",
)
pin = _set_state("pinConversation", "Pin", "Sets `pinned_at`.")
unpin = _set_state("unpinConversation", "Unpin", "Clears `pinned_at`.")
overview = operation(
    "getOverview",
    "My sidebar",
    description="Pins, the latest conversation with each character, tags, counts, and where to "
    "follow the changes from: one answer instead of five.",
    responses={
        200: OpenApiResponse(
            OverviewSerializer,
            "What to show at first.",
            [
                OpenApiExample(
                    "One character, one pin",
                    {
                        "pinned": [_PINNED],
                        "characters": [
                            {"character_id": "luna", "conversation_count": 1, "latest": _PINNED}
                        ],
                        "tags": [{"tag": "casual", "count": 1}],
                        "counts": {ACTIVE: 1, ARCHIVED: 0, DELETED: 2},
                        "sync_cursor": "WzE3Njg0OTA5NDAwMDAsIiJd.c2lnbmF0dXJl",
                        "generated_at": "2026-01-15T15:30:00.000Z",
                    },
                    response_only=True,
                )
            ],
        ),
        **failures(ServiceError),
    },
)
tags = operation(
    "listTags",
    "My tags",
    description="How many conversations have each tag, exactly, the most frequent first and those "
    "of the same count in the order of their code points. Archived conversations count, the trash "
    "does not. A tag is spelt as in the oldest conversation that has it.",
    parameters=[TagsParameters],
    responses={
        200: OpenApiResponse(
            TagsSerializer,
            "The most frequent of them.",
            [
                OpenApiExample(
                    "Two tags",
                    {"tags": [{"tag": "role play", "count": 12}, {"tag": "café", "count": 3}]},
                    response_only=True,
                )
            ],
        ),
        **failures(ServiceError),
    },
)
summary = operation(
    "getSummary",
    "My numbers",
    responses={200: SummarySerializer, **failures(ServiceError)},
)
