"""The settings of the tests with the real password hashing, for a whole process."""

from config.settings.test import *  # noqa: F403

PASSWORD_HASHERS = ["conversation_service.hashers.PBKDF2PasswordHasher"]
