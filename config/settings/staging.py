"""Staging, with exactly the settings of production."""

from config.settings.production import *
