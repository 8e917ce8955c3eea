"""The export and the import of all conversations of a user, as NDJSON."""

from io import BytesIO
from typing import IO, cast

from django.http import StreamingHttpResponse

from conversation_service.http import ndjson
from conversation_service.http.authentication import CallerRequest
from conversation_service.http.endpoint import Endpoint
from conversation_service.http.ndjson import NDJSONNegotiation, NDJSONParser
from conversations.jobs import exporting, importing
from conversations.serializers.transfer import export_parameters, import_parameters
from conversations.views.openapi import transfer as openapi


class ExportView(Endpoint):
    content_negotiation_class = NDJSONNegotiation

    @openapi.export
    def get(self, request: CallerRequest) -> StreamingHttpResponse:
        parameters = export_parameters.parse(request)
        return ndjson.response(
            exporting.rows(request.user.id, parameters.get("after")),
            **{
                "Cache-Control": "private, no-store",
                "Content-Disposition": 'attachment; filename="conversations.ndjson"',
            },
        )


class ImportView(Endpoint):
    mongodb_s = None  # each batch of lines has its statements
    content_negotiation_class = NDJSONNegotiation
    parser_classes = [NDJSONParser]
    # An import counts as one creation: the parser bounds the number of its lines.
    rate_limits = {"post": "create"}

    @openapi.import_
    def post(self, request: CallerRequest) -> StreamingHttpResponse:
        parameters = import_parameters.parse(request)

        def body() -> IO[bytes]:
            # DRF does not call the parser for an empty body.
            return cast(IO[bytes], request.data or BytesIO())

        return ndjson.response(
            importing.results(request.user.id, parameters.get("character_id"), body)
        )
