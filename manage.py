#!/usr/bin/env python
"""Run a management command with the settings that ENVIRONMENT chooses."""

import gc
import os
import sys
from pathlib import Path

# Python omits this folder with PYTHONSAFEPATH.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from django.core.management import execute_from_command_line
from django.db import DatabaseError
from pymongo.errors import PyMongoError

from config import local_run
from config.env import choose_settings, env
from config.logs import LOG_FORMAT, LOGGING
from config.validation import FAULTY, FaultyConfiguration
from conversation_service.mongodb import failures
from conversation_service.observability.logs import log_output

if __name__ == "__main__":
    gc.set_threshold(10_000, 10, 10)  # imports leave few cycles: commands start 10 % faster
    choose_settings()
    # Index builds and bulk work take longer than MONGODB_TIMEOUT_MS, the limit for requests.
    env.overrides["MONGODB_TIMEOUT_MS"] = 0
    # The workers share their metrics in this folder: a command's gauges would stay after its end.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    LOGGING["handlers"]["stream"]["stream"] = "ext://sys.stderr"  # stdout is for the result
    if env("LOG_COMMANDS") and LOG_FORMAT == "ecs":
        log_output(" ".join(sys.argv[1:2]))
    env.overrides |= local_run.running_servers()
    try:
        execute_from_command_line(sys.argv)
    except FaultyConfiguration as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(FAULTY)
    except (PyMongoError, DatabaseError) as error:
        unavailability = failures.find(error)
        if unavailability is None:
            raise
        reason = failures.reason(unavailability)
        sys.stderr.write(f"MongoDB is unavailable: {reason}\n")
        sys.exit(failures.exit_code(reason))
