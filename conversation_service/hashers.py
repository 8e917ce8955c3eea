"""Password hashing that does not hold up the requests of a worker."""

import os
import sys
from functools import cache
from threading import get_native_id
from typing import Any

from django.contrib.auth import hashers
from gevent import monkey
from gevent.threadpool import ThreadPool

NICENESS = 19  # a sixtieth of the weight of a thread that serves requests


class PBKDF2PasswordHasher(hashers.PBKDF2PasswordHasher):
    """Django's PBKDF2, computed in a thread of its own where gevent serves requests.

    One hash takes some 0.3 s of CPU. On gevent's loop every other request of the worker would
    wait for it; OpenSSL releases the GIL meanwhile. Stored hashes are the same as Django's.
    """

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        if not monkey.is_module_patched("socket"):  # a command, a test or the development server
            return super().encode(password, salt, iterations)
        encoded: str = _thread().apply(self._encode_in_thread, (password, salt, iterations))
        return encoded

    def _encode_in_thread(self, *arguments: Any) -> str:
        if sys.platform == "linux":  # elsewhere a priority belongs to the whole process
            os.setpriority(os.PRIO_PROCESS, get_native_id(), NICENESS)
        return super().encode(*arguments)


@cache
def _thread() -> ThreadPool:
    """Return the one thread for hashes; gevent's ten threads also resolve host names."""
    return ThreadPool(1)
