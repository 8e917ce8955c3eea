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
        """Spare each request what is for databases that have a connection of Django's.

        PyMongo and Redis keep pools of their own: nothing is to be closed, no log to be reset. And
        the URLconf is the same for every request, so that none need forget it.
        """
        signals.request_started.disconnect(reset_queries)
        signals.request_started.disconnect(close_old_connections)
        signals.request_finished.disconnect(close_old_connections)
        signals.request_finished.disconnect(close_caches)
        signals.request_finished.disconnect(reset_urlconf)
