"""The settings for all environments."""

from datetime import timedelta

from csp import constants as csp
from django.utils.translation import gettext_lazy as _
from pymongo import ReadPreference

from config import logs
from config.env import BASE_DIR, RELEASE, env
from config.validation import require_valid

require_valid()

# Every variable is a setting with the same name. The settings below are derived, or constant.
globals().update({name: env(name) for name in env.scheme})

OPENAPI_DOCUMENT = BASE_DIR / "docs" / "openapi.json"
VERSION = RELEASE

INSTALLED_APPS = [
    # First: their templates and translations override those in unfold and Django.
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
    "conversation_service.observability.requests.ObserveRequests",
    "conversation_service.observability.tracing.TraceRequests",
    "conversation_service.http.cors.Cors",
    "conversation_service.http.middleware.ApiOrPages",
]
# For the console and its static files only; see conversation_service.http.middleware.ApiOrPages.
PAGES_MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "conversations.admin.login.LimitLogins",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]
SILENCED_SYSTEM_CHECKS = [
    # These search MIDDLEWARE, and not PAGES_MIDDLEWARE.
    *("admin.E408", "admin.E409", "admin.E410"),
    *("security.W001", "security.W002", "security.W003", "axes.W002"),
    "axes.W006",  # requires the address in AXES_LOCKOUT_PARAMETERS
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
            "appname": env("SERVICE_NAME"),
            "minPoolSize": env("CONNECTION_POOL_MIN"),
            "maxPoolSize": env("CONNECTION_POOL_MAX"),
            "w": "majority",
            "journal": True,
            "retryWrites": True,
            "retryReads": True,
            # Overrides MONGODB_URL: a secondary may lack this service's latest writes. As an
            # object, it also overrides readPreferenceTags and maxStalenessSeconds in the URL.
            "read_preference": ReadPreference.PRIMARY,
            # Milliseconds for an operation, from the server selection to the last byte; 0
            # (management commands) is no limit. Below gunicorn's timeout.
            "timeoutMS": env("MONGODB_TIMEOUT_MS"),
            # After a shutdown error, the driver does not use a member until its next heartbeat.
            # PyMongo's 10 s are longer than an operation's time limit.
            "heartbeatFrequencyMS": 2_000,
            # The limit to select a server without timeoutMS: an election takes less.
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
    "axes": None,  # counts in the cache, without tables
}
# In MongoDB, which each login needs anyway. Redis may be down.
CACHES = {
    "default": {"BACKEND": "conversation_service.mongodb.cache.MongoCache", "LOCATION": "cache"}
}

RATE_LIMITS = {
    kind: env(f"RATE_LIMIT_{kind.upper()}")
    for kind in ("list", "search", "create", "patch", "delete", "all")
}

CHARACTER_CHECK = env("CHARACTER_CHECK") or "strict"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "conversation_service.http.authentication.UserAuthentication"
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_THROTTLE_CLASSES": ["conversation_service.http.ratelimit.UserRateThrottle"],
    "DEFAULT_RENDERER_CLASSES": ["conversation_service.http.rendering.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["conversation_service.http.rendering.JSONParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "conversation_service.http.rendering.JSONNegotiation",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "conversation_service.http.exception_handler.handle",
    "UNAUTHENTICATED_USER": None,
    "NON_FIELD_ERRORS_KEY": None,  # in a JSON object, each string can be a key
}

# Browsers: see conversation_service.http.cors.Cors. Every header of the API must be in these lists.
# The API uses no cookies, so CORS_ALLOW_CREDENTIALS stays off.
CORS_URLS_REGEX = r"/api(/|\Z)"
CORS_ALLOW_METHODS = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST"]
CORS_ALLOW_HEADERS = [
    *("accept", "accept-language", "authorization", "cache-control", "content-encoding"),
    *("content-language", "content-type", "idempotency-key", "if-match", "if-none-match"),
    *("last-event-id", "prefer", "traceparent", "tracestate", "user-agent", "x-client"),
    "x-request-id",
]
CORS_EXPOSE_HEADERS = [
    *("Accept", "Accept-Encoding", "Accept-Patch", "Accept-Post", "Allow", "Cache-Control"),
    *("Content-Disposition", "Content-Language", "Content-Length", "Content-Type", "Deprecation"),
    *("ETag", "Idempotency-Replayed", "Link", "Location", "Preference-Applied", "RateLimit"),
    *("RateLimit-Policy", "Retry-After", "Sunset", "WWW-Authenticate", "X-RateLimit-Limit"),
    *("X-RateLimit-Remaining", "X-RateLimit-Reset", "X-Request-ID"),
]
CORS_PREFLIGHT_MAX_AGE = 2 * 60 * 60  # Chromium's maximum

