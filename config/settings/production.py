"""Production. Nothing secret has a default here: what is missing or weak stops the start."""

from django.core.exceptions import ImproperlyConfigured

from config.env import KNOWN_DEFAULTS
from config.settings.base import *

MINIMUM_SECRET_BYTES = 32  # RFC 7518 section 3.2, for HS256


def weaknesses() -> list[str]:
    """Return everything that forbids this configuration, so that one start shows it all."""
    problems = []
    secrets = [("SECRET_KEY", SECRET_KEY)]
    secrets += [("SECRET_KEY_FALLBACKS", value) for value in SECRET_KEY_FALLBACKS]
    if not JWT_JWKS_URL:
        secrets += [("JWT_SECRET_KEY", JWT_SECRET_KEY)]
        secrets += [("JWT_SECRET_KEY_FALLBACKS", value) for value in JWT_SECRET_KEY_FALLBACKS]
    for name, value in secrets:
        if not value:
            problems.append(f"{name} is not set.")
        elif value in KNOWN_DEFAULTS:
            problems.append(f"{name} is a published default.")
        elif len(value.encode()) < MINIMUM_SECRET_BYTES:
            problems.append(f"{name} is shorter than {MINIMUM_SECRET_BYTES} bytes.")
    if JWT_JWKS_URL and JWT_ALGORITHM.startswith("HS"):
        problems.append(f"JWT_ALGORITHM is {JWT_ALGORITHM}, but JWT_JWKS_URL serves public keys.")
    if not DATABASES["default"]["HOST"]:
        problems.append("MONGODB_URL is not set.")
    if not ALLOWED_HOSTS or "*" in ALLOWED_HOSTS:
        problems.append("ALLOWED_HOSTS must name the hosts of the console.")
    if DEBUG:
        problems.append("DEBUG must be off.")
    return problems


if found := weaknesses():
    raise ImproperlyConfigured("This configuration is not fit for use:\n- " + "\n- ".join(found))

STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}

SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = True
# Only the console redirects: the neighbours and the kubelet speak plain HTTP inside the cluster.
SECURE_REDIRECT_EXEMPT = [rf"^(?!{CONSOLE_PATH.lstrip('/')})"]
SECURE_HSTS_SECONDS = 31_536_000  # one year
SECURE_HSTS_INCLUDE_SUBDOMAINS = True
SECURE_HSTS_PRELOAD = True
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
