"""Development on one machine. The secrets are public, and rejected in other environments."""

from config.env import DEVELOPMENT_SECRET, env
from config.local_run import NOWHERE
from config.settings.base import *

SECRET_KEY = env("SECRET_KEY") or DEVELOPMENT_SECRET
JWT_SECRET_KEY = env("JWT_SECRET_KEY") or DEVELOPMENT_SECRET
ALLOWED_HOSTS = env("ALLOWED_HOSTS") or ["*"]
DEBUG = env("DEBUG", default=True)
if not env("MONGODB_URL"):
    DATABASES["default"]["HOST"] = f"mongodb://{NOWHERE}/?replicaSet=rs0"
    DATABASES["default"]["OPTIONS"]["serverSelectionTimeoutMS"] = 100
# Enough to run every example in the guide with one token.
RATE_LIMITS["create"] = env("RATE_LIMIT_CREATE", default=100)
CHARACTER_CHECK = env("CHARACTER_CHECK") or "lenient"
# A page on this machine, at any port, in addition to CORS_ALLOWED_ORIGINS.
CORS_ALLOWED_ORIGIN_REGEXES = [r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?\Z"]

# Serve static files from the packages, without collectstatic.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = True
