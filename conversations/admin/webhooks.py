"""The console's pages for webhook endpoints."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from rest_framework.exceptions import ValidationError
from unfold.admin import ModelAdmin

from conversation_service.errors import Message, ServiceError
from conversation_service.http.actor import Actor
from conversation_service.outbound.addresses import MAX_URL_LENGTH
from conversation_service.outbound.client import Reason
from conversations.admin import actions, roles
from conversations.admin.timeline import shown
from conversations.events import log
from conversations.models import WebhookEndpoint
from conversations.webhooks import deliveries, endpoints
from conversations.webhooks.endpoints import (
    CLOUDEVENTS,
    DESCRIPTION_LENGTH,
    DISABLED,
    ENABLED,
    FAILING,
    GONE,
    IN_FLIGHT,
    MAX_IN_FLIGHT,
    STAFF,
    STANDARD,
    STATES,
)
from conversations.webhooks.serializers import endpoint_input

_URL = "conversations_webhookendpoint"
_LIST = f"admin:{_URL}_changelist"
_PAGE = f"admin:{_URL}_change"
SHOWN_DELIVERIES = 50
FORMATS = {STANDARD: _("Standard Webhooks"), CLOUDEVENTS: _("CloudEvents 1.0")}
STATE_LABELS = {ENABLED: _("enabled"), DISABLED: _("disabled")}
FAULTS = {
    Reason.ADDRESS_REJECTED: _("the URL or its address is not allowed"),
    Reason.DNS: _("the name of the host was not found"),
    Reason.CONNECT: _("no connection"),
    Reason.TLS: _("no valid certificate"),
    Reason.TIMEOUT: _("no reply in time"),
    Reason.DISCONNECTED: _("the receiver ended the connection"),
    Reason.PROTOCOL: _("the reply is not HTTP"),
    Reason.TOO_LARGE: _("the headers of the reply are too large"),
    Reason.REDIRECT: _("redirects are not followed"),
}
REASONS = {
    FAILING: _("no success for days"),
    GONE: _("the receiver responded with 410"),
    STAFF: _("by staff or a service"),
}
DELIVERY_STATES = {
    deliveries.PENDING: _("to be sent again"),
    deliveries.WAITING: _("waits for an earlier event"),
    deliveries.DELIVERED: _("delivered"),
    deliveries.FAILED: _("failed"),
}


@dataclass(frozen=True)
class WebhookAction:
    """An action on an endpoint in one of `states`. `apply` gets the id and the actor."""

    name: str
    label: Message
    question: Message
    done: Message
    icon: str
    apply: Callable[[str, str], Any]
    states: tuple[str, ...] = STATES
    variant: str = "default"


ACTIONS = {
    action.name: action
    for action in (
        WebhookAction(
            "rotate",
            _("Replace the secret"),
            _(
                "Create a new secret? The present one signs for 24 hours more. One from before an "
                "earlier replacement ends at once."
            ),
            _("Replaced the secret"),
            "key",
            lambda id_, _by: endpoints.rotate_secret(id_),
        ),
        WebhookAction(
            "test",
            _("Send a test event"),
            _(
                "Send the event webhook.test to this endpoint? It is attempted once; the list of "
                "deliveries shows the result."
            ),
            _("Sent a test event"),
            "send",
            lambda id_, by: deliveries.send_test(id_, by=by),
            states=(ENABLED,),
        ),
        WebhookAction(
            "resume",
            _("Enable and send what was missed"),
            _("Enable the endpoint? It first gets the events that it has missed."),
            _("Enabled from its position"),
            "play_arrow",
            lambda id_, _by: deliveries.enable(id_, from_now=False),
            states=(DISABLED,),
        ),
        WebhookAction(
            "restart",
            _("Enable for new events"),
            _(
                "Enable the endpoint? It gets the events from now on, and never those that it has "
                "missed. Outstanding deliveries fail."
            ),
            _("Enabled for new events"),
            "skip_next",
            lambda id_, _by: deliveries.enable(id_, from_now=True),
            states=(DISABLED,),
        ),
        WebhookAction(
            "disable",
            _("Disable"),
            _("Disable the endpoint? It keeps its position in the log."),
            _("Disabled"),
            "pause",
            lambda id_, by: endpoints.disable(id_, STAFF, by=by),
            states=(ENABLED,),
        ),
        WebhookAction(
            "delete",
            _("Delete"),
            _("Delete the endpoint and the records of its deliveries? This cannot be undone."),
            _("Deleted"),
            "delete",
            lambda id_, _by: deliveries.delete_endpoint(id_),
            variant="danger",
        ),
    )
}
ADDED, EDITED, REDELIVERED = _("Added"), _("Edited"), _("Delivered again")


class EndpointForm(forms.Form):
    """The fields of an endpoint. The rules are those of the API."""

    url = forms.CharField(label=_("URL"), max_length=MAX_URL_LENGTH)
    description = forms.CharField(
        label=_("description"), max_length=DESCRIPTION_LENGTH, required=False
    )
    types = forms.MultipleChoiceField(
        label=_("types of events; none selected: all"),
        choices=[(type_, type_) for type_ in log.TYPES],
        required=False,
        widget=forms.CheckboxSelectMultiple,
    )
    format = forms.ChoiceField(label=_("format"), choices=[*FORMATS.items()], initial=STANDARD)
    in_flight = forms.IntegerField(
        label=_("concurrent requests"), min_value=1, max_value=MAX_IN_FLIGHT, initial=IN_FLIGHT
    )

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if not self.errors:
            try:
                cleaned = endpoint_input.run_validation(cleaned)
            except ValidationError as invalid:
                faults: Any = invalid.detail
                for name, details in faults.items():
                    self.add_error(name, str(details[0]))
        return cleaned


@admin.register(WebhookEndpoint)
class WebhookAdmin(ModelAdmin):  # type: ignore[misc]  # unfold has no types
    """Watch webhook endpoints, and manage them as the API does.

    The log records each action. Only the response to a creation or a rotation shows a secret.
    """

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return roles.allow(request, roles.WEBHOOKS)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return roles.allow(request, roles.WEBHOOKS, roles.MANAGE_WEBHOOKS)

    def get_urls(self) -> list[URLPattern]:
        staff_only = self.admin_site.admin_view
        return [
            path("", staff_only(self.list_view), name=f"{_URL}_changelist"),
            path("add/", staff_only(self.edit_view), name=f"{_URL}_add"),
            path("<str:id>/change/", staff_only(self.endpoint_view), name=f"{_URL}_change"),
            path("<str:id>/edit/", staff_only(self.edit_view), name=f"{_URL}_edit"),
            path("<str:id>/act/<slug:name>/", staff_only(self.act_view), name=f"{_URL}_act"),
            path("<str:id>/redeliver/", staff_only(self.redeliver_view), name=f"{_URL}_redeliver"),
        ]

    def list_view(self, request: HttpRequest) -> HttpResponse:
        roles.require(request, roles.WEBHOOKS)
        rows = [_in_words(resource) for resource in endpoints.list_resources()]
        return self._page(request, "console/webhooks.html", title=_("Webhooks"), rows=rows)

    def endpoint_view(self, request: HttpRequest, id: str) -> HttpResponse:  # noqa: A002
        roles.require(request, roles.WEBHOOKS)
        endpoint = _read(id)
        state = endpoint["state"]
        found = [deliveries.resource(row) for row in deliveries.page(id, limit=SHOWN_DELIVERIES)]
        for delivery in found:
            delivery["says"] = DELIVERY_STATES[delivery["state"]]
            for attempt in delivery["attempts"]:
                attempt["fault"] = FAULTS.get(attempt["reason"], attempt["reason"])
        return self._page(
            request,
            "console/webhook.html",
            title=endpoint["url"],
            endpoint=endpoint,
            lines=_lines(endpoint),
            offered=[action for action in ACTIONS.values() if state in action.states],
            deliveries=found,
            shown=SHOWN_DELIVERIES,
        )

    def edit_view(self, request: HttpRequest, id: str | None = None) -> HttpResponse:  # noqa: A002
        """Add an endpoint, or edit one."""
        roles.require(request, roles.WEBHOOKS, roles.MANAGE_WEBHOOKS)
        endpoint = _read(id) if id else None
        form = EndpointForm(request.POST or None, initial=endpoint)
        if not form.is_valid():
            title = gettext("Edit the webhook") if id else gettext("Add a webhook")
            return self._page(
                request, "console/webhook_form.html", title=title, form=form, endpoint=endpoint
            )
        try:
            if id:
                endpoints.change(id, form.cleaned_data)
                self._record(request, id, EDITED)
                return self._done(request, id, EDITED)
            by = Actor.staff(request.user.get_username()).by
            created, secret = endpoints.create(form.cleaned_data, created_by=by)
        except ServiceError as refused:
            return self._refused(request, refused)
        self._record(request, created["_id"], ADDED)
        return self._secret(request, created["_id"], secret)

    def act_view(self, request: HttpRequest, id: str, name: str) -> HttpResponse:  # noqa: A002
        """Confirm an action, then perform it."""
        roles.require(request, roles.WEBHOOKS, roles.MANAGE_WEBHOOKS)
        endpoint = _read(id)
        if name not in ACTIONS:
            raise Http404
        action = ACTIONS[name]
        if request.method != "POST":
            return self._page(
                request,
                "console/webhook_confirm.html",
                title=action.label,
                endpoint=endpoint,
                action=action,
            )
        if endpoint["state"] not in action.states:
            self.message_user(request, gettext("There was nothing to change."), messages.INFO)
            return HttpResponseRedirect(reverse(_PAGE, args=[id]))
        try:
            result = action.apply(id, Actor.staff(request.user.get_username()).by)
        except ServiceError as refused:
            return self._refused(request, refused)
        self._record(request, id, action.done)
        if name == "rotate":
            return self._secret(request, id, result[1])
        return self._done(request, None if name == "delete" else id, action.done)

    def redeliver_view(self, request: HttpRequest, id: str) -> HttpResponse:  # noqa: A002
        """Deliver an event again, by a POST from its button."""
        if request.method != "POST":
            raise Http404
        roles.require(request, roles.WEBHOOKS, roles.MANAGE_WEBHOOKS)
        event = request.POST.get("event", "")
        try:
            deliveries.redeliver(id, event)
        except ServiceError as refused:
            return self._refused(request, refused, id)
        self._record(request, id, REDELIVERED, event)
        return self._done(request, id, _("The event is delivered again"))

    def _page(self, request: HttpRequest, template: str, **context: Any) -> TemplateResponse:
        request.current_app = self.admin_site.name
        context |= {
            "opts": self.opts,
            "may_manage": roles.allow(request, roles.MANAGE_WEBHOOKS),
        }
        return TemplateResponse(request, template, self.admin_site.each_context(request) | context)

    def _secret(self, request: HttpRequest, id_: str, secret: str) -> HttpResponse:
        """Show a new secret in this response: a message would be stored in the session."""
        return self._page(
            request,
            "console/webhook_secret.html",
            title=_("The secret of the webhook"),
            endpoint=_read(id_),
            secret=secret,
        )

    def _record(self, request: HttpRequest, id_: str, done: Message, event: str = "") -> None:
        message = actions.in_english(done) + (f": {event}" if event else "")
        actions.record(request, [WebhookEndpoint(pk=id_)], message)

    def _done(self, request: HttpRequest, id_: str | None, done: Message) -> HttpResponse:
        self.message_user(request, f"{done}.", messages.SUCCESS)
        return HttpResponseRedirect(reverse(_PAGE, args=[id_]) if id_ else reverse(_LIST))

    def _refused(
        self, request: HttpRequest, refused: ServiceError, id_: str | None = None
    ) -> HttpResponse:
        self.message_user(request, str(refused.message), messages.ERROR)
        return HttpResponseRedirect(reverse(_PAGE, args=[id_]) if id_ else reverse(_LIST))


def _read(id_: str) -> dict[str, Any]:
    """Return an endpoint in words. Raises Http404."""
    try:
        return _in_words(endpoints.resource(endpoints.get(id_)))
    except endpoints.WebhookNotFound:
        raise Http404 from None


def _in_words(endpoint: dict[str, Any]) -> dict[str, Any]:
    reason = REASONS.get(endpoint["disabled_reason"], "")
    is_failing = endpoint["state"] == ENABLED and endpoint["failing_since"]
    says = _("enabled, failing") if is_failing else STATE_LABELS[endpoint["state"]]
    return endpoint | {"says": says, "reason": reason}


def _lines(endpoint: dict[str, Any]) -> dict[Message, list[tuple[Message, str]]]:
    """Return the sections of an endpoint's page."""
    types = ", ".join(endpoint["types"]) or gettext("all types")
    return {
        _("Endpoint"): [
            ("ID", endpoint["id"]),
            (_("description"), shown(endpoint["description"])),
            (_("types of events"), types),
            (_("format"), str(FORMATS.get(endpoint["format"], endpoint["format"]))),
            (_("concurrent requests"), shown(endpoint["in_flight"])),
            (_("created by"), endpoint["created_by"]),
        ],
        _("Deliveries"): [
            (_("events not yet attempted"), shown(endpoint["pending_events"])),
            (_("lost events"), shown(endpoint["lost_events"])),
            (_("delivered events"), shown(endpoint["delivered"])),
            (_("failed attempts"), shown(endpoint["failed"])),
        ],
        _("Times (UTC)"): [
            (_("last success"), shown(endpoint["last_success_at"])),
            (_("failing since"), shown(endpoint["failing_since"])),
            (_("disabled since"), shown(endpoint["disabled_at"])),
            (_("added"), shown(endpoint["created_at"])),
            (_("secret created"), shown(endpoint["secrets"][0]["created_at"])),
        ],
    }
