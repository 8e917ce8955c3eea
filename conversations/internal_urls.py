from django.urls import path

from conversations.views.events import EventsView
from conversations.views.internal import (
    ActivityBatchView,
    ActivityView,
    AuthorizeView,
)
from conversations.views.webhooks import (
    WebhookDeliveriesView,
    WebhookDisableView,
    WebhookEnableView,
    WebhookRedeliveryView,
    WebhookSecretView,
    WebhooksView,
    WebhookTestView,
    WebhookView,
)

urlpatterns = [
    path("authorize", AuthorizeView.as_view()),
    path("activity", ActivityBatchView.as_view()),
    path("events", EventsView.as_view()),
    path("conversations/<str:id>/activity", ActivityView.as_view()),
    path("webhooks", WebhooksView.as_view()),
    path("webhooks/<str:id>", WebhookView.as_view()),
    path("webhooks/<str:id>/rotate-secret", WebhookSecretView.as_view()),
    path("webhooks/<str:id>/enable", WebhookEnableView.as_view()),
    path("webhooks/<str:id>/disable", WebhookDisableView.as_view()),
    path("webhooks/<str:id>/test", WebhookTestView.as_view()),
    path("webhooks/<str:id>/deliveries", WebhookDeliveriesView.as_view()),
    path("webhooks/<str:id>/deliveries/<str:event_id>/redeliver", WebhookRedeliveryView.as_view()),
]
