"""A conversation: its fields are declared only here.

The projection, defaults for older documents, the database's validator, serializers, the API
documentation, export, import, duplicate, revert and the console derive from these classes; see
declaration.py for the options. API responses have the public fields in this order.

The console reads conversations through the ORM, for Django's admin and permissions. The API uses
queries/ and writes/.
"""

from collections.abc import Collection
from typing import Any, ClassVar, Self

from django.db import models
from django.utils.translation import gettext_lazy as _
from django_mongodb_backend.fields import ArrayField, EmbeddedModelField, ObjectIdField
from django_mongodb_backend.models import EmbeddedModel

from conversation_service import external_ids
from conversations import limits, states
from conversations.declaration import (
    CREATION_TIME,
    Entries,
    declarations,
    defaults,
    internal,
    public,
)
from conversations.querysets import ConversationManager


class LLMSettings(EmbeddedModel):
    """How the character's language model runs. Stored as JSON, so a setting needs no migration."""

    temperature = public(models.FloatField(), default=0.7, minimum=0, maximum=2)
    max_tokens = public(
        models.BigIntegerField(),
        default=2048,
        minimum=1,
        maximum=limits.MAX_WHOLE_SETTING,
        ceiling_variable="MAX_TOKENS_CEILING",
    )
    context_window = public(
        models.BigIntegerField(),
        default=4000,
        minimum=1,
        maximum=limits.MAX_WHOLE_SETTING,
        ceiling_variable="CONTEXT_WINDOW_CEILING",
    )
    top_p = public(models.FloatField(), default=0.9, minimum=0, maximum=1)
    frequency_penalty = public(models.FloatField(), default=0.0, minimum=-2, maximum=2)
    presence_penalty = public(models.FloatField(), default=0.0, minimum=-2, maximum=2)
    stop_sequences = public(
        ArrayField(models.TextField(max_length=limits.STOP_SEQUENCE_LENGTH)),
        default=[],
        max_items=limits.STOP_SEQUENCES,
    )
    model = public(
        models.CharField(max_length=limits.MODEL_LENGTH, null=True),
        help="The provider's name for a model. Null: the platform chooses.",
        since="0.2.0",
    )
    reasoning_effort = public(
        models.CharField(max_length=limits.REASONING_EFFORT_LENGTH, null=True),
        help="A word that the model knows, such as `low`. Null: the model's default.",
        since="0.2.0",
    )
    extra = public(
        models.JSONField(),
        default={},
        entries=Entries(
            key=limits.OBJECT_KEY,
            max_keys=limits.EXTRA_KEYS,
            max_length=limits.EXTRA_VALUE_LENGTH,
            any_scalar=True,
        ),
        help="Further options for the provider, such as `seed`. A PATCH merges by key.",
        since="0.2.0",
    )

    class Meta:
        abstract = True


class Metadata(EmbeddedModel):
    """Totals that the Message service reports, and times."""

    message_count = public(models.BigIntegerField(_("messages")), default=0, minimum=0)
    total_tokens = public(models.BigIntegerField(_("tokens")), default=0, minimum=0)
    total_input_tokens = public(models.BigIntegerField(_("input tokens")), default=0, minimum=0)
    total_output_tokens = public(models.BigIntegerField(_("output tokens")), default=0, minimum=0)
    first_message_at = public(models.DateTimeField(_("first message"), null=True))
    last_message_at = public(models.DateTimeField(_("last message"), null=True))
    last_activity = public(
        models.DateTimeField(_("last activity")),
        default=CREATION_TIME,
        help="Only messages change it.",
    )
    created_at = public(models.DateTimeField(_("created")), default=CREATION_TIME)
    updated_at = public(
        models.DateTimeField(_("updated")),
        default=CREATION_TIME,
        help="Every new version changes it.",
    )

    class Meta:
        default_permissions = ()


class Hold(EmbeddedModel):
    """A legal hold: staff keep a conversation from being purged. Users never see it."""

    by = models.CharField(_("by"), max_length=150)
    reason = models.CharField(_("reason"), max_length=500)
    at = models.DateTimeField(_("since"))

    class Meta:
        default_permissions = ()


