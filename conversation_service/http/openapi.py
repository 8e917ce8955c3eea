"""Common parts of the API's documentation, docs/openapi.json, and the pages that show it."""

from typing import Any

from drf_spectacular.extensions import (
    OpenApiAuthenticationExtension,
    OpenApiSerializerFieldExtension,
)
from drf_spectacular.plumbing import get_lib_doc_excludes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema_field,
)
from drf_spectacular.views import SpectacularRedocView, SpectacularSwaggerSplitView
from rest_framework import serializers
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.views import APIView

from conversation_service.errors import (
    DatabaseUnavailable,
    HeadersTooLarge,
    InternalError,
    MethodNotAllowed,
    NotAcceptable,
    ServiceError,
    TokenExpired,
    TokenInvalid,
    TokenMissing,
    UnknownField,
    UriTooLong,
)
from conversation_service.http.exception_handler import problem
from conversation_service.http.field_codes import FIELD_CODES
from conversation_service.http.fields import StrictSerializer
from conversation_service.http.openapi_hooks import SCHEMAS


def documented_for_us() -> list[type]:
    """Return classes with docstrings that are not for clients."""
    return [*get_lib_doc_excludes(), StrictSerializer]  # type: ignore[no-untyped-call]


class AnyNegotiation(BaseContentNegotiation):
    """Serve HTML, whatever the Accept header is."""

    def select_renderer(
        self, request: Any, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        return renderers[0], renderers[0].media_type


# No inline script. The pages create inline styles, and cannot be given a nonce for them.
_CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src blob:; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)


class Page(APIView):
    """A documentation page."""

    content_negotiation_class = AnyNegotiation
    http_method_names = ["get", "head"]

    @property
    def default_response_headers(self) -> dict[str, str]:
        return {"Content-Security-Policy": _CONTENT_POLICY}


class SwaggerView(Page, SpectacularSwaggerSplitView):
    """Serves its start script at `?script=`."""

    template_name = "swagger.html"


class RedocView(Page, SpectacularRedocView):
    template_name = "redoc.html"


