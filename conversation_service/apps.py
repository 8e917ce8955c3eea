from django.apps import AppConfig
from django.core import signals
from django.core.cache import close_caches
from django.db import close_old_connections, reset_queries


class ConversationServiceConfig(AppConfig):
    name = "conversation_service"
    verbose_name = "Conversation Service"

    def ready(self) -> None:
        """Spare each request what is for databases that have a connection of Django's.

        PyMongo and Redis keep pools of their own: nothing is to be closed, no log to be reset.
        """
        signals.request_started.disconnect(reset_queries)
        signals.request_started.disconnect(close_old_connections)
        signals.request_finished.disconnect(close_old_connections)
        signals.request_finished.disconnect(close_caches)
