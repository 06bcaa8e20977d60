"""Serves as many small documents as a row needs, made from their numbers: `/12` is always the same text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from infra.local_web import LocalWeb, QuietHandler

#: Number of a document → its text.
Text = Callable[[int], str]


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

    class Handler(QuietHandler):
        """Answers from `text`."""

        def do_GET(self) -> None:
            body = text(int(self.path.strip("/"))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with LocalWeb(Handler) as web:
        yield Site(web.place)
