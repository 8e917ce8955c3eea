from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

from conversations.schema import COLLECTIONS


class ConversationsConfig(AppConfig):
    name = "conversations"
    verbose_name = _("Conversations")
    default_auto_field = "django_mongodb_backend.fields.ObjectIdAutoField"
    collections = COLLECTIONS
