"""API documentation for the export and the import."""

from drf_spectacular.utils import OpenApiResponse, PolymorphicProxySerializer
from rest_framework import serializers

from conversation_service.errors import StorageFull
from conversation_service.http.fields import StrictSerializer
from conversation_service.http.ndjson import (
    ALIASES,
    MAX_TEXTS,
    MAX_VALUES,
    MEDIA_TYPE,
    NDJSONParser,
)
from conversation_service.http.openapi import FaultSerializer, response_header
from conversations.exceptions import TransfersExhausted
from conversations.jobs.concurrency import exports, imports
from conversations.serializers.transfer import (
    ExportParameters,
    ImportParameters,
    LenientLineSerializer,
    TransferredSerializer,
)
from conversations.views.openapi.conversations import (
    EXAMPLE,
    IGNORED_KEY,
    ConversationSerializer,
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
        help_text="201: created. 200: exists and is unchanged. 410: skipped, as it was purged. "
        "Otherwise an error, with the `code` of a request for this conversation."
    )
    code = serializers.CharField(allow_null=True)
    message = serializers.CharField(allow_null=True)
    errors_ = FaultSerializer(many=True, help_text="The first 50 errors of the line.")
    adjusted = serializers.ListField(
        child=serializers.CharField(),
        help_text="Paths of the values that the import changed, such as "
        "`metadata.last_activity`; see the description of the operation.",
    )


export = operation(
    "exportConversations",
    "Export my conversations",
    tag="import and export",
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
    },
    failures=[TransfersExhausted],
)
import_ = operation(
    "importConversations",
    "Import conversations",
    tag="import and export",
    description="NDJSON of an export, with or without its last line. Each conversation keeps its "
    "id, times, counters and history, and belongs to you. An import never overwrites an existing "
    "conversation and can be repeated. If an id is in use, the conversation gets another id, the "
    "same in each import. The response has a line for each conversation, in order, and ends with "
    '`{"object": "end", "count", "created", "unchanged", "skipped", "failed"}`. An invalid line '
    "does not stop the others. A purged conversation stays purged: its line is skipped, with the "
    "status 410 and the code `CONVERSATION_PURGED`, while the change feed lists the purge.\n\n"
    "Values that could affect other users are adjusted, and `adjusted` lists them. A time more "
    "than 5 minutes ahead becomes the present time. `purge_at` is at most the time for a "
    "conversation that is trashed now; if it has passed, it becomes that time. `character_status` "
    "becomes `unverified`. The `by` of a "
    'revision stays "user"; another actor is marked, as in "imported:staff:ana". A `version` above '
    "2^52 becomes 2^52, and the versions in its history follow. Blanks in titles and tags are "
    "normalised as in a PATCH.\n\n"
    "A line from another program, a `LenientLine`, has none of `id`, `object`, `metadata`, "
    "`version` and `history`. It needs only `character_id`, in the line or as a parameter. With "
    "`external_id`, a second import changes nothing. Values beyond a limit are adjusted or left "
    "out, and `adjusted` lists them: a title is cut to 200 characters and gets one line; tags "
    "lose characters that they do not accept, repetitions, and the items after the tenth; a "
    "setting that this service cannot store gets its default; `custom` and `extra` keep 16 keys, "
    "`custom` the first 512 characters of a text; a number from 10^11 on is a time in "
    "milliseconds or a shorter unit; a time before 1970 counts as absent; a time more than 5 "
    "minutes ahead becomes the present time; `last_activity` is at least `created_at`. A value "
    "of another type and an unknown field are errors of the line.\n\n"
    f"The body is in UTF-8, with or without a BOM, as {MEDIA_TYPE} or {', '.join(ALIASES)}. "
    "`Content-Encoding: gzip` is supported; the limits are those of the unpacked body. "
    f"At most {NDJSONParser.max_lines:,} lines, {NDJSONParser.max_bytes // _MIB} MiB, and "
    f"{NDJSONParser.max_line_bytes // _MIB} MiB a line. A line can have {MAX_VALUES:,} values and "
    f"{MAX_TEXTS:,} texts. A user can run {imports.per_user} import at a time in a process: "
    "another one gets 429, or 503 if the process runs its maximum of imports.",
    request={
        MEDIA_TYPE: PolymorphicProxySerializer(
            component_name="ImportedLine",
            serializers=[TransferredSerializer, LenientLineSerializer],
            resource_type_field_name=None,
        )
    },
    parameters=[ImportParameters, IGNORED_KEY],
    request_examples={
        "An exported line": EXAMPLE,
        "A line from another program": {
            "external_id": "9b1c7c1e-5d1f-4a55-b4a2-0d8f7b1f8c11",
            "character_id": "luna",
            "title": "Noche con Luna",
            "created_at": 1700000000.25,
            "last_activity": "2026-01-15T15:00:00Z",
            "tags": ["casual"],
        },
    },
    responses={
        (200, MEDIA_TYPE): OpenApiResponse(ResultSerializer, "Each line except the last."),
    },
    failures=[TransfersExhausted, StorageFull],
)
