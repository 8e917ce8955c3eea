"""The URLs of the API. Fixed segments precede ids. include() would double the time to resolve."""

from typing import Any

from django.urls import path

from conversations.views.bulk import BulkView
from conversations.views.changes import ChangesView
from conversations.views.conversations import ConversationViewSet
from conversations.views.transfer import ExportView, ImportView


def _view(**actions: Any) -> Any:
    return ConversationViewSet.as_view(actions)


urlpatterns = [
    path("api/v1/conversations", _view(get="list", post="create")),
    path("api/v1/conversations/summary", _view(get="summary")),
    path("api/v1/conversations/overview", _view(get="overview")),
    path("api/v1/conversations/bulk", BulkView.as_view()),
    path("api/v1/conversations/export", ExportView.as_view()),
    path("api/v1/conversations/import", ImportView.as_view()),
    path(
        "api/v1/conversations/<str:id>",
        _view(get="retrieve", patch="partial_update", delete="destroy"),
    ),
    path("api/v1/conversations/<str:id>/archive", _view(post="archive")),
    path("api/v1/conversations/<str:id>/restore", _view(post="restore")),
    path("api/v1/conversations/<str:id>/duplicate", _view(post="duplicate")),
    path("api/v1/conversations/<str:id>/history", _view(get="history")),
    path("api/v1/conversations/<str:id>/revert", _view(post="revert")),
    path("api/v1/conversations/<str:id>/pin", _view(post="pin")),
    path("api/v1/conversations/<str:id>/unpin", _view(post="unpin")),
    path("api/v1/changes", ChangesView.as_view()),
    path("api/v1/tags", _view(get="tags")),
]
