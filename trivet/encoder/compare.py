"""How far two encoders' legs of the same texts are apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from trivet.encoder import Legs

if TYPE_CHECKING:
    from numpy.typing import NDArray


def differences(one: Legs, other: Legs) -> dict[str, float]:
    """Leg → largest absolute difference; both sides hold the same texts, ColBERT in float32.

    A sparse term that one side lacks counts as weight 0 there.
    """
    sparse: list[float] = []
    for at in range(len(one)):
        mine, theirs = terms(one, at), terms(other, at)
        sparse += (abs(mine.get(term, 0.0) - theirs.get(term, 0.0)) for term in mine.keys() | theirs.keys())
    return {
        "dense": float(np.abs(one.dense - other.dense).max(initial=0.0)),
        "sparse": largest(sparse),
        "colbert": float(np.abs(one.colbert - other.colbert).max(initial=0.0)),
    }


def largest(gaps: Iterable[float]) -> float:
    """The largest gap, 0 of none; NaN where one is NaN, which Python's `max` may pass over."""
    return float(np.max(list(gaps), initial=0.0))


def terms(legs: Legs, at: int) -> dict[int, float]:
    """Token id → weight of text `at`."""
    part = slice(legs.sparse_offsets[at], legs.sparse_offsets[at + 1])
    return dict(zip(legs.sparse_ids[part].tolist(), legs.sparse_weights[part].tolist(), strict=True))


def pair_scores(legs: Legs, query: int, passage: int) -> dict[str, float]:
    """Leg → score of two texts, as bge-m3 defines it.

    Dense: dot product. Sparse: sum of the products of weights over shared terms. ColBERT (MaxSim): mean over the
    query's vectors of the largest dot product with one of the passage's.
    """

    def vectors(at: int) -> NDArray[np.floating]:
        return legs.colbert[legs.colbert_offsets[at] : legs.colbert_offsets[at + 1]]

    asked, held = terms(legs, query), terms(legs, passage)
    return {
        "dense": float(legs.dense[query] @ legs.dense[passage]),
        "sparse": sum(weight * held.get(term, 0.0) for term, weight in asked.items()),
        "colbert": float(np.max(vectors(query) @ vectors(passage).T, axis=1).mean()),
    }


def row(legs: Legs, at: int) -> Legs:
    """The legs of text `at` alone (views)."""
    sparse = slice(legs.sparse_offsets[at], legs.sparse_offsets[at + 1])
    colbert = slice(legs.colbert_offsets[at], legs.colbert_offsets[at + 1])
    return Legs(
        dense=legs.dense[at : at + 1],
        sparse_ids=legs.sparse_ids[sparse],
        sparse_weights=legs.sparse_weights[sparse],
        sparse_offsets=np.array([0, sparse.stop - sparse.start], np.int64),
        colbert=legs.colbert[colbert],
        colbert_offsets=np.array([0, colbert.stop - colbert.start], np.int64),
    )
