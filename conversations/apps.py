from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ConversationsConfig(AppConfig):
    name = "conversations"
    verbose_name = _("Conversations")
    default_auto_field = "django_mongodb_backend.fields.ObjectIdAutoField"

    def ready(self) -> None:
        """Declare the collection, which derives from the models, and register the console's pages.

        Django's own search for admin modules would import the package while it makes the site.
        """
        from conversations.admin import accounts, conversation, log  # noqa: F401, PLC0415
        from conversations.schema import COLLECTIONS  # noqa: PLC0415

        self.collections = COLLECTIONS
