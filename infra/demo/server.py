"""Serves the demo's documents on 127.0.0.1, as any website would, so that they come in by URL."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

from infra.demo.documents import Ready


@dataclass(frozen=True, slots=True)
class Site:
    """A running server."""

    #: `host:port`, as `Settings.allow_addresses` takes it.
    address: str

    def url(self, name: str) -> str:
        """Where a document is."""
        return f"http://{self.address}/{quote(name)}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, files: Mapping[str, tuple[Path, str]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        # Only names that were given are known, so no path can lead out of the folder.
        known = self.server.files.get(unquote(self.path.split("?", 1)[0].removeprefix("/")))
        if known is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        path, media_type = known
        body = path.read_bytes()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Say nothing: the demo's terminal belongs to its progress bars."""


@contextmanager
def serving(documents: list[Ready]) -> Iterator[Site]:
    """Serve the documents while the block runs, from threads of this process."""
    files = {document.source.name: (document.path, document.source.media_type) for document in documents}
    server = _Server(files)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield Site(f"127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
