"""The WSGI application, for gunicorn."""

from django.core.wsgi import get_wsgi_application

from config.env import RELEASE, choose_settings, env
from conversation_service.observability import tracing

choose_settings()

if env("OTEL_EXPORTER_OTLP_ENDPOINT"):
    tracing.start(service=env("SERVICE_NAME"), version=RELEASE)

application = get_wsgi_application()
