"""The settings of development with logins that take no time, for a whole process."""

from config.settings.development import *  # noqa: F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
LOGIN_FAILURE_DELAY_S = 0
