"""A document as bytes, between the parser's process and ours: one line of JSON, then the text in UTF-8.

The writer may have been taken over by the document that it read, so the reader believes nothing: every type, size
and offset is checked, and only the errors that a parser may raise can come out.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any, BinaryIO

from pydantic import ValidationError

from trivet import errors
from trivet.errors import CorruptDocument, TrivetError
from trivet.parse import ParseLimits
from trivet.values import Document, Heading, Page, Skipped

#: The line of JSON: headings and pages of the largest documents stay far below.
MAX_HEADER_BYTES = 64 << 20
_ERRORS: dict[str, type[TrivetError]] = {
    kind.code: kind
    for kind in (
        errors.CorruptDocument,
        errors.EmptyDocument,
        errors.EncryptedDocument,
        errors.MissingDependency,
        errors.SourceTooLarge,
        errors.UnsupportedType,
    )
}


def write_document(file: BinaryIO, document: Document) -> None:
    """Write a parsed document."""
    header = {
        "media_type": document.media_type,
        "title": document.title,
        "headings": [[heading.level, heading.title, heading.start] for heading in document.headings],
        "pages": [[page.number, page.start, page.end] for page in document.pages],
        "pages_empty": document.pages_empty,
        "skipped": [[note.what, note.reason, note.count] for note in document.skipped],
        "metadata": document.metadata,
    }
    file.write(json.dumps(header).encode() + b"\n")
    file.write(document.text.encode())
    file.flush()


def write_error(file: BinaryIO, error: TrivetError) -> None:
    """Write why there is no document."""
    header = {"error": error.code, "message": error.message[:1000], "hint": error.hint[:1000]}
    file.write(json.dumps(header).encode() + b"\n")
    file.flush()


def read_result(file: BinaryIO, limits: ParseLimits) -> Document:
    """The document; raises the error that was written in its stead, or `CorruptDocument` for anything else."""
    line = file.readline(MAX_HEADER_BYTES)
    text = file.read(limits.max_text_bytes + 1)
    try:
        header = json.loads(line)
        if "error" in header:
            raise _ERRORS[header["error"]](str(header["message"])[:1000], hint=str(header["hint"])[:1000])
        if len(text) > limits.max_text_bytes:
            raise errors.SourceTooLarge(f"The document has more than {limits.max_text_bytes} bytes of text, the limit.")
        return _document(header, text.decode())
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, ValidationError):
        raise CorruptDocument("The parser gave no usable answer for the document.") from None


def _document(header: dict[str, Any], text: str) -> Document:
    size = len(text)
    headings = tuple(
        Heading(level=_number(level, 1, 6), title=_string(title, 10_000), start=_number(start, 0, max(size - 1, 0)))
        for level, title, start in header["headings"]
    )
    pages = tuple(
        Page(number=_number(number, 1, 1 << 31), start=_number(start, 0, size), end=_number(end, start, size))
        for number, start, end in header["pages"]
    )
    if any(a.start >= b.start for a, b in pairwise(headings)) or any(a.end > b.start for a, b in pairwise(pages)):
        raise ValueError("out of order")
    return Document(
        text=text,
        media_type=_string(header["media_type"], 200),
        title=_string(header["title"], 10_000),
        headings=headings,
        pages=pages,
        pages_empty=_number(header["pages_empty"], 0, len(pages)),
        skipped=tuple(
            Skipped(what=_string(what, 1000), reason=_string(reason, 1000), count=_number(count, 0, 1 << 53))
            for what, reason, count in header["skipped"]
        ),
        metadata={_string(key, 100): _string(value, 1000) for key, value in header["metadata"].items()},
    )


def _number(value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError("not a number in range")
    return value


def _string(value: Any, limit: int) -> str:
    if type(value) is not str or len(value) > limit:
        raise ValueError("not a string within its limit")
    value.encode()
    return value
