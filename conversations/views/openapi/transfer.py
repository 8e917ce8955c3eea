from typing import Any

from drf_spectacular.utils import OpenApiResponse
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
    ACCEPT_POST,
    IGNORED_KEY,
    ConversationSerializer,
    FaultSerializer,
    RevisionSerializer,
    operation,
)

_MIB = 1024 * 1024


class ExportedRevisionSerializer(RevisionSerializer):
    previous_at = serializers.DateTimeField(help_text="The time of the previous version.")


class ExportedSerializer(ConversationSerializer):
    history = ExportedRevisionSerializer(many=True, help_text="Newest first.")


class ResultSerializer(StrictSerializer):
    """The result for a line."""

    line = serializers.IntegerField(help_text="The number of the line, from 1.")
    id = serializers.CharField(
        allow_null=True,
        help_text="The id of the conversation. It differs from the id in the line if that id is "
        "in use, less than a minute old or in the future.",
    )
    status = serializers.IntegerField(
        help_text="201: created. 200: exists and is unchanged. Otherwise an error, with the `code` "
        "of a request for this conversation."
    )
    code = serializers.CharField(allow_null=True)
    message = serializers.CharField(allow_null=True)
    errors_ = FaultSerializer(many=True, help_text="The first 50 errors of the line.")
    adjusted = serializers.ListField(
        child=serializers.CharField(),
        help_text="Paths of the values that the import changed, such as "
        "`metadata.last_activity`; see the description of the operation.",
    )


export: Any = operation(
    "exportConversations",
    "Export my conversations",
    description="NDJSON with a line for each conversation, in any state and with its history, in "
    'the order of ids. The last line is `{"object": "end", "count": n}`. If it is missing, the '
    "connection broke: continue with `after`, the last received id. A change during the export "
    f"can be missing. A user can run {exports.per_user} exports at a time in a process: another "
    "one gets 429, or 503 if the process runs its maximum of exports.",
    parameters=[
        ExportParameters,
        response_header("Cache-Control", "Always `private, no-store`.", 200),
        response_header("Content-Disposition", "The name of the file.", 200),
    ],
    responses={
        (200, MEDIA_TYPE): OpenApiResponse(ExportedSerializer, "Each line except the last."),
        **failures(ServiceError, TransfersExhausted),
    },
)
import_: Any = operation(
    "importConversations",
    "Import conversations",
    description="NDJSON of an export, with or without its last line. Each conversation keeps its "
    "id, times, counters and history, and belongs to you. An import never overwrites an existing "
    "conversation and can be repeated. If an id is in use, the conversation gets another id, the "
    "same in each import. The response has a line for each conversation, in order, and ends with "
    '`{"object": "end", "count", "created", "unchanged", "failed"}`. An invalid line does not stop '
    "the others.\n\n"
    "Values that could affect other users are adjusted, and `adjusted` lists them. A time more "
    "than 5 minutes ahead becomes the present time. `purge_at` is at most the time for a "
    "conversation that is trashed now. `character_status` becomes `unverified`. The `by` of a "
    'revision stays "user"; another actor is marked, as in "imported:staff:ana". A `version` above '
    "2^52 becomes 2^52, and the versions in its history follow.\n\n"
    f"At most {NDJSONParser.max_lines:,} lines, {NDJSONParser.max_bytes // _MIB} MiB, and "
    f"{NDJSONParser.max_line_bytes // _MIB} MiB a line. A line can have {MAX_VALUES:,} values and "
    f"{MAX_TEXTS:,} texts. A user can run {imports.per_user} import at a time in a process: "
    "another one gets 429, or 503 if the process runs its maximum of imports.",
    request={MEDIA_TYPE: TransferredSerializer},
    parameters=[IGNORED_KEY, *ACCEPT_POST],
    responses={
        (200, MEDIA_TYPE): OpenApiResponse(ResultSerializer, "Each line except the last."),
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
