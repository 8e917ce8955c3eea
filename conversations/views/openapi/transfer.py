from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import serializers

from conversation_service.errors import (
    LengthRequired,
    PayloadTooLarge,
    ServiceError,
    StorageFull,
    UnsupportedMediaType,
)
from conversation_service.http.fields import StrictSerializer
from conversation_service.http.ndjson import MAX_TEXTS, MAX_VALUES, MEDIA_TYPE, NDJSONParser
from conversation_service.http.openapi import failures, response_header
from conversations.exceptions import TransfersExhausted
from conversations.jobs.concurrency import exports, imports
from conversations.serializers.transfer import ExportParameters, TransferredSerializer
from conversations.views.openapi.conversations import (
    ConversationSerializer,
    FaultSerializer,
    RevisionSerializer,
    operation,
)

_MIB = 1024 * 1024


class ExportedRevisionSerializer(RevisionSerializer):
    previous_at = serializers.DateTimeField(help_text="When the version before was made.")


class ExportedSerializer(ConversationSerializer):
    history = ExportedRevisionSerializer(many=True, help_text="Newest first.")


class ResultSerializer(StrictSerializer):
    """What became of a line."""

    line = serializers.IntegerField(help_text="Its number, from 1.")
    id = serializers.CharField(
        allow_null=True,
        help_text="The id of the conversation: a new one if the id in the line is taken, less than "
        "a minute old or in the future.",
    )
    status = serializers.IntegerField(
        help_text="201 created; 200 it was there already and is unchanged; else why it was not "
        "taken, with `code` as for a single conversation."
    )
    code = serializers.CharField(allow_null=True)
    message = serializers.CharField(allow_null=True)
    errors_ = FaultSerializer(many=True, help_text="The first 50 faults of the line.")
    adjusted = serializers.ListField(
        child=serializers.CharField(),
        help_text="Paths of the values that the import changed, such as "
        "`metadata.last_activity`; see the description of the operation.",
    )


_IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="Accepted, but not needed: an import may be repeated.",
)

export: Any = operation(
    "exportConversations",
    "Everything of mine",
    description="NDJSON: a conversation a line, in any state, with its history, in the order of "
    'ids. The last line is `{"object": "end", "count": n}`; if it is missing, the connection '
    "broke: call again with `after`, the last id that you received. What changes while you read "
    f"may be in it or not. A user may run {exports.per_user} exports at a time: one more gets 429 "
    "from the same process, and 503 if the process runs as many as it can.",
    parameters=[
        ExportParameters,
        response_header("Cache-Control", "Always `private, no-store`.", 200),
        response_header("Content-Disposition", "A name for the file.", 200),
    ],
    responses={
        (200, MEDIA_TYPE): OpenApiResponse(ExportedSerializer, "Of each line but the last."),
        **failures(ServiceError, TransfersExhausted),
    },
)
import_: Any = operation(
    "importConversations",
    "Take in what was exported",
    description="NDJSON as an export writes it; its last line may be there or not. Each "
    "conversation keeps its id, its times, its counters and its history, and becomes yours. "
    "Nothing that exists is ever overwritten, so an import may be repeated. Where an id is "
    "taken, the conversation gets another, the same each time. The answer has a line for each, "
    'in order, and ends with `{"object": "end", "count", "created", "unchanged", "failed"}`. '
    "A line that is not taken stops no other.\n\n"
    "Values that affect others are adjusted, and `adjusted` names them: a time more than 5 "
    "minutes ahead becomes the present time; `purge_at` is at most as far ahead as for a "
    "conversation that is trashed now; `character_status` becomes `unverified`; of a revision, "
    '`by` is kept if it is "user", and else marked as in "imported:staff:ana"; a `version` above '
    "2^52 becomes 2^52 (and those of its history follow).\n\n"
    f"At most {NDJSONParser.max_lines:,} lines, {NDJSONParser.max_bytes // _MIB} MiB, and "
    f"{NDJSONParser.max_line_bytes // _MIB} MiB a line. A line may have {MAX_VALUES:,} values and "
    f"{MAX_TEXTS:,} texts. A user may run {imports.per_user} import at a time: one more gets 429 "
    "from the same process, and 503 if the process runs as many as it can.",
    request={MEDIA_TYPE: TransferredSerializer},
    parameters=[_IDEMPOTENCY_KEY],
    responses={
        (200, MEDIA_TYPE): OpenApiResponse(ResultSerializer, "Of each line but the last."),
        **failures(
            ServiceError,
            LengthRequired,
            PayloadTooLarge,
            UnsupportedMediaType,
            TransfersExhausted,
            StorageFull,
        ),
    },
)
