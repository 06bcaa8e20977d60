"""A TCP proxy before Redis that can fall silent, cut connections, and lose or double single commands."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

#: What becomes of one command: other words in its place, or the same.
Rewrite = Callable[[list[bytes]], list[bytes]]

_CHUNK = 1 << 16


class RedisProxy:
    """Forwards to the server of `url`. With `rewrite` every command of a client goes through that function."""

    def __init__(self, url: str, rewrite: Rewrite | None = None) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 6379)
        self._rewrite = rewrite
        self._passing = threading.Event()
        self._passing.set()
        self._over = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}{parts.path}"
        self._thread = threading.Thread(target=self._accept, name="redis-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._passing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        self.cut()

    def blackhole(self, on: bool) -> None:
        """Let nothing through in either direction; what was sent arrives once it is over, as TCP sends it again."""
        if on:
            self._passing.clear()
        else:
            self._passing.set()

    def cut(self) -> None:
        """Cut every connection at once."""
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._passing.wait()
        try:
            server = socket.create_connection(self._target, timeout=5)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        with self._lock:
            self._sockets |= {client, server}
        back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
        back.start()
        self._pump(client, server, self._rewrite)
        back.join()
        with self._lock:
            self._sockets -= {client, server}
        client.close()
        server.close()

    def _pump(self, source: socket.socket, sink: socket.socket, rewrite: Rewrite | None = None) -> None:
        with suppress(OSError, ValueError):
            for data in commands(source, rewrite) if rewrite else _chunks(source):
                self._passing.wait()
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def _chunks(source: socket.socket) -> Iterator[bytes]:
    while data := source.recv(_CHUNK):
        yield data


def commands(source: socket.socket, rewrite: Rewrite) -> Iterator[bytes]:
    """The commands that a client sends (RESP arrays of bulk strings), each as it is after `rewrite`."""
    with source.makefile("rb") as file:
        while line := file.readline():
            if not line.startswith(b"*"):
                # An inline command: nobody here sends them, and none is changed.
                yield line
                continue
            words = []
            for _ in range(int(line[1:])):
                length = int(file.readline()[1:])
                words.append(file.read(length))
                file.read(2)
            words = rewrite(words)
            yield b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
