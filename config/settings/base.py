"""What every environment shares."""

from datetime import timedelta

from csp import constants as csp
from django.utils.translation import gettext_lazy as _

from config import logs
from config.env import BASE_DIR, RELEASE, env, one_of

OPENAPI_DOCUMENT = BASE_DIR / "docs" / "openapi.json"

SERVICE_NAME = env("SERVICE_NAME")
ENVIRONMENT = env("ENVIRONMENT")
VERSION = RELEASE

SECRET_KEY = env("SECRET_KEY")
SECRET_KEY_FALLBACKS = env("SECRET_KEY_FALLBACKS")
DEBUG = env("DEBUG")
ALLOWED_HOSTS = env("ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = env("CSRF_TRUSTED_ORIGINS")

INSTALLED_APPS = [
    # First: their templates and words go before those of unfold and of Django.
    "conversation_service",
    "conversations",
    "unfold.apps.BasicAppConfig",
    "config.apps.MongoAdminConfig",
    "config.apps.MongoAuthConfig",
    "config.apps.MongoContentTypesConfig",
    "config.apps.MongoSessionsConfig",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_mongodb_backend",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "config.apps.MongoAxesConfig",
]

MIDDLEWARE = [
    "conversation_service.middleware.RequestId",
    "conversation_service.observability.tracing.TraceRequests",
    "conversation_service.observability.requests.ObserveRequests",
    "conversation_service.middleware.Api",
    "conversation_service.middleware.Pages",
]
# Around the console and its static files only; see conversation_service.middleware.Pages.
PAGES_MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]
# These look for middleware by name, and not in PAGES_MIDDLEWARE.
SILENCED_SYSTEM_CHECKS = [
    *("admin.E408", "admin.E409", "admin.E410"),
    *("security.W001", "security.W002", "security.W003", "axes.W002"),
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
APPEND_SLASH = False
CONSOLE_PATH = "/admin/"
LOGIN_REDIRECT_URL = CONSOLE_PATH

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "csp.context_processors.nonce",
            ],
        },
    },
]

DATABASES = {
    "default": {
        "ENGINE": "conversation_service.mongodb.engine",
        "HOST": env("MONGODB_URL"),
        "NAME": env("MONGODB_DATABASE"),
        "OPTIONS": {
            "appname": SERVICE_NAME,
            "minPoolSize": env("CONNECTION_POOL_MIN"),
            "maxPoolSize": env("CONNECTION_POOL_MAX"),
            "w": "majority",
            "journal": True,
            "retryWrites": True,
            # Bounds every operation from the choice of a server to its last byte, in
            # milliseconds; 0 (management commands) means none. Below gunicorn's timeout.
            "timeoutMS": env("MONGODB_TIMEOUT_MS"),
            # Bounds the choice of a server where the above does not: an election takes less.
            "serverSelectionTimeoutMS": 15_000,
        },
    },
}
DATABASE_ROUTERS = ["django_mongodb_backend.routers.MongoRouter"]
DEFAULT_AUTO_FIELD = "django_mongodb_backend.fields.ObjectIdAutoField"
MIGRATION_MODULES = {
    "admin": "config.mongo_migrations.admin",
    "auth": "config.mongo_migrations.auth",
    "contenttypes": "config.mongo_migrations.contenttypes",
    "axes": None,  # it counts in the cache and needs no tables
}
REDIS_URL = env("REDIS_URL")
# In MongoDB: without it nobody could log in anyway, while Redis may be down.
CACHES = {
    "default": {"BACKEND": "conversation_service.mongodb.cache.MongoCache", "LOCATION": "cache"}
}

AUTH_SERVICE_URL = env("AUTH_SERVICE_URL")
CHARACTERS_SERVICE_URL = env("CHARACTERS_SERVICE_URL")
MESSAGE_SERVICE_URL = env("MESSAGE_SERVICE_URL")
NEIGHBOUR_BUDGET_S = env("NEIGHBOUR_BUDGET_S")
NEIGHBOURS = {
    name: {
        "connect_timeout_s": env(f"{name}_CONNECT_TIMEOUT_S"),
        "read_timeout_s": env(f"{name}_READ_TIMEOUT_S"),
        "retries": env(f"{name}_RETRIES"),
        "breaker_threshold": env(f"{name}_BREAKER_THRESHOLD"),
        "breaker_recovery_s": env(f"{name}_BREAKER_RECOVERY_S"),
    }
    for name in ("AUTH", "CHARACTERS", "MESSAGE")
}
AUTH_REMOTE_VALIDATION = env("AUTH_REMOTE_VALIDATION")
AUTH_VALIDATE_PATH = env("AUTH_VALIDATE_PATH")
AUTH_CACHE_TTL = env("AUTH_CACHE_TTL")
AUTH_FAIL_MODE = one_of("AUTH_FAIL_MODE", "closed", "open")
CHARACTER_PATH = env("CHARACTER_PATH")
MESSAGE_STATS_PATH = env("MESSAGE_STATS_PATH")

