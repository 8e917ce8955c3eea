"""The base of every endpoint of the API."""

import re
from collections.abc import Mapping
from traceback import clear_frames
from typing import Any, cast

from django.http import HttpRequest, HttpResponseBase
from rest_framework.metadata import SimpleMetadata
from rest_framework.views import APIView

from conversation_service.http.actor import Actor
from conversation_service.http.authentication import CallerRequest
from conversation_service.http.rendering import JSONNegotiation, JSONResponse
from conversation_service.observability.context import request_id

_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")


class Endpoint(APIView):
    """DRF's view, which frees the memory of a request as soon as its response is sent.

    DRF connects the view, its request and its response in reference cycles. They would stay in
    memory until the garbage collector runs: its pauses get longer, and each worker larger.
    """

    request: CallerRequest
    # The policy of settings.RATE_LIMITS, by the name of the method that handles the request.
    rate_limits: Mapping[str, str] = {}

    @property
    def default_response_headers(self) -> dict[str, str]:
        """Send Allow only with OPTIONS and 405: DRF computes it for each response."""
        if self.request.method != "OPTIONS":
            return {}
        negotiation = cast(JSONNegotiation, self.get_content_negotiator())
        headers: dict[str, str] = super().default_response_headers
        return headers | negotiation.accepted_bodies(*self.allowed_methods)

    @property
    def actor(self) -> Actor:
        """The user, with the client from X-Client or from the first product in User-Agent."""
        headers = self.request.META
        sent = headers.get("HTTP_X_CLIENT") or headers.get("HTTP_USER_AGENT", "")
        match = _CLIENT.match(sent)
        return Actor("user", match[0] if match else None, request_id.get())

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = super().dispatch(request, *args, **kwargs)
        # These two dictionaries hold every reference from the request and the view to themselves.
        self.request.parser_context.clear()
        vars(self).clear()
        return response

    def handle_exception(self, exc: Exception) -> HttpResponseBase:  # type: ignore[override]
        """Clear the frames of the exception: PyMongo and futures keep exceptions in cycles."""
        response: HttpResponseBase = super().handle_exception(exc)
        cause: BaseException | None = exc
        while cause is not None:
            clear_frames(cause.__traceback__)
            cause = cause.__cause__ or cause.__context__
        return response

    def options(self, request: CallerRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        return JSONResponse(SimpleMetadata().determine_metadata(request, self))
