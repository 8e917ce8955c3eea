# ruff: noqa: N999
"""gunicorn as it comes, with the same kind of worker and the same parser as the service."""

worker_class = "gevent"
http_parser = "auto"  # without a compiler, Python's
keepalive = 75
control_socket_disable = True
