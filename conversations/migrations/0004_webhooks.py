"""The permissions for webhooks, which the roles of migration 0002 get if they still exist."""

from django.apps import apps as installed
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Group, Permission
from django.db import migrations, models

GRANTED = {
    "operator": ["view_webhookendpoint", "manage_webhookendpoint"],
    "auditor": ["view_webhookendpoint"],
}


def grant(apps, schema_editor):
    # Django makes permissions when all migrations are done, which is too late for this one.
    create_permissions(installed.get_app_config("conversations"), verbosity=0)
    for role, names in GRANTED.items():
        for group in Group.objects.filter(name=role):
            for name in names:
                group.permissions.add(
                    Permission.objects.get(content_type__app_label="conversations", codename=name)
                )


class Migration(migrations.Migration):
    dependencies = [("conversations", "0003_wider_external_ids")]

    operations = [
        migrations.CreateModel(
            name="WebhookEndpoint",
            fields=[
                (
                    "id",
                    models.CharField(
                        db_column="_id", max_length=27, primary_key=True, serialize=False
                    ),
                ),
            ],
            options={
                "verbose_name": "webhook endpoint",
                "verbose_name_plural": "webhook endpoints",
                "db_table": "webhook_endpoints",
                "permissions": [("manage_webhookendpoint", "Can manage webhook endpoints")],
                "managed": False,
                "default_permissions": ("view",),
            },
        ),
        migrations.RunPython(grant, migrations.RunPython.noop),
    ]
