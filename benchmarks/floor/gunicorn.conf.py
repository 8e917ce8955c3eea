# ruff: noqa: N999
"""Our worker and our parser, and nothing of Django."""

from config.worker import PatientWorker

worker_class = PatientWorker
http_parser = "fast"
keepalive = 75
control_socket_disable = True
