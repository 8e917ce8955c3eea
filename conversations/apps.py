from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

from conversations.schema import COLLECTIONS


class ConversationsConfig(AppConfig):
    name = "conversations"
    verbose_name = _("Conversations")
    default_auto_field = "django_mongodb_backend.fields.ObjectIdAutoField"
    collections = COLLECTIONS

    def ready(self) -> None:
        """Register the pages of the console.

        Django's own search for admin modules would import the package while it makes the site.
        """
        from conversations.admin import accounts, conversation, log  # noqa: F401, PLC0415
