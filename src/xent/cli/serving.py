"""One page out of memory, served to this machine only."""

from __future__ import annotations

import re
import signal
import socketserver
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from types import FrameType
from typing import Any

LOOPBACK = "127.0.0.1"
_HERE = re.compile(r"(?:127\.0\.0\.1|localhost)(?::\d{1,5})?", re.IGNORECASE)


class Server(socketserver.ThreadingTCPServer):
    """Serves one page at ``/``; a browser that opens a connection and waits blocks nobody."""

    daemon_threads = True
    allow_reuse_address = sys.platform != "win32"  # there it would share a port that is in use

    def __init__(self, port: int, page: str, policy: str) -> None:
        """Takes the port; 0 is any free one.

        Raises:
            OSError: the port is in use, or not for this user.
        """
        self.page = page.encode("utf-8")
        self.policy = policy
        super().__init__((LOOPBACK, port), _Handler)

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{LOOPBACK}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = 30  # seconds a connection may stay silent

    def _answer(self) -> None:
        # Another site's name that leads to this machine must not make its page a reader of ours.
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not _HERE.fullmatch(hosts[0].strip()):
            self._send(HTTPStatus.MISDIRECTED_REQUEST)
        elif self.command in ("GET", "HEAD") and self.path == "/":
            self._send(HTTPStatus.OK, "text/html", self.server.page)
        else:
            self._send(HTTPStatus.NOT_FOUND)

    def __getattr__(self, name: str) -> Any:
        """Every method of HTTP has the same answer; http.server looks for one named after it."""
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def send_error(self, code: int, *_: str | None) -> None:
        """What is no request at all is not quoted, either."""
        self.close_connection = True
        self._send(HTTPStatus(code))

    def _send(self, status: HTTPStatus, kind: str = "text/plain", body: bytes = b"") -> None:
        body = body or f"{status.phrase}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", self.server.policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "xent"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal belongs to its user."""


class _StopError(BaseException):
    """Ctrl-C, or a request to end."""


@contextmanager
def until_stopped() -> Iterator[None]:
    """Ends what is within at Ctrl-C and SIGTERM, also where a shell had told it to ignore them."""

    def stop(*_: int | FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)  # a second Ctrl-C has nothing to interrupt
        raise _StopError

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {each: signal.signal(each, stop) for each in signals}
    try:
        yield
    except _StopError:
        pass
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
