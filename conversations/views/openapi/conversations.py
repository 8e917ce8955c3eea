"""API documentation for conversations: an entry for each operation."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from bson import ObjectId
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema,
    extend_schema_serializer,
)
from rest_framework import serializers

from conversation_service import errors
from conversation_service.http import rendering
from conversation_service.http.openapi import (
    ANYWHERE,
    AT_WORST,
    COMMON,
    RATES,
    failure_responses,
    own_schema,
    request_header,
    response_header,
)
from conversation_service.upstreams.characters import CharacterServiceUnavailable
from conversations import documents, exceptions, limits
from conversations.documents import RESOURCE_FIELDS
from conversations.serializers import conversations as inputs
from conversations.serializers.fields import OBJECT_ID, output_field
from conversations.serializers.listing import ListParameters
from conversations.states import ACTIVE, ARCHIVED, DELETED
from conversations.writes.idempotency import IdempotencyInProgress, IdempotencyKeyReused


def schema(request: HttpRequest) -> HttpResponse:
    """Respond with the committed document and this deployment's ceilings."""
    document = orjson.loads(settings.OPENAPI_DOCUMENT.read_bytes())
    return rendering.JSONResponse(show_ceilings(document))


def show_ceilings(result: dict[str, Any], **_hook: Any) -> dict[str, Any]:
    """Set each setting's maxima in requests; also a drf-spectacular hook."""
    properties = result["components"]["schemas"]["LLMSettingsInput"]["properties"]
    for name in documents.WITH_CEILING:
        ceilings = documents.SETTINGS[name].ceilings
        maxima = {f"{c.start}{'*' if c.is_prefix else ''}": c.maximum for c in ceilings}
        properties[name] |= {
            "maximum": max(maxima.values()),
            "description": "`x-ceilings` has the maximum by model: of the exact name, or else of "
            "the longest start with `*`. The model is that of the conversation after the request. "
            "A PATCH can repeat a stored value above the maximum.",
            "x-ceilings": maxima,
        }
    return result


def any_listed(result: dict[str, Any], **_hook: Any) -> dict[str, Any]:
    """Let a whole conversation match as a partial one too, which oneOf excludes."""
    schema = result["components"]["schemas"]["ListedConversation"]
    schema["anyOf"] = schema.pop("oneOf")
    return result


