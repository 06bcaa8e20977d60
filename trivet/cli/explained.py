"""How `trivet search --explain` shows a hit: its terms, what MaxSim aligned, and the text with what matched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from trivet.cli.console import clean, out

if TYPE_CHECKING:
    from rich.text import Text

    from trivet.retrieval import Hit
    from trivet.retrieval.explaining import Explanation
    from trivet.retrieval.highlights import Highlight

#: Characters of a hit's text that are shown, and terms and alignments.
EXCERPT = 600
_MOST = 8
#: Words that bring at least this part of what the strongest one brings stand out more.
_STRONG = 0.5
_SPACE = re.compile(r"\s+")


def print_explained(hit: Hit, why: Explanation) -> None:
    """Terms, alignment and text under a hit's line; wrapped to the terminal, three columns in."""
    from rich.padding import Padding
    from rich.text import Text

    for label, line in (("terms", _terms(why)), ("maxsim", _alignment(why))):
        out().print(Padding(Text.assemble((f"{label}  ", "dim"), clean(line)), (0, 0, 0, 3), expand=False))
    out().print(Padding(highlighted(hit.text, why.highlights), (0, 0, 0, 3), expand=False))


def highlighted(text: str, found: Sequence[Highlight], width: int = EXCERPT) -> Text:
    """The stretch of a text where most of what matched stands, on one line, with styles where it matched."""
    from rich.text import Text

    first, last = excerpt(len(text), found, width)
    strongest = max((highlight.weight for highlight in found), default=0.0)
    shown, at = Text("…" if first else ""), first
    for highlight in found:
        if first <= highlight.start and highlight.end <= last:
            shown.append(_line(text[at : highlight.start]))
            style = "bold yellow" if highlight.weight >= _STRONG * strongest else "underline"
            shown.append(_line(text[highlight.start : highlight.end]), style=style)
            at = highlight.end
    shown.append(_line(text[at:last]))
    shown.append("…" if last < len(text) else "")
    return shown


def excerpt(length: int, found: Sequence[Highlight], width: int) -> tuple[int, int]:
    """`[start, end)` of at most `width` characters that holds most of the weight; the first of equal ones.

    It begins at a highlight, less a quarter of what is left over, or at the ends of the text. A highlight that does
    not fit is cut.
    """
    if length <= width or not found:
        return 0, min(length, width)
    sums = [0.0, *accumulate(highlight.weight for highlight in found)]
    best, held, after = 0, 0.0, 0
    for at, highlight in enumerate(found):
        while after < len(found) and found[after].end <= highlight.start + width:
            after += 1
        # Rounding must not make a later one of equal sums the larger one.
        if sums[after] - sums[at] > held + 1e-9:
            best, held = at, sums[after] - sums[at]
    end = max((found[i].end for i in range(best, len(found)) if found[i].end <= found[best].start + width), default=0)
    spare = max(width - max(end - found[best].start, 0), 0)
    start = max(min(found[best].start - spare // 4, length - width), 0)
    return start, start + width


def _line(text: str) -> str:
    return clean(_SPACE.sub(" ", text))


def _terms(why: Explanation) -> str:
    if why.terms is None:
        return why.terms_missing
    parts = [f"{term.term} {term.contribution:.3f} = {term.query_weight:.2f} × {term.weight:.2f}" for term in why.terms]
    return _listed(parts) or "no term in common"


def _alignment(why: Explanation) -> str:
    if why.alignment is None:
        return why.alignment_missing
    words = sorted((match for match in why.alignment if match.query_span), key=lambda match: -match.contribution)
    return _listed([f"{match.query_token} → {match.chunk_token} {match.similarity:.2f}" for match in words])


def _listed(parts: Sequence[str]) -> str:
    more = len(parts) - _MOST
    return ", ".join(parts[:_MOST]) + (f", and {more} more" if more > 0 else "")
