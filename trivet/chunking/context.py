"""The heading path that goes before a chunk's text, within its share of the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from trivet.chunking.boundaries import grapheme_floor

_BETWEEN = " > "
_JOIN = "\n"
#: A title of more characters is cut before it is tokenised.
_LONGEST_TITLE = 2000


class _Spans(Protocol):
    def offsets(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]: ...


def embedded_text(context: str, text: str) -> str:
    """What the encoder sees of a chunk, after the model's prompt."""
    return f"{context}{_JOIN}{text}" if context else text


class Contexts:
    """Contexts and their token counts by heading path, at most `budget` tokens each."""

    def __init__(self, tokenizer: _Spans, budget: int, *, enabled: bool) -> None:
        self._tokenizer = tokenizer
        self._budget = budget
        self._enabled = enabled and budget > 0
        self._known: dict[tuple[str, ...], tuple[str, int]] = {(): ("", 0)}

    def learn(self, paths: set[tuple[str, ...]]) -> None:
        """Work out the contexts of many paths at once."""
        new = sorted(paths - self._known.keys())
        if not self._enabled:
            self._known.update(dict.fromkeys(new, ("", 0)))
            return
        texts = [_BETWEEN.join(title[:_LONGEST_TITLE] for title in path) for path in new]
        rows = self._tokenizer.offsets([text + _JOIN for text in texts])
        for path, text, row in zip(new, texts, rows, strict=True):
            self._known[path] = (text, len(row)) if len(row) <= self._budget else self._shortened(path)

    def of(self, path: tuple[str, ...]) -> tuple[str, int]:
        """Context and its tokens."""
        return self._known[path]

    def _shortened(self, path: tuple[str, ...]) -> tuple[str, int]:
        """The innermost titles that fit; of the last one its beginning, if it does not fit alone."""
        titles = [title[:_LONGEST_TITLE] for title in path]
        for first in range(1, len(titles)):
            text = _BETWEEN.join(titles[first:])
            count = len(self._tokenizer.offsets([text + _JOIN])[0])
            if count <= self._budget:
                return text, count
        title = titles[-1]
        row = self._tokenizer.offsets([title])[0]
        for kept in range(min(self._budget - 1, len(row) - 1), 0, -1):
            place = grapheme_floor(title, row[kept][0], 0)
            if not place:
                continue
            text = title[:place].rstrip() + "…"
            count = len(self._tokenizer.offsets([text + _JOIN])[0])
            if count <= self._budget:
                return text, count
        return "", 0
