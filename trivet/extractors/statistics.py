"""Figures of a chunk's text."""

from __future__ import annotations

import re
from collections.abc import Mapping

from trivet.values.documents import Chunk

_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"[.!?。！？؟]+(?=\s|$|[^\w\s])|[。！？]")


def extract(chunk: Chunk) -> Mapping[str, str]:
    """`characters`, `words` (runs of letters and digits), `sentences` (ends of them, at least 1) and `digit_share`."""
    text = chunk.text
    solid = [c for c in text if not c.isspace()]
    digits = sum(c.isdigit() for c in solid)
    return {
        "characters": str(len(text)),
        "words": str(len(_WORD.findall(text))),
        "sentences": str(max(1, len(_SENTENCE_END.findall(text)))),
        "digit_share": f"{digits / len(solid):.3f}" if solid else "0.000",
    }
