"""Staging: production itself, so that what passes here passes there."""

from config.settings.production import *
