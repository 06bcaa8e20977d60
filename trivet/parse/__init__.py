"""Parsers: the seam, and its registry by media type.

A parser turns a file into a `Document`. It runs in a subprocess with limits (`trivet.parse.sandbox`), because
documents come from strangers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trivet.values import Document


@dataclass(frozen=True, slots=True)
class ParseLimits:
    """What one document may have."""

    max_pages: int
    max_text_bytes: int


class Parser(Protocol):
    """Reads one file; raises `CorruptDocument`, `EncryptedDocument`, `EmptyDocument` or `SourceTooLarge`."""

    def parse(self, path: Path, media_type: str, charset: str, limits: ParseLimits) -> Document: ...


#: Media type → module:class, imported only in the subprocess.
PARSERS = {
    "application/pdf": "trivet.parse.pdf:PdfParser",
    "text/html": "trivet.parse.html:HtmlParser",
    "application/xhtml+xml": "trivet.parse.html:HtmlParser",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "trivet.parse.docx:DocxParser",
    "text/markdown": "trivet.parse.markdown:MarkdownParser",
    "text/plain": "trivet.parse.text:TextParser",
}
