"""A web server that says exactly the bytes it is told to, however wrong they are."""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import threading
from collections.abc import Callable, Mapping

#: What a path answers: bytes as they are, or a function that has the socket to itself.
Page = bytes | Callable[[socket.socket], None]


def answer(body: bytes = b"", status: int = 200, *, length: int | None = None, **headers: str) -> bytes:
    """A whole response; `length` overrides the true Content-Length, -1 leaves it out and closes after the body."""
    lines = [f"HTTP/1.1 {status} Whatever"]
    if length != -1:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    else:
        lines.append("Connection: close")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def zipped(body: bytes) -> bytes:
    """The body as gzip with its header."""
    return answer(gzip.compress(body), Content_Encoding="gzip")


class Server:
    """One thread per connection on 127.0.0.1; close it to end them all."""

    def __init__(self, pages: Mapping[str, Page], tls: ssl.SSLContext | None = None) -> None:
        self.pages = dict(pages)
        self.requests: list[str] = []
        self.connections = 0
        #: Set when the server closes; pages that go on for ever watch it.
        self.over = threading.Event()
        self._tls = tls
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    @property
    def place(self) -> str:
        """host:port"""
        return f"127.0.0.1:{self.port}"

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        """The URL of a path."""
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}{path}"

    def close(self) -> None:
        """End all threads and connections."""
        self.over.set()
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(10)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._open.add(connection)
            while self._one(connection):
                pass
        connection.close()

    def _one(self, connection: socket.socket) -> bool:
        head = b""
        while b"\r\n\r\n" not in head:
            got = connection.recv(65536)
            if not got:
                return False
            head += got
        self.requests.append(head.decode())
        path = head.split(b" ", 2)[1].decode().partition("?")[0]
        page = self.pages.get(path, answer(b"", 404))
        if callable(page):
            page(connection)
            return False
        connection.sendall(page)
        return b"connection: close" not in page.lower()
