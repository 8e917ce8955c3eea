"""Production. Secrets have no default: a missing or weak secret stops the start."""

from config.settings.base import *
from config.validation import require_valid

require_valid(deployed=True)  # base checks the rules for ENVIRONMENT only

STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}

SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = True
# Only the console redirects: other services and the kubelet use plain HTTP inside the cluster.
SECURE_REDIRECT_EXEMPT = [rf"^(?!{CONSOLE_PATH.lstrip('/')})"]
SECURE_HSTS_SECONDS = 31_536_000  # one year
SECURE_HSTS_INCLUDE_SUBDOMAINS = True
SECURE_HSTS_PRELOAD = True
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
