"""A container's health check: `python -m config.probe /health/live` exits with 0 or 1."""

import sys
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException

from config.env import env, own_address

TIMEOUT_S = 4.0  # below the health check's timeout, so that the reason is printed


def main(path: str) -> str | int:
    """Return 0, or why the check failed."""
    try:
        with closing(HTTPConnection(own_address(), env("PORT"), timeout=TIMEOUT_S)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read().decode()
    except (OSError, HTTPException) as error:
        return f"{path} does not respond: {error}"
    return 0 if response.status == HTTPStatus.OK else f"{path} responds {response.status}: {body}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
