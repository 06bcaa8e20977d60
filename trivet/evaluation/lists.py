"""Every document scored for every query by each leg: exact, over arrays, block by block.

A leg lists its best `depth` documents with a rank; of documents that another leg lists its score is known too, without
a rank, as in a search (`trivet.retrieval.ranking`). Equal scores are in order of document id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from trivet.encoder import Legs
from trivet.evaluation.encoding import Block, TextEncoder
from trivet.parts.arrow import np
from trivet.parts.writer import gather
from trivet.retrieval import Fusion, Leg, LegScore, QueryLegs
from trivet.retrieval.fusion import fuse
from trivet.retrieval.scores import colbert_scores, dense_scores, sparse_scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: What the legs know of one query: leg → document id → score.
Lists: TypeAlias = Mapping[Leg, Mapping[str, LegScore]]


def ranked_by(leg: Leg, lists: Lists) -> list[str]:
    """Document ids in the leg's own order, best first."""
    ranks = {key: found.rank for key, found in lists.get(leg, {}).items() if found.rank is not None}
    return sorted(ranks, key=lambda key: ranks[key])


def fused(lists: Lists, fusion: Fusion) -> list[str]:
    """Document ids in fused order. Only legs with a weight bring documents in, as in a search."""
    used = {leg: listed for leg, listed in lists.items() if fusion.weight(leg)}
    brought = {key for listed in used.values() for key, found in listed.items() if found.rank is not None}
    kept = {leg: {key: found for key, found in listed.items() if key in brought} for leg, listed in used.items()}
    return [found.chunk_id for found in fuse(kept, fusion)]


def query_legs(encoder: TextEncoder, queries: Sequence[str]) -> list[QueryLegs]:
    """The queries' legs, in order."""
    found: list[QueryLegs] = []
    for block in encoder.blocks(queries, "query"):
        legs = block.legs
        for i in range(len(legs)):
            terms = slice(int(legs.sparse_offsets[i]), int(legs.sparse_offsets[i + 1]))
            tokens = slice(int(legs.colbert_offsets[i]), int(legs.colbert_offsets[i + 1]))
            found.append(
                QueryLegs(
                    encoder_key=encoder.identity.encoder_key,
                    dense=legs.dense[i],
                    sparse_ids=legs.sparse_ids[terms],
                    sparse_weights=legs.sparse_weights[terms],
                    colbert=legs.colbert[tokens].astype(np.float32),
                )
            )
    return found


@dataclass(slots=True)
class Scorer:
    """Scores one corpus for a set of queries."""

    queries: Sequence[QueryLegs]
    ids: Sequence[str]
    #: Documents that each leg lists.
    depth: int = 1000
    _order: NDArray[np.int64] = field(init=False)
    _best: list[dict[Leg, _Best]] = field(init=False)

    def __post_init__(self) -> None:
        self._order = np.argsort(np.argsort(np.array(self.ids, object))).astype(np.int64)
        self._best = [{leg: _Best() for leg in Leg} for _ in self.queries]

    def scan(self, blocks: Iterable[Block]) -> None:
        """Offer all documents to all legs."""
        for block in blocks:
            legs = _ready(block.legs)
            for query, best in zip(self.queries, self._best, strict=True):
                for leg, scores in _scores(query, legs).items():
                    # Without a shared term there is no match.
                    kept = np.flatnonzero(scores > 0) if leg == Leg.SPARSE else np.arange(len(scores))
                    best[leg].offer(scores[kept], block.first + kept, self._order, self.depth)
                    if self.depth >= len(self.ids):
                        rest = np.setdiff1d(np.arange(len(scores)), kept)
                        best[leg].know(block.first + rest, scores[rest])

    def complete(self, blocks: Iterable[Block]) -> None:
        """Score what one of dense and sparse lists by the other too; `blocks` are those of `scan`."""
        for block in blocks:
            legs = _ready(block.legs)
            last = block.first + len(legs)
            for query, best in zip(self.queries, self._best, strict=True):
                listed = np.unique(np.concatenate([found.documents for found in best.values()]))
                inside = listed[(listed >= block.first) & (listed < last)]
                for leg, scores in _scores(query, legs, only=inside - block.first).items():
                    best[leg].know(inside, scores)

    def rerank(self, encode: Callable[[Sequence[int]], Iterable[Block]], candidates: int) -> None:
        """MaxSim of the dense leg's best `candidates` alone; `encode` gives blocks of these documents."""
        wanted = [best[Leg.DENSE].documents[:candidates] for best in self._best]
        documents = np.unique(np.concatenate(wanted))
        for block in encode(documents.tolist()):
            legs = _ready(block.legs)
            inside = documents[block.first : block.first + len(legs)]
            for query, best, mine in zip(self.queries, self._best, wanted, strict=True):
                rows = np.flatnonzero(np.isin(inside, mine))
                if len(rows):
                    some = gather([(legs, int(row)) for row in rows])
                    scores = colbert_scores(query.colbert, some.colbert, some.colbert_offsets)
                    best[Leg.COLBERT].offer(scores, inside[rows], self._order, self.depth)

    def lists(self) -> list[dict[Leg, dict[str, LegScore]]]:
        """Per query what each leg knows."""
        return [{leg: found.listed(self.ids) for leg, found in best.items()} for best in self._best]


@dataclass(slots=True)
class _Best:
    """One leg's best documents of one query, best first, and scores of others."""

    scores: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    documents: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    others: dict[int, float] = field(default_factory=dict)

    def offer(
        self, scores: NDArray[np.float32], documents: NDArray[np.int64], order: NDArray[np.int64], depth: int
    ) -> None:
        scores, documents = np.concatenate([self.scores, scores]), np.concatenate([self.documents, documents])
        kept = np.lexsort((order[documents], -scores))[:depth]
        self.scores, self.documents = scores[kept], documents[kept]

    def know(self, documents: NDArray[np.int64], scores: NDArray[np.float32]) -> None:
        self.others |= zip(documents.tolist(), scores.tolist(), strict=True)

    def listed(self, ids: Sequence[str]) -> dict[str, LegScore]:
        found = {ids[document]: LegScore(score, None) for document, score in self.others.items()}
        ranked = zip(self.documents.tolist(), self.scores.tolist(), strict=True)
        return found | {ids[document]: LegScore(score, rank) for rank, (document, score) in enumerate(ranked, 1)}


def _ready(legs: Legs) -> Legs:
    return replace(legs, colbert=legs.colbert.astype(np.float32, copy=False))


def _scores(query: QueryLegs, legs: Legs, only: NDArray[np.int64] | None = None) -> dict[Leg, NDArray[np.float32]]:
    """[n] per leg; with `only`, of these rows and without ColBERT, which every document has or only its candidates."""
    if only is not None and not len(only):
        return {}
    terms = (legs.sparse_ids, legs.sparse_weights, legs.sparse_offsets)
    scores = {
        Leg.DENSE: dense_scores(query.dense, legs.dense),
        Leg.SPARSE: sparse_scores(query.sparse_ids, query.sparse_weights, *terms),
    }
    if only is not None:
        return {leg: found[only] for leg, found in scores.items()}
    if legs.colbert.shape[1]:
        scores[Leg.COLBERT] = colbert_scores(query.colbert, legs.colbert, legs.colbert_offsets)
    return scores
