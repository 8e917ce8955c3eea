"""A real nginx, which compresses every response, in front of the service."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conversation_service.development.process import free_port
from tests.config.processes import environment, eventually, is_open

# Debian's /usr/sbin is not in the PATH of every user.
PATH = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")

# As in most guides: HTTP/1.0 to the service, all buffers on.
CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    gzip on;
    gzip_min_length 1;
    gzip_proxied any;
    gzip_types *;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_set_header Host $http_host;
        }}
    }}
}}
"""


@contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[str]:
    """Run nginx in front of a port of this machine; yield its address."""
    if PATH is None:
        assert not environment().get("CI"), "nginx is not installed"
        pytest.skip("nginx is not installed")
    folder.mkdir()
    port = free_port()
    file = folder / "nginx.conf"
    file.write_text(CONFIGURATION.format(folder=folder, port=port, upstream=upstream))
    log = folder / "error.log"
    log.touch()
    process = subprocess.Popen([PATH, "-c", file, "-e", log])
    try:
        eventually(lambda: is_open(port), log=log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)
