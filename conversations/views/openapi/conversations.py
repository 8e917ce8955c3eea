"""API documentation for conversations: an entry for each operation."""

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
    """Respond with the committed document and this deployment's ceilings."""
    document = orjson.loads(settings.OPENAPI_DOCUMENT.read_bytes())
    return rendering.JSONResponse(show_ceilings(document))


def show_ceilings(result: dict[str, Any], **_hook: Any) -> dict[str, Any]:
    """Set each setting's maximum in requests; also a drf-spectacular hook."""
    properties = result["components"]["schemas"]["LLMSettings"]["properties"]
    for name, setting in documents.SETTINGS.items():
        if setting.ceiling_variable:
            properties[name] |= {
                "maximum": setting.ceiling,
                "description": "A PATCH can repeat a stored value above the maximum.",
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
    """Totals that the Message service reports, and times."""

    def get_fields(self) -> dict[str, Any]:
        return {name: output_field(field) for name, field in documents.METADATA.items()}


class RetentionSerializer(serializers.Serializer):
    policy = serializers.ChoiceField(["archive_idle", "purge"])
    acts_at = serializers.DateTimeField(help_text="The earliest time of the action.")


class ConversationSerializer(serializers.Serializer):
    """A user's exchange with a character. The Message service owns its messages."""

    id = serializers.RegexField(OBJECT_ID)
    object = serializers.ChoiceField(["conversation"])
    settings = SettingsSerializer()
    custom = serializers.DictField(child=serializers.CharField())
    metadata = MetadataSerializer()
    is_archived = serializers.BooleanField()
    retention = RetentionSerializer(
        allow_null=True,
        help_text="The next automatic action: an idle conversation is archived unless it is "
        "pinned, and a conversation in the trash is purged.",
    )

    def get_fields(self) -> dict[str, Any]:
        own = super().get_fields()
        public = {
            name: own.get(name) or output_field(documents.FIELDS[name]) for name in documents.PUBLIC
        }
        return {name: (own | public)[name] for name in dict.fromkeys([*RESOURCE_FIELDS, *own])}


class RevisionSerializer(serializers.Serializer):
    """A version: its actor, time and client, and each changed field before and after."""

    version = serializers.IntegerField()
    at = serializers.DateTimeField()
    by = serializers.CharField(
        help_text='The actor: "user", "staff:ana", "service:message", or "imported:…" for a '
        "revision from an import."
    )
    client = serializers.CharField(allow_null=True, help_text="X-Client, or else User-Agent.")
    request_id = serializers.CharField()
    changes = serializers.DictField(
        child=serializers.DictField(),
        help_text="`before` and `after` by path, such as `settings.temperature`.",
    )


class HistorySerializer(serializers.Serializer):
    revisions = RevisionSerializer(many=True)
    next_cursor = serializers.CharField(allow_null=True)


class PaginationSerializer(serializers.Serializer):
    total_count = serializers.IntegerField(
        allow_null=True,
        help_text="Exact, or null: with `include_total=true`, or if this page shows it.",
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
    conversations_this_week = serializers.IntegerField(help_text="Created in the last 7 days.")
    active_this_week = serializers.IntegerField()


class StatisticsSerializer(serializers.Serializer):
    total_conversations = serializers.IntegerField(help_text="Without the trash.")
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
    conversation_count = serializers.IntegerField(help_text="The number of active conversations.")
    latest = ConversationSerializer(help_text="The active conversation with the latest activity.")


class CountsSerializer(serializers.Serializer):
    active = serializers.IntegerField()
    archived = serializers.IntegerField()
    deleted = serializers.IntegerField(help_text="In the trash.")


class OverviewSerializer(serializers.Serializer):
    """The data for a client's first screen."""

    pinned = ConversationSerializer(
        many=True, help_text="Active pinned conversations, at most 20, the newest pin first."
    )
    characters = CharacterOverviewSerializer(
        many=True, help_text="At most 50, the latest activity first."
    )
    tags = TagCountSerializer(
        many=True,
        help_text="At most 50, the most frequent first, without the trash. The spelling is that "
        "of the oldest conversation with the tag.",
    )
    counts = CountsSerializer()
    sync_cursor = serializers.CharField(
        help_text="The cursor of the change feed at this time. The feed has every later change "
        "and can repeat earlier ones."
    )
    generated_at = serializers.DateTimeField()


ID = OpenApiParameter(
    "id", {"type": "string", "pattern": "^[0-9a-fA-F]{24}$"}, OpenApiParameter.PATH
)
IF_NONE_MATCH = OpenApiParameter(
    "If-None-Match",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="ETags of earlier responses to this request, or `*`. The response is 304 if its "
    "content is the same. Weak tags and tags that a proxy has changed are understood.",
)
IGNORED_KEY = OpenApiParameter(
    "Idempotency-Key",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="Accepted but ignored: the request can be repeated.",
)
IF_MATCH = OpenApiParameter(
    "If-Match",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description='The ETag of your last read, such as `"v3"`, a list, or `*`. A new version since '
    "then is a 412. Weak tags and tags that a proxy has changed are understood.",
)
IDEMPOTENCY = [
    OpenApiParameter(
        "Idempotency-Key",
        OpenApiTypes.STR,
        OpenApiParameter.HEADER,
        description="1 to 255 visible ASCII characters. For 24 hours, a repeated request gets the "
        "first response and changes nothing.",
    ),
    response_header(
        "Idempotency-Replayed", "`true` if this is the response to an earlier request.", 200, 201
    ),
]
X_CLIENT = OpenApiParameter(
    "X-Client",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="The name of your client for the history. Default: User-Agent.",
)
ETAG = response_header("ETag", 'The version, such as `"v3"`, for If-Match.', 200, 201)
CACHE = response_header("Cache-Control", "Always `private, no-store`.", 200, 201)

REFUSED_BODY = [
    response_header("Accept", "The accepted media types, if Content-Type is another.", 415),
    response_header(
        "Accept-Encoding", "The accepted codings, if Content-Encoding is another.", 415
    ),
]
ACCEPT_PATCH = [
    *REFUSED_BODY,
    response_header("Accept-Patch", "The accepted media types (RFC 5789), as in Accept.", 415),
]
ACCEPT_POST = [
    *REFUSED_BODY,
    response_header("Accept-Post", "The accepted media types, as in Accept.", 415),
]

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
_ONE = OpenApiResponse(ConversationSerializer, "The conversation.", [_AS_READ])


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
        description=f"{description} A repeated request changes nothing.",
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
    description="The latest activity first by default. Follow `pagination.next_cursor` or the "
    "`Link` header with the same parameters: a cursor is bound to them. Pages skip or repeat only "
    "conversations with a sort key that changes between two requests.",
    parameters=[
        ListParameters,
        IF_NONE_MATCH,
        response_header("ETag", "Weak, of the content of this page.", 200, 304),
        response_header("Cache-Control", "Always `private, no-cache`.", 200, 304),
        response_header("Link", "The previous and the next page (RFC 8288), relative.", 200),
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
        304: OpenApiResponse(description="The page has not changed."),
        **failures(ServiceError, InvalidCursor, PageTooDeep),
    },
)
create = operation(
    "createConversation",
    "Create a conversation",
    request=CreateSerializer,
    parameters=[
        CreateParameters,
        *IDEMPOTENCY,
        ETAG,
        CACHE,
        response_header("Location", "The address of the conversation.", 201),
        *ACCEPT_POST,
    ],
    examples=[
        OpenApiExample("Only the required field", {"character_id": "luna"}, request_only=True),
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
        200: OpenApiResponse(
            ConversationSerializer, "An existing conversation, with `get_or_create`."
        ),
        **failures(*_BODY, ConversationStateConflict, *_CHARACTER, *_KEYED),
    },
)
duplicate = operation(
    "duplicateConversation",
    "Duplicate a conversation",
    description="Copies character, title, settings, tags and custom data, but no messages. A "
    "`title` in the request replaces the copied title. `forked_from` is the id of the original.",
    request=DuplicateSerializer,
    parameters=[
        ID,
        *IDEMPOTENCY,
        ETAG,
        CACHE,
        response_header("Location", "The address of the conversation.", 201),
        *ACCEPT_POST,
    ],
    responses={
        201: OpenApiResponse(ConversationSerializer, "The copy.", [_AS_READ]),
        **failures(*_BODY, ConversationNotFound, ConversationStateConflict, *_CHARACTER, *_KEYED),
    },
)
retrieve = operation(
    "getConversation",
    "Read a conversation",
    description="Activity makes no new version but changes the ETag, so a 304 never hides it.",
    parameters=[
        ID,
        RetrieveParameters,
        IF_NONE_MATCH,
        response_header(
            "ETag",
            'The version, such as `"v3"`, and after a dot a digest if the response has content '
            "that can change without a new version. For If-Match and If-None-Match.",
            200,
            304,
        ),
        response_header("Cache-Control", "Always `private, no-store`.", 200, 304),
    ],
    responses={
        200: OpenApiResponse(ConversationWithCharacterSerializer, "The conversation.", [_AS_READ]),
        304: OpenApiResponse(description="The conversation has not changed."),
        **failures(ServiceError, ConversationNotFound, RevisionNotFound, RevisionExpired),
    },
)
partial_update = operation(
    "patchConversation",
    "Change a conversation",
    description="A JSON merge patch (RFC 7396): only the fields in the request change, in one "
    "atomic statement. Two devices can change different fields at the same time. `tags_add` and "
    "`tags_remove` never conflict. A request that changes nothing makes no new version.",
    request={
        "application/json": PatchSerializer,
        "application/merge-patch+json": PatchSerializer,
    },
    parameters=[ID, IF_MATCH, X_CLIENT, *IDEMPOTENCY, ETAG, CACHE, *ACCEPT_PATCH],
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
    "Move a conversation to the trash, or purge it",
    description="Moves the conversation to the trash; `restore` is possible until `purge_at`. "
    "With `mode=purge`, a conversation in the trash is deleted permanently.",
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
        response_header("ETag", "The version of the conversation in the trash.", 200),
        response_header(
            "Preference-Applied", "`return=minimal` if the request preferred this.", 204
        ),
    ],
    responses={
        200: _ONE,
        204: OpenApiResponse(description="Purged; or in the trash, with `Prefer: return=minimal`."),
        **failures(
            ServiceError, ConversationNotFound, PreconditionRequired, *_CONFLICTS, LegalHold
        ),
    },
)
history = operation(
    "getHistory",
    "Get the history of a conversation",
    description="The 50 newest revisions, the newest first. Counters have no history.",
    parameters=[ID, HistoryParameters],
    responses={
        200: HistorySerializer,
        **failures(ServiceError, InvalidCursor, ConversationNotFound),
    },
)
revert = operation(
    "revertConversation",
    "Revert fields to a former version",
    description="Restores the values that the fields had in a version. This makes a new version.",
    request=RevertSerializer,
    parameters=[ID, IF_MATCH, X_CLIENT, *IDEMPOTENCY, ETAG, CACHE, *ACCEPT_POST],
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
archive = _set_state("archiveConversation", "Archive", "An active conversation becomes archived.")
restore = _set_state(
    "restoreConversation",
    "Restore",
    "A conversation in the trash gets its former state. An archived conversation becomes active.",
)
pin = _set_state("pinConversation", "Pin", "Sets `pinned_at`.")
unpin = _set_state("unpinConversation", "Unpin", "Clears `pinned_at`.")
overview = operation(
    "getOverview",
    "Get my overview",
    description="Pinned conversations, the latest conversation with each character, tags, counts "
    "and a cursor of the change feed, in one response.",
    responses={
        200: OpenApiResponse(
            OverviewSerializer,
            "The data of a client's first screen.",
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
    "List my tags",
    description="The exact number of conversations with each tag, without the trash. The most "
    "frequent first, tags of the same count by code point. The spelling is that of the oldest "
    "conversation with the tag.",
    parameters=[TagsParameters],
    responses={
        200: OpenApiResponse(
            TagsSerializer,
            "The most frequent tags.",
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
    "Get my statistics",
    responses={200: SummarySerializer, **failures(ServiceError)},
)
