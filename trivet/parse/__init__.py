"""Parsers: the seam, and its registry by media type.

A parser turns a file into a `Document`. It runs in a subprocess with limits (`trivet.parse.sandbox`), because
documents come from strangers.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from trivet.errors import MissingDependency, UnsupportedType
from trivet.values import Document


@dataclass(frozen=True, slots=True)
class ParseLimits:
    """What one document may have."""

    max_pages: int
    #: UTF-8 bytes of text; also what a compressed container may expand to.
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


def load_parser(media_type: str) -> Parser:
    """The parser of a media type. `UnsupportedType` if there is none, `MissingDependency` if its package is absent."""
    if media_type not in PARSERS:
        raise UnsupportedType(
            f"No parser reads {media_type!r}.", hint=f"Supported media types: {', '.join(sorted(PARSERS))}."
        )
    module, name = PARSERS[media_type].split(":")
    try:
        parser: Parser = getattr(import_module(module), name)()
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"Parsing {media_type} needs the package {error.name!r}, which is not installed.",
            hint="Run: pip install 'trivet[prepare]'.",
        ) from None
    return parser
