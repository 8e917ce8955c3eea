"""The base class of every endpoint."""

import re
from collections.abc import Mapping, Set
from traceback import clear_frames
from typing import Any, cast
from urllib.parse import parse_qsl

import pymongo
from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.utils.translation import gettext_lazy as _
from rest_framework.metadata import SimpleMetadata
from rest_framework.views import APIView

from config.env import env
from conversation_service.errors import PreconditionRequired, ServiceError
from conversation_service.http.actor import Actor
from conversation_service.http.authentication import CallerRequest
from conversation_service.http.deprecation import Deprecated
from conversation_service.http.ratelimit import Counted
from conversation_service.http.rendering import CODING, ENTITY_TAGS, JSONNegotiation, JSONResponse
from conversation_service.observability.context import request_id

_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")
_VERSION = re.compile(rf'"v([1-9][0-9]{{0,15}})(?:\.[0-9a-f]{{24}})?(?:{CODING})?"')


class Endpoint(APIView):
    """DRF's view, which frees a request's memory as soon as the response is sent.

    DRF connects the view, its request and its response in reference cycles. They would stay in
    memory until the garbage collector runs: its pauses get longer, and each worker larger.
    """

    # Seconds for all operations of MongoDB in one request together. None: for each on its own.
    mongodb_s: float | None = env("MONGODB_TIMEOUT_MS") / 1_000
    request: CallerRequest
    # The policy of settings.RATE_LIMITS, by the name of the method that handles the request.
    rate_limits: Mapping[str, str] = {}
    counted: Counted | None = None
    # By the name of the method that handles the request.
    deprecated: Mapping[str, Deprecated] = {}

    def rate_limit(self, handler: str) -> str | None:
        """Return the policy of settings.RATE_LIMITS for this request."""
        return self.rate_limits.get(handler)

    def uses_deprecated(self, names: Set[str]) -> bool:
        """Return True if `names` is empty, or the query or the parsed body has a name from it."""
        query = self.request.META.get("QUERY_STRING", "")
        if any(name in query for name in names):  # cheaper, and mostly False
            sent = {name for name, _value in parse_qsl(query, keep_blank_values=True)}
            if names & sent:
                return True
        body = vars(self.request).get("_full_data")
        return not names or (isinstance(body, dict) and not names.isdisjoint(body))

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

    def if_match(self, *, may_be_required: bool = False) -> frozenset[int] | None:
        """Return the versions in If-Match, or None for every version. Other tags match nothing.

        With `may_be_required`, the clients in IF_MATCH_REQUIRED_FOR must send it. Raises
        PreconditionRequired, or ServiceError if malformed.
        """
        header = self.request.META.get("HTTP_IF_MATCH")
        if header is None:
            if may_be_required and settings.IF_MATCH_REQUIRED_FOR:
                name = (self.actor.client or "").partition("/")[0].lower()
                if not {"*", name}.isdisjoint(settings.IF_MATCH_REQUIRED_FOR):
                    raise PreconditionRequired
            return None
        if header.strip() == "*":
            return None
        if not ENTITY_TAGS.fullmatch(header):
            raise ServiceError(
                _('If-Match must be * or entity tags in quotation marks, as in ETag, such as "v3".')
            )
        return frozenset(map(int, _VERSION.findall(header)))

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        with pymongo.timeout(self.mongodb_s):
            response = super().dispatch(request, *args, **kwargs)
        handler = getattr(self, "action", None) or cast(str, request.method).lower()
        deprecated = self.deprecated.get(handler)
        if deprecated and self.uses_deprecated(deprecated.names):
            deprecated.mark(response)
        # These two dictionaries hold every reference from the request and the view to themselves.
        self.request.parser_context.clear()
        vars(self).clear()
        return response

    def handle_exception(self, exc: Exception) -> HttpResponseBase:  # type: ignore[override]
        """Return the count for a refused creation, and clear the exception's frames.

        PyMongo and futures keep exceptions in cycles.
        """
        response: HttpResponseBase = super().handle_exception(exc)
        if self.counted:
            self.headers |= self.counted.return_if_refused(response.status_code)
        cause: BaseException | None = exc
        while cause is not None:
            clear_frames(cause.__traceback__)
            cause = cause.__cause__ or cause.__context__
        return response

    def options(self, request: CallerRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        return JSONResponse(SimpleMetadata().determine_metadata(request, self))
