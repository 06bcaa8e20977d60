"""How far results lie from those of FlagEmbedding in fp32, leg by leg."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from infra.bench.encoder.engines import Arrays


@dataclass(frozen=True, slots=True)
class Distance:
    """Over all texts. A leg that an engine lacks is None."""

    dense_max: float
    dense_cosine_min: float
    #: Over the union of the terms; one that is missing weighs 0.
    sparse_max: float | None
    #: Mean over the texts of shared ÷ all terms.
    jaccard: float | None
    colbert_max: float | None
    #: Largest difference of a query's MaxSim score with a text; None without queries.
    maxsim_max: float | None = None


def load(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a file that an engine saved."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def distance(got: Arrays, want: Arrays, got_queries: Arrays | None = None, queries: Arrays | None = None) -> Distance:
    """`got` against `want`, which are of the same texts."""
    cosine = (got["dense"] * want["dense"]).sum(1) / np.linalg.norm(got["dense"], axis=1)
    full = "colbert" in got
    sparse, jaccard = _sparse(got, want) if full else (None, None)
    maxsim = None
    if full and got_queries is not None and queries is not None:
        maxsim = float(np.abs(_scores(got_queries, got) - _scores(queries, want)).max())
    return Distance(
        dense_max=float(np.abs(got["dense"] - want["dense"]).max()),
        dense_cosine_min=float(cosine.min()),
        sparse_max=sparse,
        jaccard=jaccard,
        colbert_max=float(np.abs(_wide(got["colbert"]) - _wide(want["colbert"])).max()) if full else None,
        maxsim_max=maxsim,
    )


def _wide(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return values.astype(np.float32, copy=False)


def _sparse(got: Arrays, want: Arrays) -> tuple[float, float]:
    largest, shared = 0.0, []
    for mine, theirs in zip(_terms(got), _terms(want), strict=True):
        union = mine.keys() | theirs.keys()
        shared.append(len(mine.keys() & theirs.keys()) / max(1, len(union)))
        largest = max([largest, *(abs(mine.get(term, 0.0) - theirs.get(term, 0.0)) for term in union)])
    return largest, float(np.mean(shared))


def _terms(arrays: Arrays) -> list[dict[int, float]]:
    at = arrays["sparse_offsets"]
    ids, weights = arrays["sparse_ids"], arrays["sparse_weights"]
    spans = [slice(int(a), int(b)) for a, b in pairwise(at)]
    return [dict(zip(ids[span].tolist(), weights[span].tolist(), strict=True)) for span in spans]


def _scores(queries: Arrays, passages: Arrays) -> np.ndarray[Any, Any]:
    """[queries, passages]: mean over the query's vectors of the best product with a vector of the passage."""
    return np.array([[(q @ p.T).max(1).mean() for p in _vectors(passages)] for q in _vectors(queries)])


def _vectors(arrays: Arrays) -> list[np.ndarray[Any, Any]]:
    at = arrays["colbert_offsets"]
    return [_wide(arrays["colbert"][int(a) : int(b)]) for a, b in pairwise(at)]
