"""The WSGI application, for gunicorn."""

import os

from django.core.wsgi import get_wsgi_application

from config.env import RELEASE, env, settings_module
from conversation_service.observability import tracing

os.environ.setdefault("DJANGO_SETTINGS_MODULE", settings_module())  # noqa: TID251

if env("OTEL_EXPORTER_OTLP_ENDPOINT"):
    tracing.start(service=env("SERVICE_NAME"), version=RELEASE)

application = get_wsgi_application()
