#!/usr/bin/env python
"""Run a management command with the settings that ENVIRONMENT chooses."""

import os
import sys

from django.core.management import execute_from_command_line
from django.db import DatabaseError
from pymongo.errors import ServerSelectionTimeoutError

from config.env import env, settings_module
from config.validation import FAULTY, FaultyConfiguration

NO_MONGODB = 3  # as the help of every command says: conversation_service/commands.py

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", settings_module())
    # Index builds and bulk work may take long: no time limit, whatever the servers use.
    env.overrides["MONGODB_TIMEOUT_MS"] = 0
    # The folder is of a server's workers: what a command run beside them says there of its own
    # connections and circuit breakers would stay after its end.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    try:
        execute_from_command_line(sys.argv)
    except FaultyConfiguration as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(FAULTY)
    except (ServerSelectionTimeoutError, DatabaseError) as error:
        cause = error.__cause__ if isinstance(error, DatabaseError) else error
        if not isinstance(cause, ServerSelectionTimeoutError):
            raise
        sys.stderr.write("MongoDB does not answer where MONGODB_URL says that it is.\n")
        sys.exit(NO_MONGODB)
