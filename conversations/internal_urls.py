from django.urls import path

from conversations.views.events import EventsView
from conversations.views.internal import (
    ActivityBatchView,
    ActivityView,
    AuthorizeView,
)

urlpatterns = [
    path("authorize", AuthorizeView.as_view()),
    path("activity", ActivityBatchView.as_view()),
    path("events", EventsView.as_view()),
    path("conversations/<str:id>/activity", ActivityView.as_view()),
]
