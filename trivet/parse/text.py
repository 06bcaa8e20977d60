"""Plain text: decoded, cleaned, and otherwise as it is, so that offsets are offsets in the source."""

from __future__ import annotations

from pathlib import Path

import charset_normalizer  # noqa: F401 - decode() imports it late; here it is warm for every fork

from trivet.errors import EmptyDocument, SourceTooLarge
from trivet.parse import ParseLimits
from trivet.parse.decode import Decoded, decode
from trivet.values import Document


def read_text(path: Path, charset: str, limits: ParseLimits) -> Decoded:
    """The file as clean text. Raises `SourceTooLarge`, `EmptyDocument` and `CorruptDocument`."""
    size = path.stat().st_size
    if size > limits.max_text_bytes:
        raise SourceTooLarge(f"The text has {size} bytes, more than the limit of {limits.max_text_bytes}.")
    decoded = decode(path.read_bytes(), charset)
    if not decoded.text.strip():
        raise EmptyDocument("The document has no text in it.")
    return decoded


class TextParser:
    """Reads `text/plain`."""

    def parse(self, path: Path, media_type: str, charset: str, limits: ParseLimits) -> Document:
        """See `trivet.parse.Parser`."""
        decoded = read_text(path, charset, limits)
        return Document(
            text=decoded.text,
            media_type=media_type,
            skipped=decoded.skipped,
            metadata={"encoding": decoded.encoding},
        )
