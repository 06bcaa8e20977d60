"""From a source's bytes to a file: decoded, counted, hashed, and never more than the settings allow."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from trivet.errors import CorruptDocument, SourceError, SourceTooLarge, SourceUnavailable

#: Bytes read or decoded at once.
BLOCK = 64 << 10
#: Decoded bytes per encoded byte, above which a body counts as a bomb once it is larger than `RATIO_FROM`.
MAX_RATIO = 100
RATIO_FROM = 4 << 20

_GZIP = 16 + zlib.MAX_WBITS
_NAMES = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate", "identity": "", "": ""}


def encoding_of(header: str, url: str) -> str:
    """`gzip`, `deflate` or empty for a Content-Encoding header; `SourceError` for any other."""
    found = [name for name in (_NAMES.get(part.strip().lower(), "?") for part in header.split(",")) if name]
    if not found:
        return ""
    if len(found) > 1 or found[0] == "?":
        raise SourceError(
            f"{url} came in the content encoding {header[:40]!r}, which was not asked for.",
            hint="Serve it as gzip, deflate or without encoding.",
        )
    return found[0]


def too_large(url: str, max_bytes: int) -> SourceTooLarge:
    """The error for a source over the size limit."""
    return SourceTooLarge(
        f"{url} is larger than {max_bytes:,} bytes.", hint="The limit is the setting TRIVET_SOURCE_MAX_BYTES."
    )


def save(blocks: Iterable[bytes], target: Path, *, url: str, max_bytes: int, encoding: str = "") -> tuple[int, str]:
    """Write the blocks to `target` and return size and hex SHA-256 of what was written, decoded.

    Both the encoded and the decoded size are held to `max_bytes`. Where anything fails, no file is left.
    """
    digest = hashlib.sha256()
    size = 0
    try:
        with target.open("wb") as file:
            for block in _decoded(blocks, encoding, url, max_bytes):
                size += len(block)
                if size > max_bytes:
                    raise too_large(url, max_bytes)
                digest.update(block)
                file.write(block)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return size, digest.hexdigest()


def _decoded(blocks: Iterable[bytes], encoding: str, url: str, max_bytes: int) -> Iterator[bytes]:
    if not encoding:
        yield from blocks
        return
    decoder = _Inflater(encoding, url)
    taken = given = 0
    for block in blocks:
        taken += len(block)
        if taken > max_bytes:
            raise too_large(url, max_bytes)
        for piece in decoder.feed(block):
            given += len(piece)
            if given > RATIO_FROM and given > MAX_RATIO * taken:
                raise SourceTooLarge(
                    f"{url} unpacks to more than {MAX_RATIO} times its size, which no document does.",
                    hint="Serve it without content encoding if it is meant to.",
                )
            yield piece
    decoder.finish(taken)


class _Inflater:
    """gzip (any number of members) or deflate (with or without zlib header), a bounded piece at a time."""

    def __init__(self, encoding: str, url: str) -> None:
        self._gzip = encoding == "gzip"
        self._url = url
        self._state = zlib.decompressobj(_GZIP if self._gzip else zlib.MAX_WBITS)
        #: The first bytes of a deflate body, until they tell which kind it is.
        self._head: bytes | None = None if self._gzip else b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._head is not None:
            data = self._head = self._head + data
            if len(data) < 2:
                return
            # RFC 9110 says zlib (whose header is RFC 1950, section 2.2), but many servers send bare deflate.
            if data[0] & 15 != zlib.DEFLATED or (data[0] << 8 | data[1]) % 31:
                self._state = zlib.decompressobj(-zlib.MAX_WBITS)
            self._head = None
        while data:
            if self._state.eof:
                if not self._gzip or not data.strip(b"\0"):
                    return  # what stands behind the stream is padding
                self._state = zlib.decompressobj(_GZIP)
            piece = self._inflate(data)
            if piece:
                yield piece
            data = self._state.unused_data if self._state.eof else self._state.unconsumed_tail

    def finish(self, taken: int) -> None:
        if taken and not self._state.eof:
            raise SourceUnavailable(f"{self._url} ended in the middle of its compressed body.")

    def _inflate(self, data: bytes) -> bytes:
        try:
            return self._state.decompress(data, BLOCK)
        except zlib.error:
            raise self._broken() from None

    def _broken(self) -> CorruptDocument:
        return CorruptDocument(f"{self._url} says that it is compressed, but what came cannot be unpacked.")