class ObjectExtension(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    """Adds the bounds for the keys of an object in a request."""

    target_class = "conversations.serializers.fields.Object"

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        return own_schema(self.target, auto_schema, direction) | {
            "propertyNames": {"pattern": f"^{self.target.entries.key}$"},
            "maxProperties": self.target.max_length,
        }


class LLMSettingsSerializer(serializers.Serializer):
    """How the character's language model runs."""

    def get_fields(self) -> dict[str, Any]:
        return {name: output_field(setting) for name, setting in documents.SETTINGS.items()}


class ConversationMetadataSerializer(serializers.Serializer):
    """Totals that the Message service reports, and times."""

    def get_fields(self) -> dict[str, Any]:
        return {name: output_field(field) for name, field in documents.METADATA.items()}


class NextActionSerializer(serializers.Serializer):
    policy = serializers.ChoiceField(["archive_idle", "purge"])
    acts_at = serializers.DateTimeField(help_text="The earliest time of the action.")


class ConversationSerializer(serializers.Serializer):
    """A user's exchange with a character. The Message service owns its messages."""

    id = serializers.RegexField(OBJECT_ID)
    object = serializers.ChoiceField(["conversation"])
    settings = LLMSettingsSerializer()
    metadata = ConversationMetadataSerializer()
    is_archived = serializers.BooleanField()
    retention = NextActionSerializer(
        allow_null=True,
        help_text="The next automatic action: an idle conversation is archived unless it is "
        "pinned, and a conversation in the trash is purged.",
    )

    def get_fields(self) -> dict[str, Any]:
        derived = {name: output_field(documents.FIELDS[name]) for name in documents.PUBLIC}
        fields = derived | super().get_fields()
        return {name: fields[name] for name in [*RESOURCE_FIELDS, *fields]}


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


class HistoryPageSerializer(serializers.Serializer):
    revisions = RevisionSerializer(many=True)
    next_cursor = serializers.CharField(allow_null=True)


class PageInfoSerializer(serializers.Serializer):
    total_count = serializers.IntegerField(
        allow_null=True,
        help_text="Exact, or null: with `include_total=true`, or if this page shows it.",
    )
    has_next = serializers.BooleanField()
    has_prev = serializers.BooleanField()
    next_cursor = serializers.CharField(allow_null=True)
    prev_cursor = serializers.CharField(allow_null=True)
    limit = serializers.IntegerField()


class SearchedSerializer(serializers.Serializer):
    """The part of the text in `search` that was not searched."""

    ignored = serializers.ListField(
        child=serializers.CharField(max_length=limits.IGNORED_LENGTH),
        max_length=limits.IGNORED_WORDS,
        help_text="The words after the first 8 and the operators after the first 16.",
    )


class CharacterProfileSerializer(serializers.Serializer):
    id = serializers.CharField()
    name = serializers.CharField()
    description = serializers.CharField()


class ConversationWithCharacterSerializer(ConversationSerializer):
    character = CharacterProfileSerializer(
        allow_null=True, required=False, help_text="With `include=character` only."
    )


class PartialConversationSerializer(ConversationSerializer):
    """The fields in `fields`, and the id."""

    def get_fields(self) -> dict[str, Any]:
        fields = super().get_fields()
        for name, field in fields.items():
            field.required = name == "id"
        return fields


@extend_schema_serializer(many=False)
class ConversationListSerializer(serializers.Serializer):
    conversations = PolymorphicProxySerializer(
        component_name="ListedConversation",
        serializers=[ConversationSerializer, PartialConversationSerializer],
        resource_type_field_name=None,
        many=True,
        help_text="Whole conversations, or partial ones with `fields`.",
    )
    pagination = PageInfoSerializer()
    search = SearchedSerializer(required=False, help_text="With `search` only.")


class MostUsedCharacterSerializer(serializers.Serializer):
    character_id = serializers.CharField()
    character_name = serializers.CharField(allow_null=True)
    conversation_count = serializers.IntegerField()


class TagCountSerializer(serializers.Serializer):
    tag = serializers.CharField()
    count = serializers.IntegerField()


class TagListSerializer(serializers.Serializer):
    tags = TagCountSerializer(many=True)


class RecentActivitySerializer(serializers.Serializer):
    last_conversation_created = serializers.DateTimeField(allow_null=True)
    last_message_sent = serializers.DateTimeField(allow_null=True)
    conversations_this_week = serializers.IntegerField(help_text="Created in the last 7 days.")
    active_this_week = serializers.IntegerField()


class UserStatisticsSerializer(serializers.Serializer):
    total_conversations = serializers.IntegerField(help_text="Without the trash.")
    active_conversations = serializers.IntegerField()
    archived_conversations = serializers.IntegerField()
    deleted_conversations = serializers.IntegerField()
    total_messages = serializers.IntegerField()
    total_tokens = serializers.IntegerField()
    most_used_character = MostUsedCharacterSerializer(allow_null=True)
    top_tags = TagCountSerializer(many=True)
    recent_activity = RecentActivitySerializer()


class UserSummarySerializer(serializers.Serializer):
    user_id = serializers.CharField()
    statistics = UserStatisticsSerializer()
    generated_at = serializers.DateTimeField()


class CharacterOverviewSerializer(serializers.Serializer):
    character_id = serializers.CharField()
    conversation_count = serializers.IntegerField(help_text="The number of active conversations.")
    latest = ConversationSerializer(help_text="The active conversation with the latest activity.")


class StateCountsSerializer(serializers.Serializer):
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
    counts = StateCountsSerializer()
    sync_cursor = serializers.CharField(
        help_text="The cursor of the change feed at this time. The feed has every later change "
        "and can repeat earlier ones."
    )
    generated_at = serializers.DateTimeField()


FOR_SERVICES = "for other services"
ID = OpenApiParameter(
    "id", {"type": "string", "pattern": "^[0-9a-fA-F]{24}$"}, OpenApiParameter.PATH
)
IF_NONE_MATCH = request_header(
    "If-None-Match",
    "ETags of earlier responses to this request, or `*`. The response is 304 if its content is the "
    "same. Weak tags and tags that a proxy has changed are understood.",
)
_KEY = '("[!#-~]{1,255}"|[!#-~][!-~]{0,254})'
IGNORED_KEY = request_header(
    "Idempotency-Key", "Accepted but ignored: the request can be repeated."
)
CHECKED_KEY = request_header(
    "Idempotency-Key", "Checked but not stored: the request can be repeated.", _KEY
)
IF_MATCH = request_header(
    "If-Match",
    'The ETag of your last read, such as `"v3"`, a list, or `*`. A new version since then is a '
    "412. Weak tags and tags that a proxy has changed are understood.",
    r'(\*|(W/)?"[!#-~]*"(, (W/)?"[!#-~]*")*)',
)
IDEMPOTENCY_KEY = request_header(
    "Idempotency-Key",
    "1 to 255 visible ASCII characters. For 24 hours, a repeated request gets the first response "
    "and changes nothing.",
    _KEY,
)
REPLAYED = response_header(
    "Idempotency-Replayed", "`true` if this is the response to an earlier request.", 200, 201
)
X_CLIENT = request_header(
    "X-Client", "The name of your client for the history. Default: User-Agent."
)
ETAG = response_header("ETag", 'The version, such as `"v3"`, for If-Match.', 200, 201)
CACHE = response_header("Cache-Control", "Always `private, no-store`.", 200, 201)
LOCATION = response_header("Location", "The address of the conversation.", 201)

_NEW = documents.new(
    user_id="u-1",
    character_id="luna",
    title="Noche con Luna",
    tags=["casual"],
    now=datetime(2026, 1, 15, 15, tzinfo=UTC),
) | {"_id": ObjectId("507f1f77bcf86cd799439014")}
EXAMPLE: dict[str, Any] = orjson.loads(rendering.dumps(documents.resource(_NEW)))
_PINNED = EXAMPLE | {"pinned_at": "2026-01-15T15:10:00.000Z"}
_AS_READ = OpenApiExample("A conversation", EXAMPLE)
_ONE = OpenApiResponse(ConversationSerializer, "The conversation.", [_AS_READ])
_CHARACTER = (exceptions.QuotaExceeded, exceptions.CharacterNotExists, CharacterServiceUnavailable)


def _accepted(name: str, description: str) -> OpenApiParameter:
    return response_header(name, description, 415)


_REFUSED_BODY = [
    _accepted("Accept", "The accepted media types, if Content-Type is another."),
    _accepted("Accept-Encoding", "The accepted codings, if Content-Encoding is another."),
]


def operation(  # noqa: PLR0913
    operation_id: str,
    summary: str,
    *,
    responses: dict[Any, Any],
    failures: Sequence[type[errors.ServiceError]] = (),
    parameters: Sequence[Any] = (),
    request_examples: Mapping[str, Any] = {},
    response_examples: Mapping[str, Any] = {},
    tag: str = "conversations",
    **schema: Any,
) -> Any:
    """Document an operation. Examples are bodies by their name. Tags are in settings.

    `failures` are further failures: those for every operation, for a body, and for the parameters
    ID, IF_MATCH and IDEMPOTENCY_KEY are added. An operation with IF_MATCH reads a body also if it
    documents none: an empty object is accepted.
    """
    kinds: list[type[errors.ServiceError]] = [*ANYWHERE]
    for_services = tag == FOR_SERVICES
    if schema.get("request") or IF_MATCH in parameters:
        kinds += [errors.LengthRequired, errors.PayloadTooLarge, errors.UnsupportedMediaType]
        parameters = [*parameters, *_REFUSED_BODY]
        if operation_id.startswith("patch"):
            parameters.append(_accepted("Accept-Patch", "The same, for PATCH (RFC 5789)."))
        elif not operation_id.startswith(("put", "delete")):
            parameters.append(_accepted("Accept-Post", "The same, for POST."))
    if ID in parameters:
        kinds += [exceptions.ConversationNotFound]
    if IF_MATCH in parameters:
        kinds += [exceptions.ConversationVersionConflict, exceptions.ConversationStateConflict]
    kinds += failures
    if IDEMPOTENCY_KEY in parameters:
        kinds += [IdempotencyKeyReused, IdempotencyInProgress]
    kinds += [errors.InsufficientPermissions] if for_services else []
    responses = responses | failure_responses(*kinds, *AT_WORST)
    responses |= {} if for_services else failure_responses(errors.RateLimitExceeded)
    examples = [OpenApiExample(n, v, request_only=True) for n, v in request_examples.items()]
    examples += [OpenApiExample(n, v, response_only=True) for n, v in response_examples.items()]
    return extend_schema(
        operation_id=operation_id,
        summary=summary,
        tags=[tag],
        parameters=[*COMMON, *([] if for_services else RATES), *parameters],
        examples=examples,
        responses=responses,
        **schema,
    )


def _set_state(operation_id: str, summary: str, description: str) -> Any:
    return operation(
        operation_id,
        summary,
        description=f"{description} A repeated request changes nothing.",
        request=None,
        parameters=[ID, IF_MATCH, X_CLIENT, ETAG, CACHE],
        responses={200: _ONE},
        tag="states",
    )


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
        200: OpenApiResponse(ConversationListSerializer, "A page of conversations."),
        304: OpenApiResponse(description="The page has not changed."),
    },
    response_examples={
        "A page": {
            "conversations": [EXAMPLE],
            "pagination": {
                "total_count": 1,
                "has_next": False,
                "has_prev": False,
                "next_cursor": None,
                "prev_cursor": None,
                "limit": 20,
            },
        }
    },
    failures=[errors.InvalidCursor, errors.PageTooDeep],
)
create = operation(
    "createConversation",
    "Create a conversation",
    request=inputs.CreateSerializer,
    parameters=[inputs.CreateParameters, IDEMPOTENCY_KEY, REPLAYED, ETAG, CACHE, LOCATION],
    request_examples={
        "Only the required field": {"character_id": "luna"},
        "With settings": {
            "character_id": "luna",
            "title": "Noche con Luna",
            "tags": ["casual"],
            "settings": {"temperature": 0.9, "max_tokens": 1024},
        },
    },
    responses={
        201: OpenApiResponse(ConversationSerializer, "The new conversation.", [_AS_READ]),
        200: OpenApiResponse(
            ConversationSerializer, "An existing conversation, with `get_or_create`."
        ),
    },
    failures=[exceptions.ConversationStateConflict, *_CHARACTER],
)
duplicate = operation(
    "duplicateConversation",
    "Duplicate a conversation",
    description="Copies character, title, settings, tags and custom data, but no messages. A "
    "`title` in the request replaces the copied title. `forked_from` is the id of the original. "
    "With `If-Match`, only that version is copied.",
    request=inputs.DuplicateSerializer,
    parameters=[ID, IF_MATCH, IDEMPOTENCY_KEY, REPLAYED, ETAG, CACHE, LOCATION],
    responses={201: OpenApiResponse(ConversationSerializer, "The copy.", [_AS_READ])},
    failures=_CHARACTER,
)
retrieve = operation(
    "getConversation",
    "Read a conversation",
    description="Activity makes no new version but changes the ETag, so a 304 never hides it.",
    parameters=[
        ID,
        inputs.RetrieveParameters,
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
    },
    failures=[exceptions.RevisionNotFound, exceptions.RevisionExpired],
)
partial_update = operation(
    "patchConversation",
    "Change a conversation",
    description="A JSON merge patch (RFC 7396): only the fields in the request change, in one "
    "atomic statement. Two devices can change different fields at the same time. `tags_add` and "
    "`tags_remove` never conflict. A request that changes nothing makes no new version.",
    request={
        "application/json": inputs.PatchSerializer,
        "application/merge-patch+json": inputs.PatchSerializer,
    },
    parameters=[ID, IF_MATCH, X_CLIENT, IDEMPOTENCY_KEY, REPLAYED, ETAG, CACHE],
    request_examples={
        "A new title": {"title": "Otra noche con Luna"},
        "One setting, one more tag": {"settings": {"temperature": 1.1}, "tags_add": ["night"]},
    },
    responses={200: _ONE},
    failures=[errors.PreconditionRequired],
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
        inputs.DeleteParameters,
        request_header("Prefer", "`return=minimal` for an empty 204 instead of the conversation."),
        response_header("ETag", "The version of the conversation in the trash.", 200),
        response_header(
            "Preference-Applied", "`return=minimal` if the request preferred this.", 204
        ),
    ],
    responses={
        200: _ONE,
        204: OpenApiResponse(description="Purged; or in the trash, with `Prefer: return=minimal`."),
    },
    failures=[errors.PreconditionRequired, exceptions.LegalHold],
)
history = operation(
    "getHistory",
    "Get the history of a conversation",
    tag="history",
    description="The 50 newest revisions, the newest first. Counters have no history.",
    parameters=[ID, inputs.HistoryParameters],
    responses={200: HistoryPageSerializer},
    failures=[errors.InvalidCursor],
)
revert = operation(
    "revertConversation",
    "Revert fields to a former version",
    tag="history",
    description="Restores the values that the fields had in a version. This makes a new version.",
    request=inputs.RevertSerializer,
    parameters=[ID, IF_MATCH, X_CLIENT, IDEMPOTENCY_KEY, REPLAYED, ETAG, CACHE],
    request_examples={"The first title": {"version": 1, "fields": ["title"]}},
    responses={200: _ONE},
    failures=[exceptions.RevisionNotFound, exceptions.RevisionExpired, errors.PreconditionRequired],
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
    tag="overview",
    description="Pinned conversations, the latest conversation with each character, tags, counts "
    "and a cursor of the change feed, in one response.",
    responses={200: OpenApiResponse(OverviewSerializer, "The data of a client's first screen.")},
    response_examples={
        "One character, one pin": {
            "pinned": [_PINNED],
            "characters": [{"character_id": "luna", "conversation_count": 1, "latest": _PINNED}],
            "tags": [{"tag": "casual", "count": 1}],
            "counts": {ACTIVE: 1, ARCHIVED: 0, DELETED: 2},
            "sync_cursor": "WzE3Njg0OTA5NDAwMDAsIiJd.c2lnbmF0dXJl",
            "generated_at": "2026-01-15T15:30:00.000Z",
        }
    },
)
tags = operation(
    "listTags",
    "List my tags",
    tag="overview",
    description="The exact number of conversations with each tag, without the trash. The most "
    "frequent first, tags of the same count by code point. The spelling is that of the oldest "
    "conversation with the tag.",
    parameters=[inputs.TagsParameters],
    responses={200: OpenApiResponse(TagListSerializer, "The most frequent tags.")},
    response_examples={
        "Two tags": {"tags": [{"tag": "role play", "count": 12}, {"tag": "café", "count": 3}]}
    },
)
summary = operation(
    "getSummary",
    "Get my statistics",
    tag="overview",
    responses={200: UserSummarySerializer},
)
