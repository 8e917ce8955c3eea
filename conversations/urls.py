"""Paths under /api/v1; fixed words stand before ids."""

from typing import Any

from django.urls import path

from conversations.bulk.views import BulkView
from conversations.sync.views import ChangesView
from conversations.transfer.views import ExportView, ImportView
from conversations.views import ConversationViewSet


def _view(**actions: Any) -> Any:
    return ConversationViewSet.as_view(actions)


urlpatterns = [
    path("conversations", _view(get="list", post="create")),
    path("conversations/summary", _view(get="summary")),
    path("conversations/overview", _view(get="overview")),
    path("conversations/bulk", BulkView.as_view()),
    path("conversations/export", ExportView.as_view()),
    path("conversations/import", ImportView.as_view()),
    path("conversations/<str:id>", _view(get="retrieve", patch="partial_update", delete="destroy")),
    path("conversations/<str:id>/archive", _view(post="archive")),
    path("conversations/<str:id>/restore", _view(post="restore")),
    path("conversations/<str:id>/duplicate", _view(post="duplicate")),
    path("conversations/<str:id>/history", _view(get="history")),
    path("conversations/<str:id>/revert", _view(post="revert")),
    path("conversations/<str:id>/pin", _view(post="pin")),
    path("conversations/<str:id>/unpin", _view(post="unpin")),
    path("changes", ChangesView.as_view()),
    path("tags", _view(get="tags")),
]