JWT_SECRET_KEY = env("JWT_SECRET_KEY")
JWT_SECRET_KEY_FALLBACKS = env("JWT_SECRET_KEY_FALLBACKS")
JWT_ALGORITHM = one_of("JWT_ALGORITHM", "HS256", "HS384", "HS512", "RS256", "ES256")
JWT_JWKS_URL = env("JWT_JWKS_URL")
JWT_ISSUER = env("JWT_ISSUER")
JWT_AUDIENCE = env("JWT_AUDIENCE")
JWT_USER_ID_CLAIM = env("JWT_USER_ID_CLAIM")
JWT_LEEWAY_S = env("JWT_LEEWAY_S")

RATE_LIMIT_ENABLED = env("RATE_LIMIT_ENABLED")
RATE_LIMIT_WINDOW_S = env("RATE_LIMIT_WINDOW_S")
RATE_LIMITS = {
    "list": env("RATE_LIMIT_LIST"),
    "create": env("RATE_LIMIT_CREATE"),
    "patch": env("RATE_LIMIT_PATCH"),
    "delete": env("RATE_LIMIT_DELETE"),
    "all": env("RATE_LIMIT_ALL"),
}

MAX_TOKENS_CEILING = env("MAX_TOKENS_CEILING")
CONTEXT_WINDOW_CEILING = env("CONTEXT_WINDOW_CEILING")
CHARACTER_CHECK = one_of("CHARACTER_CHECK", "", "strict", "lenient", "off") or "strict"
MAX_CONVERSATIONS_PER_USER = env("MAX_CONVERSATIONS_PER_USER")
IF_MATCH_REQUIRED_FOR = env("IF_MATCH_REQUIRED_FOR")
TRASH_DAYS = env("TRASH_DAYS")
TOMBSTONE_DAYS = env("TOMBSTONE_DAYS")
RETENTION_ARCHIVE_IDLE_DAYS = env("RETENTION_ARCHIVE_IDLE_DAYS")

ACCESS_LOG = env("ACCESS_LOG")
OTEL_EXPORTER_OTLP_ENDPOINT = env("OTEL_EXPORTER_OTLP_ENDPOINT")

CHANGES_WAITING = env("CHANGES_WAITING")
CHANGES_WAITING_PER_USER = env("CHANGES_WAITING_PER_USER")
CHANGES_LOOK_S = env("CHANGES_LOOK_S")
CHANGES_HEARTBEAT_S = env("CHANGES_HEARTBEAT_S")
CHANGES_STREAM_S = env("CHANGES_STREAM_S")

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["conversation_service.authentication.UserAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_THROTTLE_CLASSES": ["conversation_service.ratelimit.UserRateThrottle"],
    "DEFAULT_RENDERER_CLASSES": ["conversation_service.rendering.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["conversation_service.rendering.JSONParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "conversation_service.rendering.JSONNegotiation",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "conversation_service.exception_handler.handle",
    "UNAUTHENTICATED_USER": None,
    "NON_FIELD_ERRORS_KEY": "",  # the JSON pointer to the whole body
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Conversation Service",
    "DESCRIPTION": "Who talks with which AI character: titles, LLM settings, tags, states and "
    "counters of conversations. Messages belong to the Message service.",
    "VERSION": VERSION,
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "conversations.openapi.show_ceilings",
    ],
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": [],
    # Scripts and styles from our own origin, so that the pages work without the internet.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_PATCH": False,
    "GET_LIB_DOC_EXCLUDES": "conversation_service.openapi.documented_for_us",
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "ENUM_NAME_OVERRIDES": {
        "ConversationStatus": ["active", "archived", "deleted"],
        "EditableStatus": ["active", "archived"],
    },
}

# The console: who comes in, and for how long
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AXES_HANDLER = "axes.handlers.cache.AxesCacheHandler"
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_RESET_ON_SUCCESS = True
# Who keeps trying does not lengthen it: nobody can lock somebody else out for ever.
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_LOCKOUT_TEMPLATE = "console/locked.html"
SESSION_COOKIE_AGE = 12 * 60 * 60  # a working day

# What a page of the console may load; no script but from our own origin, none inline, no eval.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [csp.NONE],
        "script-src": [csp.SELF],
        "style-src": [csp.SELF, csp.NONCE],
        "img-src": [csp.SELF, "data:"],
        "font-src": [csp.SELF],
        "connect-src": [csp.SELF],
        "form-action": [csp.SELF],
        "frame-ancestors": [csp.NONE],
        "base-uri": [csp.NONE],
    }
}
UNFOLD = {
    "SITE_TITLE": "Conversation Service",
    "SITE_HEADER": "Conversation Service",
    "SITE_SYMBOL": "forum",
    "SITE_URL": None,  # there is no site to view, only the API
    "SHOW_LANGUAGES": True,
    "SHOW_VIEW_ON_SITE": False,
    "SIDEBAR": {"navigation": "conversations.console.site.navigation"},
}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]

LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("es", _("Spanish"))]
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "var" / "static"

LOGGING = logs.LOGGING
