"""The causes of a 401, with a reason for operators and a description for the caller."""

import logging
from dataclasses import dataclass
from time import monotonic

from django.utils import translation
from django.utils.translation import gettext_lazy as _

from conversation_service.errors import (
    Message,
    ServiceError,
    TokenExpired,
    TokenInvalid,
    TokenMissing,
)
from conversation_service.observability import context, metrics

logger = logging.getLogger(__name__)

WARNING_INTERVAL_S = 60.0  # per rejection and process

_CHALLENGE = 'Bearer realm="api"'
_last_warnings: dict["Rejection", float] = {}


@dataclass(frozen=True)
class Rejection:
    """A cause of a 401.

    `reason` is the metric label and the field in the access log. Several rejections can share it.
    `description` contains no part of a token or key; its English is ASCII without quotation marks
    and backslashes, as RFC 6750 requires for an error_description.
    """

    reason: str
    description: Message
    failure: type[ServiceError] = TokenInvalid


MISSING = Rejection("missing", TokenMissing.title, TokenMissing)
MALFORMED = Rejection(
    "malformed", _("The token must be a signed JWT in compact form, of at most 8192 bytes.")
)
SIGNATURE = Rejection("signature", _("The signature of the token does not match."))
ALGORITHM = Rejection("signature", _("The algorithm of the token is not accepted."))
UNKNOWN_KEY = Rejection(
    "signature",
    _("The issuer must publish exactly one key for the key id (kid) and algorithm of the token."),
)
EXPIRED = Rejection("expired", TokenExpired.title, TokenExpired)
NOT_YET_VALID = Rejection(
    "not_yet_valid", _("The token is not valid yet: nbf or iat is in the future.")
)
AUDIENCE = Rejection("audience", _("The token is not for this audience (aud)."))
ISSUER = Rejection("issuer", _("The token is not from the expected issuer (iss)."))
TIMES = Rejection(
    "claim",
    _("The claim exp must be a number of seconds since 1970, and so must nbf and iat if present."),
)
USER_ID = Rejection(
    "claim", _("The user id claim must be a string of 1 to 255 visible ASCII characters.")
)
SUBJECT = Rejection(
    "claim", _("The claim sub must be a string of 1 to 255 visible ASCII characters.")
)
TOKEN_ID = Rejection("claim", _("The claim jti must be a string."))
SCOPE = Rejection("claim", _("The claim scope must be a string of scopes separated by spaces."))
OTHER_USER = Rejection("claim", _("The Auth service names another user for this token."))
SERVICE_TOKEN = Rejection(
    "kind", _("This is a service token. Send an access token of a user instead.")
)
NO_SERVICE_TOKEN = Rejection("kind", _("This is not a service token. Send a service token."))
ID_TOKEN = Rejection("kind", _("This is an ID token. Send an access token instead."))
NO_ACCESS_TOKEN = Rejection("kind", _("This is not an access token. Send an access token."))
REVOKED = Rejection("revoked", _("The token has been revoked."))

# Clients cause these in normal operation. The others point to a wrong configuration.
_EXPECTED = {MISSING, EXPIRED}


def rejected(rejection: Rejection) -> ServiceError:
    """Return the failure to raise. Count it, and set the reason that the access log contains.

    Except for missing and expired tokens, log a warning, at most once per WARNING_INTERVAL_S.
    """
    metrics.AUTHENTICATION_FAILURES.labels(rejection.reason).inc()
    context.rejection_reason.set(rejection.reason)
    with translation.override(None):  # a header is ASCII, and the log is English
        description = str(rejection.description)
    now = monotonic()
    last_warning = _last_warnings.get(rejection, -WARNING_INTERVAL_S)
    if rejection not in _EXPECTED and now - last_warning >= WARNING_INTERVAL_S:
        _last_warnings[rejection] = now
        logger.warning(
            "A token was rejected, reason %s: %s Equal warnings are suppressed for %d s.",
            rejection.reason,
            description,
            WARNING_INTERVAL_S,
        )
    challenge = _CHALLENGE
    if rejection is not MISSING:
        challenge += f', error="invalid_token", error_description="{description}"'
    return rejection.failure(rejection.description, headers={"WWW-Authenticate": challenge})
