from django.apps import AppConfig
from django.core import signals
from django.core.cache import close_caches
from django.core.handlers.base import reset_urlconf
from django.db import close_old_connections, reset_queries
from pymongo import IndexModel

from conversation_service.mongodb.collections import CollectionSchema


class ConversationServiceConfig(AppConfig):
    name = "conversation_service"
    verbose_name = "Conversation Service"
    collections = [
        # See mongodb/cache.py.
        CollectionSchema(
            "cache", indexes=[IndexModel("expires_at", name="cache_expiry", expireAfterSeconds=0)]
        )
    ]

    def ready(self) -> None:
        """Disconnect signal handlers that Django runs for each request, without effect here.

        PyMongo and Redis have their own pools: there is no connection to close and no query log to
        reset. The URLconf is the same for every request.
        """
        signals.request_started.disconnect(reset_queries)
        signals.request_started.disconnect(close_old_connections)
        signals.request_finished.disconnect(close_old_connections)
        signals.request_finished.disconnect(close_caches)
        signals.request_finished.disconnect(reset_urlconf)
