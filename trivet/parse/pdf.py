"""PDF, page by page, with pdfium: paragraphs from the layout, headings from the outline."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pypdfium2
from pypdfium2 import raw

from trivet.errors import CorruptDocument, EmptyDocument, EncryptedDocument, SourceError, SourceTooLarge
from trivet.parse import ParseLimits
from trivet.parse.blocks import TextBuilder
from trivet.parse.pdf_layout import Line, find_title, reflow
from trivet.values import Document, Heading, Page, Skipped

_PASSWORD_ERRORS = (raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY)
_MAX_BOOKMARKS = 20_000


class PdfParser:
    """Reads `application/pdf`."""

    def parse(self, path: Path, media_type: str, charset: str, limits: ParseLimits) -> Document:  # noqa: ARG002 - a PDF knows its own encodings
        """See `trivet.parse.Parser`."""
        document = _open(path)
        try:
            return _read(document, media_type, limits)
        finally:
            document.close()


def _open(path: Path) -> Any:
    try:
        return pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        raise _mapped(error) from None


def _mapped(error: Exception) -> SourceError:
    """Our error for one of pdfium's."""
    if getattr(error, "err_code", None) in _PASSWORD_ERRORS:
        return EncryptedDocument("The PDF needs a password.", hint="Remove the password and ingest again.")
    return CorruptDocument("The PDF cannot be read: it is truncated or damaged.")


def _read(document: Any, media_type: str, limits: ParseLimits) -> Document:
    count = len(document)
    if count > limits.max_pages:
        raise SourceTooLarge(f"The PDF has {count} pages, more than the limit of {limits.max_pages}.")
    if count == 0:
        raise CorruptDocument("The PDF has no pages.")
    builder = TextBuilder(limits.max_text_bytes)
    empty: list[int] = []
    unreadable: list[int] = []
    for number in range(1, count + 1):
        try:
            text = reflow(_lines(document, number - 1))
        except pypdfium2.PdfiumError:
            unreadable.append(number)
            text = ""
        if text:
            builder.page(number, text)
        else:
            builder.pages.append(Page(number=number, start=builder.length, end=builder.length))
            empty.append(number)
    skipped = list(builder.skipped())
    if unreadable:
        skipped.append(Skipped(what=_page_list(unreadable), reason="damaged page", count=len(unreadable)))
    if silent := [number for number in empty if number not in set(unreadable)]:
        skipped.append(Skipped(what=_page_list(silent), reason="no text on page (scanned?)", count=len(silent)))
    text = builder.text
    if not text:
        if len(unreadable) == count:
            raise CorruptDocument(f"None of the PDF's {count} pages can be read.")
        raise EmptyDocument(
            f"The PDF has no text on any of its {count} pages (scanned?).", hint="Run OCR on it and ingest again."
        )
    return Document(
        text=text,
        media_type=media_type,
        title=_title(document),
        headings=_headings(document, text, builder.pages),
        pages=tuple(builder.pages),
        pages_empty=len(empty),
        skipped=tuple(skipped),
    )


def _lines(document: Any, index: int) -> list[Line]:
    """The lines of a page in reading order, as pdfium finds them."""
    page = document[index]
    try:
        textpage = page.get_textpage()
        try:
            return list(_read_lines(textpage.raw))
        finally:
            textpage.close()
    finally:
        page.close()


def _read_lines(textpage: Any) -> Iterator[Line]:
    """Split the page's characters at line ends; positions are asked only for a line's first and last character."""
    count = raw.FPDFText_CountChars(textpage)
    codes = [raw.FPDFText_GetUnicode(textpage, index) for index in range(count)]
    start = 0
    for end in [*(index for index, code in enumerate(codes) if code in (10, 13)), count]:
        if end > start and (line := _line(textpage, codes, start, end)) is not None:
            yield line
        start = end + 1


def _line(textpage: Any, codes: list[int], start: int, end: int) -> Line | None:
    text = _decode(codes[start:end])
    if not text.strip(" \x00\x02\xad"):
        return None
    inked = [index for index in range(start, end) if codes[index] > 32]
    left, bottom = _origin(textpage, inked[0])
    first, last = inked[0], inked[-1]
    right = max(_box_right(textpage, first), _box_right(textpage, last))
    left = min(left, _origin(textpage, last)[0])
    size = raw.FPDFText_GetFontSize(textpage, first)
    return Line(text=text, left=left, right=right, baseline=bottom, size=size)


def _decode(codes: list[int]) -> str:
    """Code points to text; pdfium may hand out characters beyond the BMP as two surrogates."""
    text = "".join(chr(code) if code < 0x110000 else "\ufffd" for code in codes)
    if any(0xD800 <= code < 0xE000 for code in codes):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _origin(textpage: Any, index: int) -> tuple[float, float]:
    x, y = ctypes.c_double(), ctypes.c_double()
    raw.FPDFText_GetCharOrigin(textpage, index, x, y)
    return x.value, y.value


def _box_right(textpage: Any, index: int) -> float:
    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    raw.FPDFText_GetCharBox(textpage, index, left, right, bottom, top)
    return right.value


def _title(document: Any) -> str:
    try:
        return " ".join(str(document.get_metadata_value("Title")).split())[:500]
    except pypdfium2.PdfiumError:
        return ""


def _headings(document: Any, text: str, pages: list[Page]) -> tuple[Heading, ...]:
    """Outline entries whose title stands on the page that they point to, in the order of the text."""
    found: dict[int, Heading] = {}
    after: dict[int, int] = {}
    for level, title, index in _bookmarks(document):
        if not 0 <= index < len(pages):
            continue
        page = pages[index]
        start = find_title(text, title, after.get(index, page.start), page.end)
        if start is None or start in found:
            continue
        found[start] = Heading(level=min(level + 1, 6), title=title, start=start)
        after[index] = start + 1
    ordered = sorted(found.values(), key=lambda heading: heading.start)
    assert all(first.start < second.start for first, second in pairwise(ordered))
    return tuple(ordered)


def _bookmarks(document: Any) -> Iterator[tuple[int, str, int]]:
    """(level from 0, title, page index) of the outline, as far as it can be read."""
    try:
        for number, bookmark in enumerate(document.get_toc(max_depth=6)):
            if number >= _MAX_BOOKMARKS:
                return
            target = bookmark.get_dest()
            index = target.get_index() if target is not None else None
            title = " ".join(str(bookmark.get_title()).split())
            if index is not None and title:
                yield bookmark.level, title[:500], index
    except (pypdfium2.PdfiumError, UnicodeError, ValueError):
        return


def _page_list(numbers: list[int]) -> str:
    """`page 3` or `pages 1-4, 9`, for at most twenty ranges."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    names = [str(first) if first == last else f"{first}-{last}" for first, last in ranges]
    more = ", …" if len(names) > 20 else ""
    return ("page " if len(numbers) == 1 else "pages ") + ", ".join(names[:20]) + more
