"""Conversations for the console: what staff may see, and Django's permissions.

The API does not come here; it reads and writes through store.py, and so do the console's actions.
"""

from collections.abc import Collection
from typing import Any, ClassVar, Self

from django.db import models
from django.utils.translation import gettext_lazy as _
from django_mongodb_backend.fields import ArrayField, EmbeddedModelField
from django_mongodb_backend.models import EmbeddedModel

from conversation_service import external_ids
from conversations import states
from conversations.documents import DEFAULTS
from conversations.queries.querysets import ConversationManager


class Metadata(EmbeddedModel):
    """Counters that the Message service reports, and the three clocks."""

    message_count = models.BigIntegerField(_("messages"))
    total_tokens = models.BigIntegerField(_("tokens"))
    total_input_tokens = models.BigIntegerField(_("input tokens"))
    total_output_tokens = models.BigIntegerField(_("output tokens"))
    first_message_at = models.DateTimeField(_("first message"), null=True)
    last_message_at = models.DateTimeField(_("last message"), null=True)
    last_activity = models.DateTimeField(_("last activity"))
    created_at = models.DateTimeField(_("created"))
    updated_at = models.DateTimeField(_("updated"))

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.last_activity)


class Hold(EmbeddedModel):
    """An order of staff that a conversation be kept; its user is not shown it."""

    by = models.CharField(_("by"), max_length=150)
    reason = models.CharField(_("reason"), max_length=500)
    at = models.DateTimeField(_("since"))

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.reason


class Conversation(models.Model):
    """One user talking with one character. Its messages live in the Message service."""

    user_id = models.CharField(_("user id"), max_length=external_ids.MAX_LENGTH)
    character_id = models.CharField(_("character id"), max_length=external_ids.MAX_LENGTH)
    character_status = models.CharField(_("character status"), max_length=16)
    title = models.CharField(_("title"), max_length=200)
    title_key = models.TextField(editable=False)
    status = models.CharField(_("state"), max_length=8, choices=states.LABELS)
    settings = models.JSONField(_("LLM settings"))
    tags = ArrayField(models.CharField(max_length=50), verbose_name=_("tags"))
    custom = models.JSONField(_("custom"))
    metadata = EmbeddedModelField(Metadata, verbose_name=_("metadata"))
    pinned_at = models.DateTimeField(_("pinned"), null=True)
    archived_at = models.DateTimeField(_("archived"), null=True)
    deleted_at = models.DateTimeField(_("trashed"), null=True)
    purge_at = models.DateTimeField(_("purged after"), null=True)
    version = models.BigIntegerField(_("version"))
    hold = EmbeddedModelField(Hold, verbose_name=_("legal hold"), null=True)

    objects: ClassVar[ConversationManager] = ConversationManager()

    class Meta:
        # Indexes and validator are in schema.py: they need more than migrations can say.
        db_table = "conversations"
        default_permissions = ("view",)
        # What staff may do; console/roles.py says who.
        permissions = [
            ("archive_conversation", "Can archive and restore conversations"),
            ("revert_conversation", "Can revert conversations to a former version"),
            ("trash_conversation", "Can move conversations to the trash"),
            ("hold_conversation", "Can hold conversations and release them"),
            ("bulk_conversation", "Can act on many conversations at once"),
            ("export_conversation", "Can export conversations"),
        ]
        verbose_name = _("conversation")
        verbose_name_plural = _("conversations")

    def __str__(self) -> str:
        # Not the title: the log of the console's actions keeps this, and outlives a purge.
        return str(self.pk)

    @classmethod
    def from_db(
        cls, db: str | None, field_names: Collection[str], values: Collection[Any], **options: Any
    ) -> Self:
        """Load a document, with the default of each field that it lacks."""
        loaded = [
            DEFAULTS.get(name) if value is None and name != "metadata" else value
            for name, value in zip(field_names, values, strict=True)
        ]
        return super().from_db(db, field_names, loaded, **options)
