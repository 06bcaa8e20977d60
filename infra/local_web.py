"""A web server of this machine alone, for the length of a block: demo, fault rows and tests stand on it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class QuietHandler(BaseHTTPRequestHandler):
    """Keeps connections open, and says nothing: the terminal belongs to whoever runs it."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Say nothing."""

    def whole_body(self) -> bytes:
        """The body of the request. Raises `ConnectionError` where its sender was gone before the end of it."""
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionAbortedError(f"{len(body)} of {length} bytes came")
        return body


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients and servers behind it are killed in the middle of a request: nothing to tell.
        if not isinstance(sys.exception(), OSError | HTTPException):
            super().handle_error(request, client_address)


class LocalWeb:
    """Listens from the start, and answers from threads of this process while the block runs."""

    def __init__(self, handler: Callable[..., BaseHTTPRequestHandler]) -> None:
        self._server = _Server(("127.0.0.1", 0), handler)
        self.port = self._server.server_port
        #: `host:port`, as `Settings.allow_addresses` takes it.
        self.place = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
