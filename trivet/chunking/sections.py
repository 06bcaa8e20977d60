"""A document's headings as sections that cover all of its text. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from trivet.values import Document, Heading

#: A heading's line may be this much longer than its title where that is not in it word for word (markup).
_MARKUP = 24


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch [start, end) of the text under one heading path."""

    start: int
    end: int
    #: Titles from the outermost to the section's own.
    path: tuple[str, ...]
    #: Titles above the first heading that stands in the section itself: what its first chunk lacks.
    above: tuple[str, ...]


def sections(document: Document) -> list[Section]:
    """Sections in order. A heading with nothing under it but the next heading belongs to that one's section."""
    size = len(document.text)
    marks = [heading for heading in document.headings if 0 <= heading.start < size]
    found: list[Section] = []
    if not marks or document.text[: marks[0].start].strip():
        found.append(Section(0, marks[0].start if marks else size, (), ()))
    open_headings: list[Heading] = []
    start: int | None = None
    above: tuple[str, ...] = ()
    for number, heading in enumerate(marks):
        while open_headings and open_headings[-1].level >= heading.level:
            open_headings.pop()
        if start is None:
            start, above = heading.start, tuple(outer.title for outer in open_headings)
        open_headings.append(heading)
        last = number + 1 == len(marks)
        end = size if last else marks[number + 1].start
        if last or not _is_bare(document.text, heading, end):
            found.append(Section(start, end, tuple(outer.title for outer in open_headings), above))
            start = None
    return found


def _is_bare(text: str, heading: Heading, end: int) -> bool:
    """Whether nothing stands between a heading and the next."""
    line_end = text.find("\n", heading.start, end)
    if line_end < 0:
        line_end = end
    line = text[heading.start : min(line_end, heading.start + len(heading.title) + _MARKUP + 1)]
    _, found, behind = line.partition(heading.title)
    if any(character.isalnum() for character in behind) if found else len(line) > len(heading.title) + _MARKUP:
        return False
    # What underlines a heading in Markdown is no text.
    return not any(character.isalnum() for character in text[line_end:end])
