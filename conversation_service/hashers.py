"""Password hashing that does not block a worker."""

import os
import sys
from threading import get_native_id
from typing import Any

from django.contrib.auth import hashers
from gevent import monkey
from gevent.threadpool import ThreadPool

NICENESS = 19  # 1/60 of the default CPU weight


class PBKDF2PasswordHasher(hashers.PBKDF2PasswordHasher):
    """Django's PBKDF2, computed in a native thread if gevent handles the requests.

    A hash takes 0.3 s of CPU time, for which gevent's loop would stop. OpenSSL releases the GIL
    meanwhile. Stored hashes are equal to Django's.
    """

    # A single thread. gevent's own ten threads also resolve host names.
    _pool: ThreadPool | None = None

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        if not monkey.is_module_patched("socket"):  # a command, a test or the development server
            return super().encode(password, salt, iterations)
        if PBKDF2PasswordHasher._pool is None:
            PBKDF2PasswordHasher._pool = ThreadPool(1)
        pool = PBKDF2PasswordHasher._pool
        encoded: str = pool.apply(self._encode_in_thread, (password, salt, iterations))
        return encoded

    def _encode_in_thread(self, *arguments: Any) -> str:
        if sys.platform == "linux":  # on other systems a priority applies to the whole process
            os.setpriority(os.PRIO_PROCESS, get_native_id(), NICENESS)
        return super().encode(*arguments)