SPECTACULAR_SETTINGS = {
    "TITLE": "Conversation Service",
    "DESCRIPTION": "Who talks with which AI character: titles, LLM settings, tags, states and "
    "counters of conversations. Messages belong to the Message service.",
    "VERSION": VERSION,
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "conversations.views.openapi.conversations.show_ceilings",
        "conversations.views.openapi.conversations.any_listed",
        "conversation_service.http.deprecation.mark_deprecated",
        *(
            f"conversation_service.http.openapi_hooks.{hook}"
            for hook in (
                *("as_enforced", "as_lines", "open_enums"),
                *("with_samples", "share", "user_first"),
            )
        ),
        "conversations.views.openapi.webhooks.describe_events",
    ],
    "SERVERS": [
        {"url": "/", "description": "The deployment that serves this document"},
        {"url": "http://localhost:8003", "description": "make run"},
    ],
    "TAGS": [
        {
            "name": "conversations",
            "description": "List, create, read, change and delete the conversations of a user, with"
            " a token of this user. Conversations of other users respond 404.",
        },
        {"name": "states", "description": "Archive, restore, pin. A repeat has no effect."},
        {"name": "history", "description": "The newest 50 revisions, and a return to one of them."},
        {"name": "bulk actions", "description": "One action on many conversations."},
        {"name": "overview", "description": "A sidebar in one response, statistics and tags."},
        {"name": "sync", "description": "The changes since a cursor, as a page or as a stream."},
        {"name": "import and export", "description": "All conversations of a user as NDJSON."},
        {
            "name": "for other services",
            "description": "Access checks, totals and webhooks, with a service token.",
        },
    ],
    "SWAGGER_UI_SETTINGS": {
        "deepLinking": True,
        "persistAuthorization": True,  # the token stays after a reload
        "tryItOutEnabled": True,
        "displayRequestDuration": True,
        "defaultModelsExpandDepth": 0,  # the schemas are listed, and closed
    },
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": [],
    # Scripts and styles from the service itself: the pages work without the internet.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_PATCH": False,
    "GET_LIB_DOC_EXCLUDES": "conversation_service.http.openapi.documented_for_us",
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "ENUM_NAME_OVERRIDES": {
        "ConversationStatus": "conversations.states.ANY_STATE",
        "EditableStatus": "conversations.states.EDITABLE",
        "EventType": "conversations.events.log.TYPES",
        "WebhookState": "conversations.webhooks.endpoints.STATES",
        "DeliveryState": "conversations.webhooks.deliveries.STATES",
    },
}

CSRF_FAILURE_VIEW = "conversation_service.http.exception_handler.csrf_failure"

# The console: logins and sessions.
LOGIN_REQUESTS_PER_MINUTE = 30  # per IP address, for the login page and its form; 0: no limit
LOGIN_FAILURE_DELAY_S = 2
PASSWORD_HASHERS = ["conversation_service.hashers.PBKDF2PasswordHasher"]
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
# Further attempts do not prolong a lock-out, so no attacker can lock out an account permanently.
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
# Not by address: clients have the addresses of the gateway, and each one would add 5 failures.
AXES_LOCKOUT_PARAMETERS = ["username"]
AXES_LOCKOUT_TEMPLATE = "console/locked.html"
SESSION_COOKIE_AGE = 12 * 60 * 60  # 12 hours, a working day

# The console's pages: scripts and styles from the service only, nothing inline, no eval.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [csp.NONE],
        "script-src": [csp.SELF],
        "style-src": [csp.SELF],
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
    "SITE_URL": None,  # no website, only the API
    "SHOW_LANGUAGES": True,
    "SHOW_VIEW_ON_SITE": False,
    "SIDEBAR": {"navigation": "conversations.admin.site.navigation"},
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
