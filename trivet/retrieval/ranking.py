"""Two-stage ranking, free of input and output: candidates of dense and sparse, fusion, MaxSim, fusion of all legs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from trivet.parts.arrow import np
from trivet.retrieval import Leg, LegScore, SearchRequest
from trivet.retrieval.fusion import fuse

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")


class Candidate(NamedTuple):
    """A chunk that a leg brought in, with both first-stage scores (None: not stored, or not a finite number)."""

    chunk_id: str
    dense: float | None
    sparse: float | None
    #: Where the chunk is stored: part, row group and row, each counted from 0.
    place: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Block:
    """First-stage scores of some rows of one row group; all arrays have the same length."""

    chunk_ids: Sequence[str]
    rows: NDArray[np.int64]
    dense: NDArray[np.float32] | None
    sparse: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Ranked:
    """A chunk with its fused score and the scores of the legs."""

    candidate: Candidate
    score: float
    legs: Mapping[Leg, LegScore]
    #: What each leg brings to the score.
    shares: Mapping[str, float]


class Made:
    """The candidates of a block that is stored at (part, row group), each made once, when it is first asked for."""

    def __init__(self, block: Block, place: tuple[int, int]) -> None:
        self._block = block
        self._place = place
        self._made: dict[int, Candidate] = {}

    def __call__(self, picked: NDArray[np.int64]) -> list[Candidate]:
        """Those at these indices of the block's arrays."""
        block, made = self._block, self._made
        new = np.array([i for i in picked.tolist() if i not in made], np.int64)
        columns = _finite(block.dense, new), _finite(block.sparse, new), block.rows[new].tolist()
        for i, dense, sparse, row in zip(new.tolist(), *columns, strict=True):
            made[i] = Candidate(block.chunk_ids[i], dense, sparse, (*self._place, row))
        return [made[i] for i in picked.tolist()]


@dataclass(slots=True)
class Best:
    """The `limit` best candidates of one leg; holds no more than a few times as many, whatever it is shown."""

    limit: int
    _held: list[tuple[float, str, Candidate]] = field(default_factory=list)
    _worst: float = -np.inf

    def offer(self, scores: NDArray[np.float32], made: Made) -> None:
        """Show the leg's scores of a block."""
        scores = np.where(np.isfinite(scores), scores, -np.inf)
        worst = self._worst
        if len(scores) > self.limit:
            worst = max(worst, float(np.partition(scores, -self.limit)[-self.limit]))
        # Equal to the worst still counts: it may have the smaller id.
        picked = np.flatnonzero((scores >= worst) & (scores > -np.inf))
        for score, candidate in zip(scores[picked].tolist(), made(picked), strict=True):
            self._held.append((-score, candidate.chunk_id, candidate))
        if len(self._held) > 4 * self.limit:
            self._prune()

    def ranked(self) -> list[Candidate]:
        """Best first; equal scores by chunk id."""
        self._prune()
        return [candidate for _, _, candidate in self._held]

    def _prune(self) -> None:
        self._held.sort(key=itemgetter(0, 1))
        del self._held[self.limit :]
        if len(self._held) == self.limit:
            self._worst = -self._held[-1][0]


class Ranking:
    """Collects the first stage block by block, in any order, then ranks. Not thread-safe."""

    def __init__(self, request: SearchRequest) -> None:
        self._request = request
        self._best = {
            leg: Best(max(request.candidates, request.top_k))
            for leg in (Leg.DENSE, Leg.SPARSE)
            if request.fusion.weight(leg) > 0
        }
        self._scores: dict[Leg, dict[str, LegScore]] = {}
        self._candidates: dict[str, Candidate] = {}

    def offer(self, block: Block, place: tuple[int, int]) -> None:
        """Show the scores of some rows of the row group `place` = (part, row group)."""
        made = Made(block, place)
        if block.dense is not None and Leg.DENSE in self._best:
            self._best[Leg.DENSE].offer(block.dense, made)
        if block.sparse is not None and Leg.SPARSE in self._best:
            # Without a shared term there is no match.
            matched = np.where(block.sparse > 0, block.sparse, np.float32(-np.inf))
            self._best[Leg.SPARSE].offer(matched, made)

    def first_stage(self) -> list[Candidate]:
        """Candidates of both legs in fused order: those that MaxSim is worth computing for come first."""
        ranks: dict[Leg, dict[str, int]] = {}
        for leg, best in self._best.items():
            found = best.ranked()
            ranks[leg] = {candidate.chunk_id: rank for rank, candidate in enumerate(found, 1)}
            self._candidates |= {candidate.chunk_id: candidate for candidate in found}
        for leg in (Leg.DENSE, Leg.SPARSE):
            listed = ranks.get(leg, {})
            self._scores[leg] = {
                key: LegScore(score, listed.get(key))
                for key, candidate in self._candidates.items()
                if (score := candidate.dense if leg == Leg.DENSE else candidate.sparse) is not None
            }
        return [self._candidates[found.chunk_id] for found in fuse(self._scores, self._request.fusion)]

    def final(self, kept: Sequence[Candidate], colbert: Mapping[str, float]) -> list[Ranked]:
        """`kept` (candidates of the first stage) in their last order, all legs fused.

        `colbert` has MaxSim scores by chunk id; a chunk without one counts as that leg's worst, and where it is
        empty the two other legs are fused as before.
        """
        keys = [candidate.chunk_id for candidate in kept]
        scores = {leg: {key: listed[key] for key in keys if key in listed} for leg, listed in self._scores.items()}
        order = sorted(colbert.items(), key=lambda item: (-item[1], item[0]))
        scores[Leg.COLBERT] = {key: LegScore(score, rank) for rank, (key, score) in enumerate(order, 1)}
        fusion = self._request.final_fusion if colbert else self._request.fusion
        return [
            Ranked(
                self._candidates[key],
                score,
                {leg: listed[key] for leg, listed in scores.items() if key in listed},
                shares,
            )
            for key, score, shares in fuse(scores, fusion, keys)
        ]


def rerank_depth(request: SearchRequest) -> int:
    """How many candidates MaxSim is computed for: as many as asked, never fewer than are returned; 0 for none."""
    return request.window if request.reranks else 0


def by_row_group(items: Sequence[T], candidate: Callable[[T], Candidate]) -> dict[tuple[int, int], list[T]]:
    """Grouped by (part, row group), so that each is read once."""
    groups: dict[tuple[int, int], list[T]] = {}
    for item in items:
        part, group, _ = candidate(item).place
        groups.setdefault((part, group), []).append(item)
    return groups


def _finite(scores: NDArray[np.float32] | None, rows: NDArray[np.int64]) -> list[float | None]:
    if scores is None:
        return [None] * len(rows)
    return [score if math.isfinite(score) else None for score in scores[rows].tolist()]
