"""Django's apps for MongoDB: keys are ObjectIds, and a TTL index deletes sessions."""

from axes.apps import AppConfig as AxesConfig
from django.contrib.admin.apps import AdminConfig
from django.contrib.auth.apps import AuthConfig
from django.contrib.contenttypes.apps import ContentTypesConfig
from django.contrib.sessions.apps import SessionsConfig
from pymongo import IndexModel

from conversation_service.mongodb.collections import CollectionSchema

OBJECT_ID = "django_mongodb_backend.fields.ObjectIdAutoField"


class MongoAdminConfig(AdminConfig):
    default_auto_field = OBJECT_ID
    default_site = "conversations.admin.site.ConsoleSite"
    collections = [
        CollectionSchema(
            "django_admin_log",
            migrated=True,
            indexes=[
                IndexModel([("object_id", 1), ("action_time", -1)], name="history_of_object"),
                IndexModel([("user_id", 1), ("action_time", -1)], name="recent_actions"),
            ],
        )
    ]


class MongoAuthConfig(AuthConfig):
    default_auto_field = OBJECT_ID


class MongoAxesConfig(AxesConfig):  # type: ignore[misc]  # axes has no types
    default_auto_field = OBJECT_ID


class MongoContentTypesConfig(ContentTypesConfig):
    default_auto_field = OBJECT_ID


class MongoSessionsConfig(SessionsConfig):
    collections = [
        CollectionSchema(
            "django_session",
            migrated=True,
            # Django's migration creates this index for clearsessions, a command that the expiry
            # replaces. MongoDB allows one index per key, so the name is the same.
            indexes=[
                IndexModel(
                    "expire_date",
                    name="django_session_expire_date_a5c62663",
                    expireAfterSeconds=0,
                )
            ],
        )
    ]
