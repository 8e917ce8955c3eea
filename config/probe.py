"""`python -m config.probe /health/live`: what a container asks itself. Not 0 unless it is well."""

import sys
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException

from config.env import env, own_address

ANSWER_S = 4.0  # below the health checks' timeout, so that the reason is told


def main(path: str) -> str | int:
    """Return 0, or what is wrong."""
    try:
        with closing(HTTPConnection(own_address(), env("PORT"), timeout=ANSWER_S)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode()
    except (OSError, HTTPException) as error:
        return f"{path} does not answer: {error}"
    return 0 if answer.status == HTTPStatus.OK else f"{path} answers {answer.status}: {body}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
