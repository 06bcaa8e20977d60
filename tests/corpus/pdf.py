"""Writes small PDFs in any script: fonts by ToUnicode map alone, which is all that a text extractor needs."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_LEFT, _TOP, _LEADING, _SIZE = 72, 770, 14, 11


@dataclass(frozen=True)
class Text:
    """A line at (x, y) points from the bottom left."""

    text: str
    x: float
    y: float
    size: float = _SIZE


def page_of(paragraphs: Sequence[str], width: int = 80) -> list[Text]:
    """Paragraphs set in lines of `width` characters, a blank line between them."""
    lines, y = [], float(_TOP)
    for paragraph in paragraphs:
        for line in wrapped(paragraph, width):
            lines.append(Text(line, _LEFT, y))
            y -= _LEADING
        y -= _LEADING
    return lines


def wrapped(paragraph: str, width: int) -> list[str]:
    """Lines of at most `width` characters, broken at spaces where there are any."""
    if " " not in paragraph:
        return [paragraph[place : place + width] for place in range(0, len(paragraph), width)]
    lines = [""]
    for word in paragraph.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def pdf(
    pages: Sequence[Sequence[Text]],
    *,
    outline: Sequence[tuple[int, str, int]] = (),
    title: str = "",
    encrypted: bool = False,
) -> bytes:
    """A PDF; `outline` has (level from 0, title, page index). `encrypted` asks for a password that nobody knows."""
    glyphs = {
        character: number + 1 for number, character in enumerate(sorted({c for p in pages for t in p for c in t.text}))
    }
    first_page = 6
    first_mark = first_page + 2 * len(pages)
    objects: dict[int, bytes] = {
        1: b"<< /Type /Catalog /Pages 2 0 R" + (b" /Outlines 5 0 R" if outline else b"") + b" >>",
        2: b"<< /Type /Pages /Count %d /Kids [%s] >>"
        % (len(pages), b" ".join(b"%d 0 R" % (first_page + 2 * n) for n in range(len(pages)))),
        3: b"<< /Type /Font /Subtype /Type0 /BaseFont /Any /Encoding /Identity-H /ToUnicode 4 0 R /DescendantFonts ["
        b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /Any /CIDSystemInfo << /Registry (Adobe) /Ordering (Identity)"
        b" /Supplement 0 >> /DW 500 /FontDescriptor << /Type /FontDescriptor /FontName /Any /Flags 4 /ItalicAngle 0"
        b" /Ascent 800 /Descent -200 /CapHeight 700 /StemV 80 /FontBBox [0 -200 1000 800] >> >>] >>",
        4: _stream(_to_unicode(glyphs)),
    }
    for number, page in enumerate(pages):
        objects[first_page + 2 * number] = (
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 842] /Resources << /Font << /F 3 0 R >> >>"
            b" /Contents %d 0 R >>" % (first_page + 2 * number + 1)
        )
        objects[first_page + 2 * number + 1] = _stream(_content(page, glyphs))
    if outline:
        objects |= _outline(outline, first_mark, first_page)
    information = max(objects) + 1
    objects[information] = b"<< /Title <feff%s> >>" % title.encode("utf-16-be").hex().encode()
    trailer = b"/Root 1 0 R /Info %d 0 R" % information
    if encrypted:
        objects[information + 1] = b"<< /Filter /Standard /V 2 /R 3 /Length 128 /P -44 /O <%s> /U <%s> >>" % (
            b"5a" * 32,
            b"a5" * 32,
        )
        trailer += b" /Encrypt %d 0 R /ID [<%s> <%s>]" % (information + 1, b"00" * 16, b"00" * 16)
    return _file(objects, trailer)


def _stream(data: bytes) -> bytes:
    return b"<< /Length %d >>\nstream\n%s\nendstream" % (len(data), data)


def _to_unicode(glyphs: dict[str, int]) -> bytes:
    rows = [
        b"<%04x> <%s>" % (glyph, character.encode("utf-16-be").hex().encode()) for character, glyph in glyphs.items()
    ]
    blocks = [rows[place : place + 100] for place in range(0, len(rows), 100)]
    body = b"\n".join(b"%d beginbfchar\n%s\nendbfchar" % (len(block), b"\n".join(block)) for block in blocks)
    return (
        b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def /CMapType 2 def\n"
        b"1 begincodespacerange <0000> <ffff> endcodespacerange\n" + body + b"\nendcmap end end"
    )


def _content(page: Sequence[Text], glyphs: dict[str, int]) -> bytes:
    rows = [
        b"/F %g Tf 1 0 0 1 %g %g Tm <%s> Tj"
        % (t.size, t.x, t.y, b"".join(b"%04x" % glyphs[c] for c in _visual(t.text)))
        for t in page
    ]
    return b"BT\n" + b"\n".join(rows) + b"\nET"


def _visual(text: str) -> str:
    """The line as it is painted, from left to right: a PDF knows no other order."""
    right_to_left = any(unicodedata.bidirectional(character) in ("R", "AL") for character in text)
    return text[::-1] if right_to_left else text


def _outline(marks: Sequence[tuple[int, str, int]], first: int, first_page: int) -> dict[int, bytes]:
    """Outline objects, linked as parents, siblings and children."""
    parents: list[int] = []
    children: dict[int, list[int]] = {5: []}
    open_marks: list[int] = []
    for number, (level, _, _) in enumerate(marks):
        del open_marks[level:]
        parent = open_marks[-1] if open_marks else 5
        parents.append(parent)
        children.setdefault(parent, []).append(first + number)
        open_marks.append(first + number)
    objects = {5: b"<< /Type /Outlines %s >>" % _kin(children[5])}
    for number, (_, title, page) in enumerate(marks):
        me, siblings = first + number, children[parents[number]]
        place = siblings.index(me)
        links = _kin(children.get(me, []))
        if place:
            links += b" /Prev %d 0 R" % siblings[place - 1]
        if place + 1 < len(siblings):
            links += b" /Next %d 0 R" % siblings[place + 1]
        objects[me] = b"<< /Title <feff%s> /Parent %d 0 R /Dest [%d 0 R /Fit] %s >>" % (
            title.encode("utf-16-be").hex().encode(),
            parents[number],
            first_page + 2 * page,
            links,
        )
    return objects


def _kin(children: list[int]) -> bytes:
    return b"/First %d 0 R /Last %d 0 R /Count %d" % (children[0], children[-1], len(children)) if children else b""


def _file(objects: dict[int, bytes], trailer: bytes) -> bytes:
    out = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
    places = {}
    for number in sorted(objects):
        places[number] = len(out)
        out += b"%d 0 obj\n%s\nendobj\n" % (number, objects[number])
    start = len(out)
    size = max(objects) + 1
    out += b"xref\n0 %d\n0000000000 65535 f \n" % size
    for number in range(1, size):
        out += b"%010d 00000 n \n" % places[number] if number in places else b"0000000000 65535 f \n"
    out += b"trailer\n<< /Size %d %s >>\nstartxref\n%d\n%%%%EOF\n" % (size, trailer, start)
    return bytes(out)
