"""The permissions of the console, and a group for each role that has some of them."""

from django.apps import apps as installed
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Group, Permission
from django.db import migrations

# The roles as they were when this migration was written: administrators edit them in the console.
_SUPPORT = [
    "conversations.view_conversation",
    "conversations.archive_conversation",
    "conversations.revert_conversation",
]
ROLES = {
    "support": _SUPPORT,
    "operator": [
        *_SUPPORT,
        "conversations.trash_conversation",
        "conversations.hold_conversation",
        "conversations.bulk_conversation",
        "conversations.export_conversation",
    ],
    "auditor": ["conversations.view_conversation", "admin.view_logentry"],
}


def make_groups(apps, schema_editor):
    # Django makes permissions when all migrations are done, which is too late for this one.
    for label in ("admin", "conversations"):
        create_permissions(installed.get_app_config(label), verbosity=0)
    for role, names in ROLES.items():
        group, _ = Group.objects.get_or_create(name=role)
        for name in names:
            app, codename = name.split(".")
            group.permissions.add(
                Permission.objects.get(content_type__app_label=app, codename=codename)
            )


class Migration(migrations.Migration):
    dependencies = [
        ("admin", "0001_initial"),
        ("auth", "0001_initial"),
        ("contenttypes", "0001_initial"),
        ("conversations", "0001_initial"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="conversation",
            options={
                "default_permissions": ("view",),
                "permissions": [
                    ("archive_conversation", "Can archive and restore conversations"),
                    ("revert_conversation", "Can revert conversations to a former version"),
                    ("trash_conversation", "Can move conversations to the trash"),
                    ("hold_conversation", "Can hold conversations and release them"),
                    ("bulk_conversation", "Can act on many conversations at once"),
                    ("export_conversation", "Can export conversations"),
                ],
                "verbose_name": "conversation",
                "verbose_name_plural": "conversations",
            },
        ),
        migrations.RunPython(make_groups, migrations.RunPython.noop),
    ]
