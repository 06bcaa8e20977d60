"""From the lines of a page to paragraphs. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

#: A line that ends this far (share of the text width) before the margin was ended on purpose.
_SHORT_LINE = 0.2
#: Baselines this much further apart than usual have a paragraph between them.
_PARAGRAPH_GAP = 1.35
#: Font sizes this much apart do not stand in one paragraph.
_SIZE_CHANGE = 1.12
#: What pdfium puts for a hyphen that it found at the end of a line, and the soft hyphen.
_HYPHENS = "\x02\xad"
_NO_SPACE = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u303f\u3040-\u30ff\u3100-\u312f\u31f0-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a page; positions and font size in points, the origin at the bottom left."""

    text: str
    left: float
    right: float
    baseline: float
    size: float


def reflow(lines: Sequence[Line]) -> str:
    """The text of a page: a blank line between paragraphs, one line per paragraph unless its lines end on purpose."""
    kept = [line for line in lines if line.text.strip()]
    if not kept:
        return ""
    gap = _usual_gap(kept)
    left, right = min(line.left for line in kept), _margin(kept)
    width = max(right - left, 1.0)
    paragraphs: list[str] = []
    text = ""
    previous: Line | None = None
    for line in kept:
        if previous is None:
            text = _tidy(line.text)
        elif _is_paragraph_end(previous, line, gap):
            paragraphs.append(text)
            text = _tidy(line.text)
        else:
            same_column = abs(line.left - previous.left) < width / 2
            short = same_column and (right - previous.right) > _SHORT_LINE * width
            text = _join(text, _tidy(line.text), on_purpose=short)
        previous = line
    paragraphs.append(text)
    done = (_without_marks(paragraph) for paragraph in paragraphs)
    return "\n\n".join(paragraph for paragraph in done if paragraph)


def _usual_gap(lines: Sequence[Line]) -> float:
    """Distance of two lines of one paragraph: the lower quartile, since on some pages every line is a paragraph."""
    gaps = [above.baseline - below.baseline for above, below in pairwise(lines)]
    gaps = sorted(gap for gap in gaps if gap > 0.5)
    return gaps[len(gaps) // 4] if len(gaps) >= 3 else 0.0


def _margin(lines: Sequence[Line]) -> float:
    """Where full lines end: the 90th percentile, so that one stray line does not move it."""
    rights = sorted(line.right for line in lines)
    return rights[int(0.9 * (len(rights) - 1))]


def _is_paragraph_end(previous: Line, line: Line, usual: float) -> bool:
    gap = previous.baseline - line.baseline
    if gap < -0.5 * line.size:
        # Further up: the next column or a text box. A sentence may run on there.
        return not previous.text.rstrip().endswith(tuple(_HYPHENS)) and not line.text.lstrip()[:1].islower()
    sizes = sorted((max(previous.size, 0.1), max(line.size, 0.1)))
    if sizes[1] / sizes[0] > _SIZE_CHANGE and gap > 0.5:
        return True
    expected = usual or 1.35 * max(previous.size, line.size, 1.0)
    # A size of 1 means that the matrix scales the font: then only the usual gap counts.
    return gap > _PARAGRAPH_GAP * expected


def _tidy(text: str) -> str:
    return " ".join(text.replace("\x00", " ").split())


def _join(text: str, line: str, *, on_purpose: bool) -> str:
    if text.endswith(tuple(_HYPHENS)):
        return text[:-1] + line
    if text.endswith("-") and len(text) > 1 and text[-2].isalpha() and line[:1].islower():
        return text[:-1] + line
    if on_purpose:
        return f"{text}\n{line}"
    if _NO_SPACE.match(text[-1:]) and _NO_SPACE.match(line[:1]):
        return text + line
    return f"{text} {line}"


def _without_marks(text: str) -> str:
    # A marked hyphen that no line follows was a real one.
    return text.replace("\x02", "-").replace("\xad", "").strip()


def find_title(text: str, title: str, start: int, end: int) -> int | None:
    """Where `title` stands in `text[start:end]`, whatever its white space, case and numbering; None if nowhere.

    A place at the beginning of a line is preferred.
    """
    words = title.split()
    bare = words[1:] if len(words) > 1 and re.fullmatch(r"[\dIVXLC.]+[.):]?", words[0]) else []
    for candidate in filter(None, (words, bare)):
        pattern = re.compile(r"\s*".join(re.escape(word) for word in candidate), re.IGNORECASE)
        first: int | None = None
        for match in pattern.finditer(text, start, end):
            begin = match.start()
            line_start = max(text.rfind("\n", start, begin) + 1, start)
            # With its number found only in the text, the heading starts at the number.
            if re.fullmatch(r"[\dIVXLC.]*[.):]?\s*", text[line_start:begin]):
                return line_start
            first = begin if first is None else first
        if first is not None:
            return first
    return None
