"""How far two encoders' legs of the same texts are apart."""

from __future__ import annotations

import numpy as np

from trivet.encoder import Legs


def differences(one: Legs, other: Legs) -> dict[str, float]:
    """Leg → largest absolute difference; both sides hold the same texts, ColBERT in float32.

    A sparse term that one side lacks counts as weight 0 there.
    """
    sparse = 0.0
    for at in range(len(one)):
        mine, theirs = terms(one, at), terms(other, at)
        gaps = (abs(mine.get(term, 0.0) - theirs.get(term, 0.0)) for term in mine.keys() | theirs.keys())
        sparse = max(sparse, max(gaps, default=0.0))
    return {
        "dense": float(np.abs(one.dense - other.dense).max(initial=0.0)),
        "sparse": sparse,
        "colbert": float(np.abs(one.colbert - other.colbert).max(initial=0.0)),
    }


def terms(legs: Legs, at: int) -> dict[int, float]:
    """Token id → weight of text `at`."""
    part = slice(legs.sparse_offsets[at], legs.sparse_offsets[at + 1])
    return dict(zip(legs.sparse_ids[part].tolist(), legs.sparse_weights[part].tolist(), strict=True))


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
