"""What a dtype loses against fp32 on a set of texts, and how much it may lose."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from trivet.encoder import Legs
from trivet.encoder.compare import differences, pair_scores, terms
from trivet.errors import InvalidRequest
from trivet.values import Numerics

if TYPE_CHECKING:
    from numpy.typing import NDArray


#: Not structlog's, which writes to stdout where nobody has set it up, as in the command line.
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a dtype may lose on the canary texts; outside of it, one that is `strict` does not start."""

    dense_cosine_min: float
    maxsim_gap: float
    strict: bool

    def missed_by(self, found: Numerics) -> list[str]:
        """What is outside, each as a figure with its bound; empty where all is well."""
        missed = []
        # Written so that a NaN counts as outside.
        if not found.dense_cosine_min >= self.dense_cosine_min:
            missed.append(f"smallest dense cosine {found.dense_cosine_min:.5f} (at least {self.dense_cosine_min:g})")
        if not found.maxsim_gap <= self.maxsim_gap:
            missed.append(f"largest MaxSim deviation {found.maxsim_gap:.5f} (at most {self.maxsim_gap:g})")
        return missed


#: dtype → its tolerance; figures and commands in docs/encoder.md.
TOLERANCES = {
    # What it loses is rounding, so this is what is aimed at and shown, and no reason to stop.
    "bf16": Tolerance(dense_cosine_min=0.9995, maxsim_gap=0.005, strict=False),
    # The hardest case measured, 24 layers of random weights, has .9986 and .0150. This leaves room for other models;
    # one activation far above all others, which takes the scale of its whole row, falls outside.
    "int8": Tolerance(dense_cosine_min=0.99, maxsim_gap=0.03, strict=True),
}


def numerics(ours: Legs, exact: Legs) -> Numerics:
    """Hold `ours` against `exact`: the legs of the same n ≥ 2 texts, ColBERT in float32.

    Scores are those of every text as the query with every other one as the passage; both come from the same side.
    """
    cosines = (ours.dense * exact.dense).sum(axis=1)
    shared: list[float] = []
    for at in range(len(exact)):
        mine, theirs = terms(ours, at).keys(), terms(exact, at).keys()
        shared.append(len(mine & theirs) / len(mine | theirs) if mine or theirs else 1.0)
    got, wanted = _all_scores(ours), _all_scores(exact)
    return Numerics(
        dense_cosine_min=float(cosines.min()),
        dense_cosine_mean=float(cosines.mean()),
        sparse_jaccard_min=min(shared),
        sparse_jaccard_mean=float(np.mean(shared)),
        sparse_weight_gap=differences(ours, exact)["sparse"],
        maxsim_gap=float(np.abs(got["colbert"] - wanted["colbert"]).max()),
        rank_dense=spearman(got["dense"], wanted["dense"]),
        rank_sparse=spearman(got["sparse"], wanted["sparse"]),
        rank_colbert=spearman(got["colbert"], wanted["colbert"]),
    )


def _all_scores(legs: Legs) -> dict[str, NDArray[np.float64]]:
    """Leg → [n · (n - 1)] scores."""
    rows = [pair_scores(legs, query, passage) for query, passage in permutations(range(len(legs)), 2)]
    return {leg: np.array([row[leg] for row in rows]) for leg in rows[0]}


def spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Rank correlation of two [n] arrays: Pearson's over ranks, ties with the mean of their ranks.

    Where either side is constant there is no order to agree on: 1 if both are, else 0.
    """
    a, b = _ranks(one), _ranks(other)
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a @ a) * (b @ b)))
    if spread == 0.0:
        return float(not a.any() and not b.any())
    return float(a @ b) / spread


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (counts.cumsum() - (counts - 1) / 2)[place]
    return ranks


def admitted(dtype: str, found: Numerics, *, model: str, force: bool) -> Numerics:
    """`found`, marked as forced where it is outside of a strict tolerance and `force` is set.

    What is outside of one that is not strict is told in the log. Raises `InvalidRequest` where it is outside of one
    that is, and not forced.
    """
    tolerance = TOLERANCES.get(dtype)
    if tolerance is None or not (missed := tolerance.missed_by(found)):
        return found
    if not tolerance.strict:
        log.warning("encoder.inexact: %s on the model %r: %s", dtype, model, "; ".join(missed))
        return found
    if force:
        return found.model_copy(update={"forced": True})
    raise InvalidRequest(
        f"{dtype} is outside of its tolerance against fp32 on the model {model!r}: {'; '.join(missed)}.",
        hint="Set TRIVET_DTYPE=auto, or, to run it all the same, TRIVET_FORCE_DTYPE=true.",
    )
