"""The door for gunicorn."""

import os

from django.core.wsgi import get_wsgi_application

from config.env import settings_module

os.environ.setdefault("DJANGO_SETTINGS_MODULE", settings_module())  # noqa: TID251

application = get_wsgi_application()
