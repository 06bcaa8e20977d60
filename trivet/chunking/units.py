"""A document's text as units: the smallest stretches that chunks are made of, with their token counts.

Every character goes through the tokenizer once, a paragraph (at most some 4096 characters) at a time: one long string
would take seconds in one call and, unlike paragraphs, could not be spread over cores.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol

from trivet.chunking.boundaries import Rank, Span, grapheme_floor, is_clause_end, paragraphs, sentences
from trivet.chunking.sections import Section

_PIECE = 4096
_BATCH_CHARACTERS = 1 << 18
_BATCH_PIECES = 1024


class Spans(Protocol):
    """What is needed of a tokenizer here."""

    def offsets(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]: ...


@dataclass(frozen=True, slots=True)
class Units:
    """Parallel columns, in the order of the text: where a unit starts, its tokens, the rank of the cut before it."""

    starts: array[int] = field(default_factory=lambda: array("Q"))
    tokens: array[int] = field(default_factory=lambda: array("L"))
    ranks: list[Rank] = field(default_factory=list)

    def add(self, start: int, tokens: int, rank: Rank) -> None:
        """Append a unit."""
        self.starts.append(start)
        self.tokens.append(tokens)
        self.ranks.append(rank)

    def within(self, start: int, end: int) -> tuple[int, int]:
        """The run of units that start in [start, end)."""
        return bisect_left(self.starts, start), bisect_left(self.starts, end)


def measure(text: str, parts: Sequence[Section], tokenizer: Spans, step: int) -> Units:
    """Units of all sections; one with more than `step` tokens is cut into smaller ones at clauses, words, graphemes."""
    units = Units()
    for batch in _batches(_pieces(text, parts)):
        rows = tokenizer.offsets([text[piece[0][0] : piece[-1][1]] for piece in batch])
        for piece, row in zip(batch, rows, strict=True):
            base = piece[0][0]
            # Tokens of one character that the tokenizer expands share its offset; none goes back.
            starts = list(accumulate((base + begin for begin, _ in row), max))
            for start, end, rank in piece:
                low, high = bisect_left(starts, start), bisect_left(starts, end)
                if start == base:
                    low = 0
                if high - low <= step:
                    units.add(start, high - low, rank)
                else:
                    _refine(text, start, rank, starts[low:high], step, units)
    return units


def _pieces(text: str, parts: Sequence[Section]) -> Iterator[list[Span]]:
    """Runs of sentences of one paragraph, at most about 4096 characters long."""
    for part in parts:
        rank = Rank.SECTION
        for start, end in paragraphs(text, part.start, part.end):
            piece: list[Span] = []
            for span in sentences(text, start, end, rank):
                if piece and span[1] - piece[0][0] > _PIECE:
                    yield piece
                    piece = []
                piece.append(span)
            yield piece
            rank = Rank.PARAGRAPH


def _batches(pieces: Iterator[list[Span]]) -> Iterator[list[list[Span]]]:
    batch: list[list[Span]] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += piece[-1][1] - piece[0][0]
        if size >= _BATCH_CHARACTERS or len(batch) >= _BATCH_PIECES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _refine(text: str, start: int, rank: Rank, starts: Sequence[int], step: int, units: Units) -> None:
    """Add a long unit in pieces of about `step` tokens; `starts` are its tokens' offsets."""
    begin = 0
    while len(starts) - begin > step:
        cut = _token_cut(text, starts, begin, start, step)
        if cut is None:
            break
        index, place, inner = cut
        units.add(start, index - begin, rank)
        begin, start, rank = index, place, inner
    units.add(start, len(starts) - begin, rank)


def _token_cut(text: str, starts: Sequence[int], begin: int, start: int, step: int) -> tuple[int, int, Rank] | None:
    """(token index, offset, rank) of the best cut from half a step to a step on; None if no cut is left."""
    last = begin + step
    word: int | None = None
    for index in range(last, begin + step // 2, -1):
        place = starts[index]
        if place > start and (text[place - 1].isspace() or text[place].isspace()):
            if is_clause_end(text, place):
                return index, place, Rank.CLAUSE
            word = word or index
    if word is not None:
        return word, starts[word], Rank.WORD
    boundary = grapheme_floor(text, starts[last], start)
    if boundary is not None:
        index = bisect_left(starts, boundary, begin, last + 1)
        if index > begin:
            return index, boundary, Rank.GRAPHEME
    while last < len(starts) and starts[last] <= start:
        last += 1
    return (last, starts[last], Rank.INSIDE) if last < len(starts) else None
