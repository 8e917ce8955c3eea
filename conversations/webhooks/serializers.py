"""Serializers for webhook endpoints: for requests, and for the forms of the console."""

from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework.exceptions import ValidationError

from conversation_service.http import fields
from conversation_service.outbound.addresses import MAX_URL_LENGTH, AddressRejected, check_url
from conversations.events import log
from conversations.limits import MAX_COUNT, MAX_PAGE_SIZE, PAGE_SIZE
from conversations.webhooks import deliveries, secrets
from conversations.webhooks.endpoints import (
    DESCRIPTION_LENGTH,
    FORMATS,
    IN_FLIGHT,
    MAX_IN_FLIGHT,
    STANDARD,
)


class PublicUrl(fields.Text):
    """A URL that the address guard allows. Its host's name is looked up."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=MAX_URL_LENGTH, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        url: str = super().to_internal_value(data)
        if len(url) > self.max_length:
            self.fail("max_length", max_length=self.max_length)
        try:
            check_url(url)
        except AddressRejected as error:
            raise ValidationError(str(error.text), error.rule) from None
        return url


class Secret(fields.Text):
    default_error_messages = {
        "invalid": _("Use whsec_ and 24 to 64 random bytes in base64, or omit the field."),
    }

    def to_internal_value(self, data: Any) -> str:
        secret: str = super().to_internal_value(data)
        try:
            secrets.key(secret)
        except ValueError:
            self.fail("invalid")
        return secret


class EndpointChangesSerializer(fields.StrictSerializer):
    url = PublicUrl(required=False)
    description = fields.Line(max_length=DESCRIPTION_LENGTH, allow_blank=True, required=False)
    types = fields.Subset(
        log.TYPES,
        required=False,
        help_text="The types of the events to send. Empty: all types.",
    )
    format = fields.Choice(
        FORMATS,
        required=False,
        help_text="The form of a body: that of Standard Webhooks, or CloudEvents 1.0.",
    )
    in_flight = fields.Integer(
        min_value=1,
        max_value=MAX_IN_FLIGHT,
        required=False,
        help_text="Concurrent requests at most; for each conversation there is one.",
    )


class RotationSerializer(fields.StrictSerializer):
    secret = Secret(
        max_length=len(secrets.PREFIX) + 4 * (secrets.MAX_BYTES // 3 + 1),
        required=False,
        help_text="`whsec_` and 24 to 64 bytes in base64. Without it, one is generated.",
    )


class EndpointSerializer(EndpointChangesSerializer, RotationSerializer):
    url = PublicUrl(help_text="https, with a public host and an allowed port.")
    format = fields.Choice(FORMATS, default=STANDARD)
    in_flight = fields.Integer(min_value=1, max_value=MAX_IN_FLIGHT, default=IN_FLIGHT)


class EnableSerializer(fields.StrictSerializer):
    from_ = fields.Choice(
        ["cursor", "now"],
        help_text="`cursor`: send first what was not sent while the endpoint was disabled.",
    )


class DeliveriesParameters(fields.Parameters):
    limit = fields.IntegerParameter(min_value=1, max_value=MAX_PAGE_SIZE, default=PAGE_SIZE)
    state = fields.Choice(deliveries.STATES, required=False)
    before = fields.IntegerParameter(
        min_value=1,
        max_value=MAX_COUNT,
        required=False,
        help_text="A `sequence`: only deliveries of earlier events.",
    )


endpoint_input = EndpointSerializer()
endpoint_changes_input = EndpointChangesSerializer()
rotation_input = RotationSerializer()
enable_input = EnableSerializer()
deliveries_parameters = DeliveriesParameters()
