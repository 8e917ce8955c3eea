"""gunicorn's response, for what it cost on the way of every answer."""

from email.utils import formatdate
from functools import lru_cache
from time import time

from gunicorn.http import wsgi

ONE_SEGMENT = 64 * 1024  # bytes


class Response(wsgi.Response):  # type: ignore[misc]
    headers_sent: bool

    def write(self, part: bytes) -> None:
        """Send the head and a short body that comes in one part as one segment, not as two.

        A long body would be in memory twice for as long as its client reads.
        """
        in_parts = self.headers_sent or len(part) != self.response_length
        if in_parts or self._omits_body or len(part) > ONE_SEGMENT:
            super().write(part)
            return
        head = [*self.default_headers(), *(f"{name}: {value}\r\n" for name, value in self.headers)]
        self.headers_sent = True
        self.sent = len(part)
        self.sock.sendall(b"%s\r\n%s" % ("".join(head).encode("latin-1"), part))

    def process_headers(self, headers: list[tuple[str, str]]) -> None:
        """Take them as Django made them: it lets no line break pass, and none is hop-by-hop."""
        self.headers = headers
        for name, value in headers:
            if name == "Content-Length":
                self.response_length = int(value)

    def default_headers(self) -> list[str]:
        lines = [
            f"HTTP/1.1 {self.status}\r\n",
            f"Server: {self.version}\r\n",
            f"Date: {_date(int(time()))}\r\n",
            f"Connection: {'close' if self.should_close() else 'keep-alive'}\r\n",
        ]
        return [*lines, "Transfer-Encoding: chunked\r\n"] if self.chunked else lines


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
