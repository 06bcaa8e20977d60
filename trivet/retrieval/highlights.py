"""From spans that matched to whole words, for a reader's eye. Pure functions over one text."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import regex

#: `[start, end)` in a text, in Unicode code points.
Span = tuple[int, int]

_WORD = regex.compile(r"(?V1w)\b")
_CLUSTER = regex.compile(r"\X")
_VISIBLE = regex.compile(r"[^\p{P}\p{Z}\p{C}]")


@dataclass(frozen=True, slots=True)
class Highlight:
    """Words that matched: whole ones, and no grapheme cut."""

    #: `[start, end)` in the chunk's text, and `[char_start, char_end)` in the parsed document, in code points.
    start: int
    end: int
    char_start: int
    char_end: int
    #: What comes from here of the sparse or the MaxSim score, whichever is more; at most 1. Not a share of the score:
    #: else the one weak term of a query would outshine all that MaxSim found.
    weight: float


def highlights(text: str, char_start: int, legs: Iterable[Mapping[Span, float]]) -> tuple[Highlight, ...]:
    """What matched, in order, none overlapping another.

    `legs` says per leg the part of its score that each span of `text` has. Spans are widened to words and grapheme
    clusters (UAX #29: in a script without spaces a word is about a character, so there a span stays what it is), and
    those that then overlap become one. Punctuation alone is left out.
    """
    parts = [{span: part for span, part in leg.items() if part > 0 and _visible(text, span)} for leg in legs]
    words = _merged(_widened(text, {span for leg in parts for span in leg}))
    starts = [start for start, _ in words]
    weights = [[0.0] * len(words) for _ in parts]
    for row, leg in zip(weights, parts, strict=True):
        for span, part in leg.items():
            row[bisect_right(starts, span[0]) - 1] += part
    # A term that stands in one word twice counts twice.
    best = (min(max(column), 1.0) for column in zip(*weights, strict=True))
    return tuple(
        Highlight(start, end, char_start + start, char_start + end, weight)
        for (start, end), weight in zip(words, best, strict=True)
    )


def _visible(text: str, span: Span) -> bool:
    return _VISIBLE.search(text, *span) is not None


def _widened(text: str, spans: Iterable[Span]) -> list[Span]:
    """The spans in order, each to the nearest cuts outside of it."""
    ordered = sorted(spans)
    if not ordered:
        return []
    clusters = {match.end() for match in _CLUSTER.finditer(text)}
    cuts = [0, *sorted(clusters & {match.start() for match in _WORD.finditer(text)} - {0, len(text)}), len(text)]
    return [(cuts[bisect_right(cuts, start) - 1], cuts[bisect_left(cuts, end)]) for start, end in ordered]


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in spans:
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
