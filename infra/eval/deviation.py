"""How far scores are off: by how much, in what order, and whether the right chunk is found."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Scores = NDArray[np.float32]
HEADINGS = ("abs. deviation, mean", "max", "Spearman, all pairs", "Spearman, per query", "top-10 kept", "MRR@10")


def _correlation(one: Scores, two: Scores) -> float:
    return float(np.corrcoef(rankdata(one), rankdata(two))[0, 1])


def _top10(scores: Scores) -> list[set[int]]:
    return [set(row[:10].tolist()) for row in np.argsort(-scores, axis=1, kind="stable")]


def _reciprocal(scores: Scores, answers: NDArray[np.int64], groups: int) -> float:
    size = scores.shape[1] // groups
    total = 0.0
    for row, answer in zip(scores, answers, strict=True):
        first = answer // size * size
        rank = 1 + int((row[first : first + size] > row[answer]).sum())
        total += 1 / rank if rank <= 10 else 0
    return total / len(answers)


def cells(found: Scores, true: Scores, answers: NDArray[np.int64], groups: int) -> list[str]:
    """What is under HEADINGS; `found` and `true` are [queries, chunks].

    MRR@10 is of `answers`, the chunk that each query was made from, among those of its group: chunks lie in `groups`
    runs of the same length.
    """
    off = np.abs(found - true)
    each = float(np.mean([_correlation(one, two) for one, two in zip(found, true, strict=True)]))
    kept = np.mean([len(one & two) / 10 for one, two in zip(_top10(found), _top10(true), strict=True)])
    return [
        f"{off.mean():.5f}",
        f"{off.max():.5f}",
        f"{_correlation(found.ravel(), true.ravel()):.5f}",
        f"{each:.5f}",
        f"{kept:.3f}",
        f"{_reciprocal(found, answers, groups):.3f}",
    ]
