"""Builds the text of a document block by block, with the offsets of its headings and pages."""

from __future__ import annotations

from trivet.errors import SourceTooLarge
from trivet.parse.decode import clean
from trivet.values import Heading, Page, Skipped


class TextBuilder:
    """Collects blocks; separators stand between blocks and never at the ends of the text."""

    def __init__(self, max_text_bytes: int) -> None:
        self._max_bytes = max_text_bytes
        self._parts: list[str] = []
        self._length = 0
        self._bytes = 0
        self._cleaned = 0
        self.headings: list[Heading] = []
        self.pages: list[Page] = []

    @property
    def length(self) -> int:
        """Characters so far."""
        return self._length

    @property
    def text(self) -> str:
        """All blocks."""
        return "".join(self._parts)

    def skipped(self) -> tuple[Skipped, ...]:
        """A receipt for characters that are no text."""
        if not self._cleaned:
            return ()
        reason = "not text; replaced by spaces"
        return (Skipped(what="control characters", reason=reason, count=self._cleaned),)

    def add(self, block: str, separator: str = "\n\n") -> int:
        """Append a block and return where it starts; an empty one is left out. Raises `SourceTooLarge`."""
        block, cleaned = clean(block)
        self._cleaned += sum(note.count for note in cleaned)
        if not block.strip():
            return self._length
        if self._parts:
            self._append(separator)
        start = self._length
        self._append(block)
        return start

    def heading(self, level: int, title: str, separator: str = "\n\n") -> None:
        """Append a heading."""
        title = " ".join(clean(title)[0].split())
        if title:
            start = self.add(title, separator)
            self.headings.append(Heading(level=min(max(level, 1), 6), title=title, start=start))

    def page(self, number: int, text: str) -> int:
        """Append a page and return where its text starts."""
        start = self.add(text)
        self.pages.append(Page(number=number, start=start, end=self._length))
        return start

    def _append(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)
        self._bytes += len(text.encode())
        if self._bytes > self._max_bytes:
            raise SourceTooLarge(f"The document has more than {self._max_bytes} bytes of text, the limit.")
