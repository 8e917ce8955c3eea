"""The base of every endpoint of the API."""

from collections.abc import Mapping
from traceback import clear_frames
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from rest_framework.metadata import SimpleMetadata
from rest_framework.views import APIView

from conversation_service.http.authentication import CallerRequest
from conversation_service.http.rendering import JSONResponse


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
        return super().default_response_headers if self.request.method == "OPTIONS" else {}

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
