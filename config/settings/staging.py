"""Staging, with the same settings as production."""

from config.settings.production import *
