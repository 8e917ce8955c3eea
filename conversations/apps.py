from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ConversationsConfig(AppConfig):
    name = "conversations"
    verbose_name = _("Conversations")
    default_auto_field = "django_mongodb_backend.fields.ObjectIdAutoField"

    def ready(self) -> None:
        """Declare the collections and register the pages of the console.

        The collections derive from models and settings.

        Django's own search for admin modules would import the package while it makes the site.
        """
        from conversations.admin import accounts, conversation, log, webhooks  # noqa: F401, PLC0415
        from conversations.events import log as event_log  # noqa: PLC0415
        from conversations.schema import COLLECTIONS  # noqa: PLC0415
        from conversations.webhooks import deliveries, endpoints  # noqa: PLC0415

        self.collections = [
            *(*COLLECTIONS, event_log.COLLECTION),
            *(endpoints.COLLECTION, deliveries.COLLECTION),
        ]
