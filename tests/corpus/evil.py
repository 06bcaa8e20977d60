"""A parser that does what a document's content tells it to: what a hostile document could make a parser do."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

from trivet.parse import ParseLimits
from trivet.values import Document, Heading

MEDIA_TYPE = "application/x-evil"


class EvilParser:
    """Obeys the document."""

    def parse(self, path: Path, media_type: str, charset: str, limits: ParseLimits) -> Document:
        """The first word of the file names one of the methods below."""
        order, _, argument = path.read_text().partition(" ")
        return Document(text=str(getattr(self, order)(argument) or "done"), media_type=media_type)

    def crash(self, name: str) -> None:
        os.kill(os.getpid(), getattr(signal, name))

    def leave(self, status: str) -> None:
        os._exit(int(status))

    def spin(self, _: str) -> None:
        while True:
            pass

    def wait(self, seconds: str) -> None:
        time.sleep(float(seconds))

    def hoard(self, _: str) -> None:
        blocks = []
        while True:
            blocks.append(bytearray(8 << 20))

    def recurse(self, _: str) -> None:
        self.recurse(_)

    def fail(self, message: str) -> None:
        raise RuntimeError(message)

    def write(self, size: str) -> str:
        return "x" * int(size)

    def environment(self, _: str) -> str:
        return repr(dict(os.environ))

    def process(self, _: str) -> str:
        return Path("/proc/self/status").read_text()

    def descriptors(self, _: str) -> str:
        return " ".join(sorted(str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in _open_descriptors()))

    def connect(self, address: str) -> str:
        host, port = address.split(":")
        try:
            socket.create_connection((host, int(port)), timeout=2).close()
        except OSError as error:
            return f"refused {error.errno}"
        return "connected"


def _open_descriptors() -> list[int]:
    found = []
    for descriptor in range(64):
        try:
            os.fstat(descriptor)
        except OSError:
            continue
        found.append(descriptor)
    return found


class LyingParser:
    """Answers with offsets that its text does not have."""

    def parse(self, path: Path, media_type: str, charset: str, limits: ParseLimits) -> Document:
        return Document(text="short", media_type=media_type, headings=(Heading(1, "far", 10_000),))
