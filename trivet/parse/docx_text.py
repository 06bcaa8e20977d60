"""WordprocessingML as blocks of text; iterative where strangers decide how deep it nests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from docx.oxml.ns import qn

_P, _TBL, _TR, _TC, _T, _STYLE = (qn(f"w:{name}") for name in ("p", "tbl", "tr", "tc", "t", "style"))
_VAL = qn("w:val")
_PPR = qn("w:pPr")
_MC_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
#: Deleted text, field codes, properties, furigana, and the second copy of everything in AlternateContent.
_SKIPPED = frozenset(
    {*(qn(f"w:{name}") for name in ("del", "moveFrom", "instrText", "delText", "rPr", "pPr", "rt")), _MC_FALLBACK}
)
_TEXT_BOX = qn("w:txbxContent")
_MARKS = {
    qn("w:tab"): " ",
    qn("w:ptab"): " ",
    qn("w:br"): "\n",
    qn("w:cr"): "\n",
    qn("w:noBreakHyphen"): "-",
}


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, list item or table row; `level` is 1 to 6 for headings, else 0."""

    text: str
    kind: Literal["paragraph", "item", "row"]
    level: int = 0


class Styles:
    """Heading level and list membership of paragraph styles, inherited as Word does."""

    def __init__(self, root: Any) -> None:
        self._styles = {style.get(qn("w:styleId")): style for style in root.iter(_STYLE)}

    def level(self, paragraph: Any) -> int:
        """1 to 6 for a heading, 0 for other paragraphs."""
        properties = paragraph.find(_PPR)
        if properties is None:
            return 0
        outline = _outline(properties)
        if outline is not None:
            return outline
        for style in self._chain(properties):
            name = style.find(qn("w:name"))
            label = (name.get(_VAL) or "").lower() if name is not None else ""
            if label == "title":
                return 1
            if label.startswith("heading ") and label[8:].strip().isdigit():
                return min(max(int(label[8:]), 1), 6)
            inner = style.find(_PPR)
            outline = _outline(inner) if inner is not None else None
            if outline is not None:
                return outline
        return 0

    def is_item(self, paragraph: Any) -> bool:
        """Whether the paragraph is numbered or bulleted."""
        properties = paragraph.find(_PPR)
        if properties is None:
            return False
        number = properties.find(qn("w:numPr"))
        if number is not None:
            found = number.find(qn("w:numId"))
            return found is None or found.get(_VAL) != "0"
        inner = (style.find(_PPR) for style in self._chain(properties))
        return any(found.find(qn("w:numPr")) is not None for found in inner if found is not None)

    def _chain(self, properties: Any) -> Iterator[Any]:
        """The paragraph's style and those that it is based on."""
        reference = properties.find(qn("w:pStyle"))
        seen: set[str] = set()
        while reference is not None:
            style_id = reference.get(_VAL)
            style = self._styles.get(style_id)
            if style is None or style_id in seen:
                return
            seen.add(style_id)
            yield style
            reference = style.find(qn("w:basedOn"))


def _outline(properties: Any) -> int | None:
    """Level of `outlineLvl` (0 to 8, 9 is body text), or None where it is not stated."""
    found = properties.find(qn("w:outlineLvl"))
    if found is None or not (found.get(_VAL) or "").isdigit():
        return None
    level = int(found.get(_VAL))
    return min(level + 1, 6) if level < 9 else 0


def blocks(container: Any, styles: Styles) -> Iterator[Block]:
    """The blocks under a body, content control or text box, in the order of the document."""
    pending = list(reversed(container))
    while pending:
        element = pending.pop()
        if element.tag == _P:
            text, boxes = paragraph_text(element)
            pending.extend(reversed(boxes))
            if text.strip():
                yield _paragraph(element, text, styles)
        elif element.tag == _TBL:
            yield from _rows(element)
        elif isinstance(element.tag, str) and element.tag not in _SKIPPED:
            pending.extend(reversed(element))


def _paragraph(element: Any, text: str, styles: Styles) -> Block:
    lines = "\n".join(" ".join(line.split()) for line in text.split("\n")).strip()
    if level := styles.level(element):
        return Block(" ".join(lines.split()), "paragraph", level)
    if styles.is_item(element):
        return Block(f"- {lines}", "item")
    return Block(lines, "paragraph")


def _rows(table: Any) -> Iterator[Block]:
    """One block per row, `cell | cell`; a nested table is part of its cell."""
    for row in table.iter(_TR):
        if _nearest(row, _TBL) is not table:
            continue
        cells = []
        for cell in row.iter(_TC):
            if _nearest(cell, _TR) is not row:
                continue
            pieces = [paragraph_text(paragraph)[0] for paragraph in cell.iter(_P)]
            cells.append(" ".join(" ".join(pieces).split()))
        text = " | ".join(cells)
        if text.strip(" |"):
            yield Block(text, "row")


def _nearest(element: Any, tag: str) -> Any:
    return next(element.iterancestors(tag), None)


def paragraph_text(paragraph: Any) -> tuple[str, list[Any]]:
    """Visible text of a paragraph as it stands after all tracked changes, and the text boxes anchored in it."""
    pieces: list[str] = []
    boxes: list[Any] = []
    pending = list(reversed(paragraph))
    while pending:
        element = pending.pop()
        tag = element.tag
        if tag in _SKIPPED or not isinstance(tag, str):
            continue
        if tag == _TEXT_BOX:
            boxes.append(element)
        elif tag == _T:
            pieces.append(element.text or "")
        elif tag in _MARKS:
            pieces.append(_MARKS[tag])
        else:
            pending.extend(reversed(element))
    return "".join(pieces), boxes
