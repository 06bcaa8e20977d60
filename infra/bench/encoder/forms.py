"""The results of all engines in one form, and the post-processing of those that give hidden states alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from infra.bench.encoder.engines import Arrays

#: CLS, PAD, EOS and UNK are the ids 0 to 3.
_LAST_SPECIAL = 3
#: Padded tokens of one batch, where the harness makes the batches.
BUDGET = 2048


@dataclass(frozen=True, slots=True)
class Padded:
    """One batch as a padded engine gives it: indices of its texts, their ids, and the legs before post-processing."""

    batch: Sequence[int]
    ids: Sequence[Sequence[int]]
    #: [n, d] normalised; [n, L] ≥ 0; [n, L - 1, d] normalised.
    dense: np.ndarray[Any, Any]
    weights: np.ndarray[Any, Any]
    vectors: np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One text, done: what a user of bge-m3 takes away."""

    dense: np.ndarray[Any, Any]
    terms: dict[int, float]
    vectors: np.ndarray[Any, Any]


def finish(batches: Sequence[Padded]) -> list[Row]:
    """Cut the padding off, keep the largest weight of each term; rows in the order of the texts."""
    rows: list[tuple[int, Row]] = []
    for made in batches:
        for at, (index, ids) in enumerate(zip(made.batch, made.ids, strict=True)):
            known = np.asarray(ids)
            weights = made.weights[at, : len(known)]
            kept = (weights > 0) & (known > _LAST_SPECIAL)
            terms, group = np.unique(known[kept], return_inverse=True)
            best = np.zeros(len(terms), np.float32)
            np.maximum.at(best, group, weights[kept])
            found = dict(zip(terms.tolist(), best.tolist(), strict=True))
            rows.append((index, Row(made.dense[at], found, made.vectors[at, : len(known) - 1])))
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def from_finished(rows: Sequence[Row]) -> Arrays:
    """`finish`'s rows as arrays."""
    dense = np.stack([row.dense for row in rows]).astype(np.float32)
    return from_rows(dense, [row.terms for row in rows], [row.vectors for row in rows])


def from_rows(
    dense: np.ndarray[Any, Any], terms: Sequence[Mapping[int, float]], vectors: Sequence[np.ndarray[Any, Any]]
) -> Arrays:
    """Per text a row, a mapping and a matrix → flat arrays with offsets."""
    pairs = [sorted(row.items()) for row in terms]
    return {
        "dense": dense,
        "sparse_ids": np.array([term for row in pairs for term, _ in row], np.uint32),
        "sparse_weights": np.array([weight for row in pairs for _, weight in row], np.float32),
        "sparse_offsets": np.cumsum([0, *map(len, pairs)], dtype=np.int64),
        "colbert": np.concatenate([np.asarray(rows, np.float32) for rows in vectors]),
        "colbert_offsets": np.cumsum([0, *map(len, vectors)], dtype=np.int64),
    }
