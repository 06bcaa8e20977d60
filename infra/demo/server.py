"""Serves the demo's documents on 127.0.0.1, as any website would, so that they come in by URL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from infra.demo.documents import Ready
from infra.local_web import LocalWeb, QuietHandler


@dataclass(frozen=True, slots=True)
class Site:
    """A running server."""

    #: `host:port`, as `Settings.allow_addresses` takes it.
    address: str

    def url(self, name: str) -> str:
        """Where a document is."""
        return f"http://{self.address}/{quote(name)}"


class _Handler(QuietHandler):
    def __init__(self, files: Mapping[str, tuple[Path, str]], *request: Any) -> None:
        self._files = files
        super().__init__(*request)

    def do_GET(self) -> None:
        # Only names that were given are known, so no path can lead out of the folder.
        known = self._files.get(unquote(self.path.split("?", 1)[0].removeprefix("/")))
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


@contextmanager
def serving(documents: list[Ready]) -> Iterator[Site]:
    """Serve the documents while the block runs, from threads of this process."""
    files = {document.source.name: (document.path, document.source.media_type) for document in documents}
    with LocalWeb(partial(_Handler, files)) as web:
        yield Site(web.place)
