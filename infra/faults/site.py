"""Serves as many small documents as a row needs, made from their numbers: `/12` is always the same text."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_WORDS = [
    "queue",
    "worker",
    "ledger",
    "token",
    "shard",
    "commit",
    "tree",
    "river",
    "stone",
    "cloud",
    "garden",
    "machine",
    "letter",
    "paper",
    "music",
    "north",
    "winter",
    "bridge",
    "signal",
    "harbour",
    "copper",
    "window",
    "mirror",
    "engine",
    "forest",
    "island",
    "candle",
    "market",
    "silver",
    "number",
]

#: Number of a document → its text.
Text = Callable[[int], str]


def prose(number: int, words: int) -> str:
    """Text that is different for every number."""
    picked = [_WORDS[(number * 7919 + n * (number % 13 + 3)) % len(_WORDS)] for n in range(words)]
    sentences = [" ".join(picked[at : at + 12]).capitalize() + "." for at in range(0, words, 12)]
    return f"Document {number}. " + " ".join(sentences)


@dataclass(frozen=True, slots=True)
class Site:
    """A running server."""

    #: `host:port`, as `Settings.allow_addresses` takes it.
    place: str

    def url(self, number: int) -> str:
        """Where a document is."""
        return f"http://{self.place}/{number}"


@contextmanager
def serving(text: Text) -> Iterator[Site]:
    """Serve the documents while the block runs, from threads of this process."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = text(int(self.path.strip("/"))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield Site(f"127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
