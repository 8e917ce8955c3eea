#!/usr/bin/env python
"""Run a management command with the settings that ENVIRONMENT chooses."""

import os
import sys

from django.core.management import execute_from_command_line

from config.env import settings_module

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", settings_module())
    # Index builds and bulk work may take long: no time limit, whatever the servers use.
    os.environ["MONGODB_TIMEOUT_MS"] = "0"
    execute_from_command_line(sys.argv)
