"""Where a text may be cut, and how good a place that is. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

import regex


class Rank(IntEnum):
    """How well a text may be cut at a place; higher is better."""

    INSIDE = 0  # inside a grapheme cluster, where one is longer than a chunk
    GRAPHEME = 1
    WORD = 2
    CLAUSE = 3
    LINE = 4
    SENTENCE = 5
    ITEM = 6  # a list item or table row begins
    PARAGRAPH = 7
    SECTION = 8


#: A stretch of text [start, end) and the rank of the cut before it.
Span = tuple[int, int, Rank]

# Every pattern is linear: a run is entered at its first character only, and left possessively.
_BLANK_LINE = regex.compile(r"\n(?:[^\S\n]*+\n)++\s*+")
_CUT = regex.compile(
    # Full stops that need white space after them, and no small letter (an abbreviation, mostly) …
    r"(?<![.!?…‽؟۔।॥။።։།])[.!?…‽؟۔।॥။።։།]++[\"'”’»›)\]]*+\s++(?!\p{Ll})"
    # … those of scripts that use none …
    r"|[。！？｡．]++[\"'”’」』）)\]】》〉]*+\s*+"
    # … and line ends.
    r"|(?P<line>\n)\s*+"
)
_ITEM = regex.compile(r"(?:[-*+•‣◦]|\d{1,4}[.)]|[A-Za-z][.)])\s+\S|\|")
_CLUSTER = regex.compile(r"\X")
_CLAUSE_ENDS = frozenset(",;:，、；：،؛・")
#: Longest stretch that is cut without having been tokenised, in characters.
_LONGEST = 4096
#: Characters around a place that tell its grapheme clusters.
_LOOK_BACK = 64
_MAX_FLAGS = 256


def paragraphs(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The stretches of `text[start:end]` between blank lines, white space at their ends cut off."""
    for match in _BLANK_LINE.finditer(text, start, end):
        if span := trimmed(text, start, match.start()):
            yield span
        start = match.end()
    if span := trimmed(text, start, end):
        yield span


def trimmed(text: str, start: int, end: int) -> tuple[int, int] | None:
    """`[start, end)` without white space at its ends; None if nothing is left."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return (start, end) if start < end else None


def sentences(text: str, start: int, end: int, first: Rank) -> Iterator[Span]:
    """Sentences and lines of a paragraph, without a gap between them; no longer than 4096 characters."""
    rank = first
    for match in _CUT.finditer(text, start, end):
        if match.end() >= end:
            break
        yield from _pieces(text, start, match.end(), rank)
        start, rank = match.end(), _rank(text, match)
    yield from _pieces(text, start, end, rank)


def _rank(text: str, match: regex.Match[str]) -> Rank:
    if "\n" in match[0] and _ITEM.match(text, match.end()):
        return Rank.ITEM
    return Rank.LINE if match["line"] else Rank.SENTENCE


def _pieces(text: str, start: int, end: int, rank: Rank) -> Iterator[Span]:
    while end - start > _LONGEST:
        cut, inner = best_cut(text, start + _LONGEST // 2, start + _LONGEST)
        yield start, cut, rank
        start, rank = cut, inner
    yield start, end, rank


def best_cut(text: str, low: int, high: int) -> tuple[int, Rank]:
    """The best place to cut in `(low, high]`, the last one of the best: clause, word, grapheme, or `high` itself."""
    word = 0
    for place in range(high, low, -1):
        if text[place - 1].isspace() and not text[place : place + 1].isspace():
            if is_clause_end(text, place):
                return place, Rank.CLAUSE
            word = word or place
    if word:
        return word, Rank.WORD
    grapheme = grapheme_floor(text, high, low)
    return (grapheme, Rank.GRAPHEME) if grapheme is not None else (high, Rank.INSIDE)


def is_clause_end(text: str, place: int) -> bool:
    """Whether the last visible character before `place` ends a clause."""
    before = place - 1
    while before > 0 and place - before < 4 and text[before].isspace():
        before -= 1
    return text[before] in _CLAUSE_ENDS


def grapheme_floor(text: str, place: int, low: int) -> int | None:
    """The last boundary of a grapheme cluster (UAX #29) in `(low, place]`, or None."""
    if place >= len(text):
        return place
    begin = max(place - _LOOK_BACK, 0)
    # Flags are pairs: their boundaries can only be told from the first of a run.
    for _ in range(_MAX_FLAGS):
        if begin == 0 or not "\U0001f1e6" <= text[begin] <= "\U0001f1ff":
            break
        begin -= 1
    found = None
    # A slice, since the pattern itself looks back over all flags before its beginning.
    for match in _CLUSTER.finditer(text[begin : place + _LOOK_BACK]):
        boundary = begin + match.start()
        if boundary > place:
            break
        # The window's own beginning may lie inside a cluster.
        if boundary > low and (boundary > begin or begin == 0):
            found = boundary
    return found


def middle_cut(text: str, start: int, end: int) -> int:
    """The best place to cut `text[start:end]` (two characters at least) in two, near its middle."""
    middle, quarter = (start + end) // 2, max((end - start) // 4, 1)
    low, high = max(middle - quarter, start), min(middle + quarter, end - 1)
    cuts = [match for match in _CUT.finditer(text, low, high) if start < match.end() < end]
    if cuts:
        best = min(cuts, key=lambda match: (match["line"] is not None, abs(match.end() - middle)))
        return int(best.end())
    cut, _ = best_cut(text, max(low, start), max(high, start + 1))
    return cut if start < cut < end else max(middle, start + 1)