class Conversation(models.Model):
    """One user talking with one character. Its messages live in the Message service."""

    user_id = public(
        models.CharField(_("user id"), max_length=external_ids.MAX_LENGTH),
        pattern=external_ids.PATTERN,
    )
    character_id = public(
        models.CharField(_("character id"), max_length=external_ids.MAX_LENGTH),
        default="unknown",
        pattern=external_ids.PATTERN,
    )
    character_status = public(
        models.CharField(_("character status"), max_length=16),
        default="unverified",
        choices=("verified", "unverified", "missing"),
        help="The result of the last look-up in Characters.",
    )
    # A new conversation without a title gets the character's name or id.
    title = public(
        models.CharField(_("title"), max_length=limits.TITLE_LENGTH),
        editable=True,
        default="Untitled",
    )
    # "auto": the title follows the character's name.
    title_source = public(
        models.CharField(_("origin of the title"), max_length=4),
        orm=False,
        default="user",
        choices=("user", "auto"),
    )
    status = public(
        models.CharField(_("state"), max_length=8, choices=states.LABELS), choices=states.ANY_STATE
    )
    pinned_at = public(models.DateTimeField(_("pinned"), null=True))
    settings = public(models.JSONField(_("LLM settings")), editable=True, embedded=LLMSettings)
    # A conversation from 0.1.0 counts the settings of that release as set: callers send them all.
    settings_given = public(
        ArrayField(
            models.CharField(max_length=limits.SETTING_NAME_LENGTH),
            verbose_name=_("LLM settings that the user set"),
        ),
        orm=False,
        default=[name for name, setting in declarations(LLMSettings).items() if not setting.since],
        max_items=limits.MAX_SETTINGS,
        choices=tuple(declarations(LLMSettings)),
        help="The names of the settings that the user set. Callers can omit all others in requests "
        "to a provider.",
        since="0.2.0",
    )
    tags = public(
        ArrayField(models.CharField(max_length=limits.TAG_LENGTH), verbose_name=_("tags")),
        editable=True,
        default=[],
        max_items=limits.TAGS,
        pattern=limits.TAG,
    )
    custom = public(
        models.JSONField(_("custom")),
        editable=True,
        default={},
        entries=Entries(
            key=limits.OBJECT_KEY,
            max_keys=limits.CUSTOM_KEYS,
            max_length=limits.CUSTOM_VALUE_LENGTH,
        ),
    )
    metadata = public(EmbeddedModelField(Metadata, verbose_name=_("metadata")))
    archived_at = public(models.DateTimeField(_("archived"), null=True))
    deleted_at = public(models.DateTimeField(_("trashed"), null=True))
    purge_at = public(
        models.DateTimeField(_("purged after"), null=True),
        help="The earliest time at which a conversation in the trash is purged.",
    )
    forked_from = public(ObjectIdField(null=True), orm=False)
    version = public(
        models.BigIntegerField(_("version")),
        default=1,
        minimum=1,
        help="Increases by 1 with each change; see ETag.",
    )

    # The character's name at the last look-up.
    character_name = internal(models.TextField(null=True))
    # The state before the trash.
    previous_status = internal(models.CharField(null=True, max_length=8), choices=states.EDITABLE)
    # The title and the tags in the forms that indexes compare; see documents.derived.
    title_key = internal(models.TextField(editable=False), orm=True)
    tag_keys = internal(ArrayField(models.TextField()), max_items=limits.TAGS)
    tag_line = internal(models.TextField())
    search = internal(ArrayField(models.JSONField()), max_items=1 + limits.TAGS)
    # When the last write for the change feed happened.
    changed_at = internal(models.DateTimeField())
    # The newest activity report: its number, and its batch.
    activity_sequence = internal(models.BigIntegerField(), default=0, minimum=0)
    activity_batch = internal(ObjectIdField(null=True))
    # The history, the oldest revision first.
    revisions = internal(ArrayField(models.JSONField()), default=[], max_items=limits.REVISIONS)
    # Idempotency keys.
    keys = internal(ArrayField(models.JSONField()), default=[], max_items=limits.KEYS)
    # The character, if get_or_create made this conversation and it is still active.
    only = internal(models.TextField(null=True))
    # The version and the time of an import.
    imported = internal(models.JSONField())
    hold = internal(EmbeddedModelField(Hold, verbose_name=_("legal hold"), null=True), orm=True)

    objects: ClassVar[ConversationManager] = ConversationManager()

    class Meta:
        # schema.py has the indexes and the validator: migrations cannot express them.
        db_table = "conversations"
        default_permissions = ("view",)
        # admin/roles.py grants them.
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
        # Without the title: the console's log keeps this text after a purge.
        return str(self.pk)

    @classmethod
    def from_db(
        cls, db: str | None, field_names: Collection[str], values: Collection[Any], **options: Any
    ) -> Self:
        """Load a document, with defaults for missing fields."""
        loaded = [
            _DEFAULTS.get(name) if value is None and name != "metadata" else value
            for name, value in zip(field_names, values, strict=True)
        ]
        return super().from_db(db, field_names, loaded, **options)


_DEFAULTS = defaults(Conversation)


class WebhookEndpoint(models.Model):
    """A webhook endpoint, for the permissions, the addresses and the action log of the console.

    conversations/webhooks/endpoints.py reads and writes the documents.
    """

    id = models.CharField(primary_key=True, max_length=27, db_column="_id")

    class Meta:
        managed = False
        db_table = "webhook_endpoints"
        default_permissions = ("view",)
        permissions = [("manage_webhookendpoint", "Can manage webhook endpoints")]
        verbose_name = _("webhook endpoint")
        verbose_name_plural = _("webhook endpoints")

    def __str__(self) -> str:
        return self.pk
