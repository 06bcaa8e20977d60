"""Markdown tables, and the place in a page that they are written into."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_MARKS = ("<!-- measured: begin -->\n", "<!-- measured: end -->\n")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """One line per row."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def means(figures: Sequence[NDArray[np.float64]]) -> list[str]:
    """The mean of each, with three digits."""
    return [f"{found.mean():.3f}" for found in figures]


def write(page: Path, text: str) -> None:
    """Put the text between the page's marks."""
    before, rest = page.read_text("utf-8").split(_MARKS[0])
    page.write_text(f"{before}{_MARKS[0]}\n{text}\n{_MARKS[1]}{rest.split(_MARKS[1])[1]}", "utf-8")