def _bearer(description: str) -> dict[str, Any]:
    return {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": description}


class UserScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "conversation_service.http.authentication.UserAuthentication"
    name = "user"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return _bearer("An access token of the Auth service.")


class ServiceScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "conversation_service.http.authentication.ServiceAuthentication"
    name = "service"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return _bearer('A token with `token_type: "service"` and the scope of the operation.')


class FaultSerializer(serializers.Serializer):
    """A fault of the input."""

    pointer = serializers.CharField(
        help_text="The place in the body (RFC 6901), or the parameter after a slash."
    )
    code = serializers.CharField(
        help_text=f"One of {', '.join(f'`{code}`' for code in FIELD_CODES)}; more can be added."
    )
    message = serializers.CharField(
        help_text="What would be right, in the language of Accept-Language."
    )


@extend_schema_field(
    {
        "type": "object",
        "properties": {
            "errors": {"type": "array", "items": {"$ref": f"{SCHEMAS}Fault"}},
            "allowed_from": {
                "type": "array",
                "items": {"type": "string"},
                "description": "The states of a conversation that allow the request.",
            },
        },
        "additionalProperties": {},
    }
)
class DetailsField(serializers.DictField):
    """Documents the details of a failure."""


class TextExtension(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    """Adds `minLength` to a text in a request that must not be empty."""

    target_class = "conversation_service.http.fields.Text"
    match_subclasses = True

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        schema = own_schema(self.target, auto_schema, direction)
        return schema if self.target.allow_blank else schema | {"minLength": 1}


def own_schema(field: Any, auto_schema: Any, direction: Any) -> dict[str, Any]:
    """Return the schema that a field has without an extension, for an extension.

    Without the type null, which drf-spectacular adds to the schema that an extension returns.
    """
    schema: dict[str, Any] = auto_schema._map_serializer_field(
        field, direction, bypass_extensions=True
    )
    if isinstance(schema["type"], list):
        [schema["type"]] = set(schema["type"]) - {"null"}
    return schema


class ErrorObjectSerializer(serializers.Serializer):
    code = serializers.CharField(help_text="Stable; programs can depend on it.")
    type = serializers.CharField(help_text="The kind of the status, such as ValidationError.")
    message = serializers.CharField(help_text="For users, in the language of Accept-Language.")
    details = DetailsField(help_text="Depends on the code. `errors` lists faults of the input.")
    error_id = serializers.CharField(help_text="The id of this failure in the logs.")
    request_id = serializers.CharField(help_text="Equal to the header X-Request-ID.")


class ProblemSerializer(serializers.Serializer):
    """A failure (RFC 9457); `application/problem+json` if Accept has that."""

    type = serializers.CharField(
        help_text="The address of a page that explains the code, relative to that of the request: "
        "`/api/errors/` and the code. The page needs no token."
    )
    title = serializers.CharField(help_text="The kind of failure.")
    status = serializers.IntegerField()
    detail = serializers.CharField(help_text="This failure.")
    instance = serializers.CharField(help_text="The path of the request, cut to 100 characters.")
    error = ErrorObjectSerializer()


# Every operation can fail in these ways.
ANYWHERE = (TokenMissing, TokenExpired, TokenInvalid, MethodNotAllowed, NotAcceptable, ServiceError)
AT_WORST = (UnknownField, UriTooLong, HeadersTooLarge, InternalError, DatabaseUnavailable)


def failure_responses(*kinds: type[ServiceError]) -> dict[int, OpenApiResponse]:
    """Document failures by status, each with an example."""
    by_status: dict[int, list[type[ServiceError]]] = {}
    for kind in kinds:
        by_status.setdefault(int(kind.status), []).append(kind)
    return {
        status: OpenApiResponse(
            ProblemSerializer,
            " or ".join(f"`{kind.code}`: {kind.title}" for kind in same),
            [
                OpenApiExample(
                    kind.code,
                    problem(
                        kind.example(), "/api/v1/conversations", "5f1c0d9a7b3e2468", "3f8a1c5e"
                    ),
                )
                for kind in same
            ],
        )
        for status, same in sorted(by_status.items())
    }


def request_header(name: str, description: str, pattern: str | None = None) -> OpenApiParameter:
    """Describe a header. A pattern is for the whole value."""
    kind: Any = {"type": "string", "pattern": f"^{pattern}$"} if pattern else str
    return OpenApiParameter(name, kind, OpenApiParameter.HEADER, description=description)


def response_header(name: str, description: str, *statuses: int) -> OpenApiParameter:
    return OpenApiParameter(
        name,
        location=OpenApiParameter.HEADER,
        description=description,
        response=list(statuses) or True,
    )


# Only for users: services have no limit. In fact each response to a user has the headers.
RATES = [
    response_header(name, description, 200, 201, 204, 429)
    for name, description in {
        "X-RateLimit-Limit": "Requests per window of the policy with the least remaining requests.",
        "X-RateLimit-Remaining": "Remaining requests of that policy.",
        "X-RateLimit-Reset": "When one more request is accepted, in seconds since 1970 (UTC).",
        "RateLimit-Policy": "The policies of this request, such as "
        '`"list";q=60;w=60, "all";q=100;w=60`: at most q requests in w seconds '
        "(draft-ietf-httpapi-ratelimit-headers).",
        "RateLimit": 'The policy with the least remaining requests, such as `"list";r=59;t=60`: '
        "r requests now, one more in t seconds.",
    }.items()
]

COMMON = [
    request_header(
        "X-Request-ID",
        "Id of the request: 1 to 128 of `A-Za-z0-9._-`. Another value is replaced by a new id.",
    ),
    response_header("X-Request-ID", "The id of the request, also in the logs."),
    response_header(
        "WWW-Authenticate",
        "How to authenticate and, in `error_description`, why the token is rejected (RFC 6750).",
        401,
    ),
    response_header("Allow", "The methods of the path.", 405),
    response_header("Retry-After", "Seconds after which to try again.", 429, 503),
]
