"""The tests: independent of the environment, except for MONGODB_URL and REDIS_URL."""

from config.env import DEVELOPMENT_SECRET, env
from config.settings.base import *

ENVIRONMENT = "test"
SECRET_KEY = JWT_SECRET_KEY = DEVELOPMENT_SECRET
SECRET_KEY_FALLBACKS: list[str] = []
JWT_ALGORITHM = ["HS256"]
JWT_JWKS_URL = JWT_ISSUER = JWT_AUDIENCE = ""
DEBUG = False
ACCESS_LOG = env("ACCESS_LOG", default=False)
RATE_LIMIT_ENABLED = False  # tests send requests as fast as possible
LOGIN_REQUESTS_PER_MINUTE = 0
LOGIN_FAILURE_DELAY_S = 0
ALLOWED_HOSTS = ["testserver"]

CHARACTER_CHECK = env("CHARACTER_CHECK") or "off"
MAX_TOKENS_CEILING, CONTEXT_WINDOW_CEILING = 4_096, 8_192  # docs/openapi.json shows these
MODEL_CEILINGS: dict[str, dict[str, int]] = {}

# A test without a database fixture cannot reach a real database either.
DATABASES["default"]["NAME"] = f"test_{env('MONGODB_DATABASE')}"
DATABASES["default"]["TEST"] = {"NAME": DATABASES["default"]["NAME"]}

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # fast
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = True
REST_FRAMEWORK["TEST_REQUEST_DEFAULT_FORMAT"] = "json"
