"""Search in the index: candidates of both legs out of it, then the fusion and MaxSim of every retriever.

Only the process that owns the index has one of these; clients reach it by `trivet.retrieval.remote`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from trivet.clock import Clock, SystemClock
from trivet.index import Found, Index, QueryVector, Space, Where
from trivet.index.fields import COLUMNS, IDENTITY, metadata_of, newest
from trivet.index.marks import Marks, Selection
from trivet.parts.arrow import np
from trivet.retrieval import (
    Hit,
    Leg,
    LegScore,
    Passage,
    QueryLegs,
    SearchRequest,
    SearchResult,
    SearchStats,
    StoredVectors,
)
from trivet.retrieval.exact import ExactRetriever
from trivet.retrieval.extras import wants_extras, with_extras
from trivet.retrieval.paging import Scored, page
from trivet.retrieval.ranking import Block, Candidate, Ranked, Ranking, rerank_depth
from trivet.retrieval.scores import colbert_scores, fitted
from trivet.retrieval.stored import replaced
from trivet.stores import ObjectStore

#: What is asked for beyond the candidates, so that equal scores at the edge are seen.
_BEYOND = 16
_MOST = 20_000


class IndexRetriever:
    """`Retriever` over an open index. Safe to share between threads."""

    def __init__(
        self, index: Index, marks: Marks, store: ObjectStore, prefix: str, *, clock: Clock | None = None
    ) -> None:
        self._index = index
        self._marks = marks
        self._parts = ExactRetriever(store, prefix)
        self._clock = clock or SystemClock()

    def search(self, namespace: str, collection: str, query: QueryLegs, request: SearchRequest) -> SearchResult:
        """See `trivet.retrieval.Retriever.search`; dense candidates are those that HNSW finds."""
        chosen = self._marks.select(namespace, collection, query.encoder_key, request.filters)
        found = _Search(self._index, self._parts, (namespace, collection), query, request, chosen, self._clock).run()
        if not wants_extras(request):
            return found
        return replace(found, hits=with_extras(self, namespace, found.hits, request))

    def vectors(self, namespace: str, hits: Sequence[Hit]) -> tuple[StoredVectors, ...]:
        """See `trivet.retrieval.Retriever.vectors`: out of the parts, where they are as they were stored."""
        return self._parts.vectors(namespace, hits)

    def passages(
        self, namespace: str, collection: str, object_id: str, generation: int, first: int, last: int
    ) -> tuple[Passage, ...]:
        """See `trivet.retrieval.Retriever.passages`."""
        return self._parts.passages(namespace, collection, object_id, generation, first, last)


@dataclass(slots=True)
class _Search:
    """One search."""

    index: Index
    parts: ExactRetriever
    place: tuple[str, str]
    query: QueryLegs
    request: SearchRequest
    chosen: Selection
    clock: Clock
    spaces: list[Space] = field(default_factory=list)
    where: Where = field(default_factory=Where)
    #: Per space its candidates, in the order of their rows.
    found: list[list[Found]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    ranking: Ranking = field(init=False)

    def __post_init__(self) -> None:
        self.ranking = Ranking(self.request)

    def run(self) -> SearchResult:
        depth = rerank_depth(self.request)
        with self.index.turn():
            with self._step("list"):
                self._list()
                rows = self._rows()
            for number, space in enumerate(self.spaces):
                self._offer(number, space)
            with self._step("fusion"):
                kept = self.ranking.first_stage()[: depth or None]
            with self._step("rerank"):
                colbert = self._maxsim(kept) if depth else {}
        with self._step("rerank"):
            colbert |= self._maxsim_of_parts(kept) if depth else {}
        with self._step("fusion"):
            top = page(self.ranking.final(kept, colbert), self.request, self._scored)
        with self._step("load"):
            hits = self._load(top.items)
        self._note_missing_legs(kept, colbert, rows)
        return SearchResult(hits, self._stats(rows, len(colbert)), top.ranked)

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        begin = self.clock.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self.clock.monotonic() - begin

    # ------------------------------------------------------------ which points

    def _list(self) -> None:
        chosen, filters = self.chosen, self.request.filters
        named = (Space.named(*self.place, name) for name in chosen.spaces)
        self.spaces = [space for space in named if space is not None]
        self.where = Where(
            objects=chosen.ids,
            live=True,
            languages=filters.languages,
            pages=(filters.pages.first, filters.pages.last) if filters.pages else None,
            heading=filters.heading,
        )
        if chosen.other_model:
            self.notes.append(
                f"{chosen.other_model} of {chosen.objects} objects were embedded by another model than the "
                f"query ({', '.join(chosen.models)}) and were not searched; ingest them again to find them."
            )

    def _rows(self) -> int:
        where = self.where
        if not (where.languages or where.pages or where.heading):
            return self.chosen.rows
        return sum(self.index.count(space, where) for space in self.spaces)

    # ------------------------------------------------------------ dense and sparse

    def _offer(self, number: int, space: Space) -> None:
        """The best points of either leg, with the scores of both."""
        vectors = self._vectors(space)
        scores: dict[Leg, dict[str, float]] = {leg: {} for leg in vectors}
        found: dict[str, Found] = {}
        for leg, vector in vectors.items():
            if self.request.fusion.weight(leg):
                with self._step(leg):
                    best = self._nearest(space, vector)
                found |= {point.id: point for point in best}
                scores[leg] |= {point.id: point.score for point in best}
        rows = newest(found.values())
        for leg, vector in vectors.items():
            missing = [point.id for point in rows if point.id not in scores[leg]]
            with self._step(leg):
                scores[leg] |= self.index.scores(space, vector, missing)
        arrays = {
            # Without a term in common a point has no sparse score in the index: it is 0.
            leg: np.array([listed.get(point.id, np.nan if leg == Leg.DENSE else 0.0) for point in rows], np.float32)
            for leg, listed in scores.items()
        }
        block = Block(
            [point.payload["chunk_id"] for point in rows],
            np.arange(len(rows)),
            arrays.get(Leg.DENSE),
            arrays.get(Leg.SPARSE),
        )
        self.found.append(rows)
        self.ranking.offer(block, (number, 0))

    def _vectors(self, space: Space) -> dict[Leg, QueryVector]:
        query, vectors = self.query, {}
        if space.has(Leg.DENSE):
            vectors[Leg.DENSE] = QueryVector(Leg.DENSE, numbers=fitted(query.dense, space.dense, "dense"))
        if space.has(Leg.SPARSE):
            vectors[Leg.SPARSE] = QueryVector(Leg.SPARSE, terms=(query.sparse_ids, query.sparse_weights))
        return vectors

    def _nearest(self, space: Space, vector: QueryVector) -> list[Found]:
        """The candidates of a leg, with all that score as the last of them does: the ranking breaks ties by id."""
        limit = max(self.request.candidates, self.request.top_k)
        if vector.terms is not None and not len(vector.terms[0]):
            return []
        ask = limit + _BEYOND
        while True:
            found = self.index.nearest(space, vector, self.where, ask, IDENTITY)
            if len(found) < ask or found[-1].score < found[limit - 1].score or ask >= _MOST:
                return found
            ask = min(2 * ask, _MOST)

    # ------------------------------------------------------------ ColBERT

    def _maxsim(self, kept: Sequence[Candidate]) -> dict[str, float]:
        scores: dict[str, float] = {}
        for number, space in enumerate(self.spaces):
            if not space.has(Leg.COLBERT):
                continue
            points = {self._point(candidate).id: candidate for candidate in kept if candidate.place[0] == number}
            if not len(self.query.colbert):
                scores |= {candidate.chunk_id: 0.0 for candidate in points.values()}
                continue
            vector = QueryVector(Leg.COLBERT, numbers=fitted(self.query.colbert, space.colbert, "ColBERT"))
            found = self.index.scores(space, vector, list(points))
            scores |= {points[name].chunk_id: score for name, score in found.items()}
        return scores

    def _maxsim_of_parts(self, kept: Sequence[Candidate]) -> dict[str, float]:
        """Of chunks whose vectors are too many for the index."""
        far = [candidate for candidate in kept if self._point(candidate).payload.get("parts_only")]
        if not far or not len(self.query.colbert):
            return {}
        payloads, scores = self._payloads(far), {}
        hits = [self._hit(Ranked(each, 0.0, {Leg.COLBERT: LegScore(0.0, None)}, {}), payloads) for each in far]
        for hit, stored in zip(hits, self.parts.vectors(self.place[0], hits), strict=True):
            if stored.colbert is not None:
                ends = np.array([0, len(stored.colbert)])
                scores[hit.chunk_id] = float(colbert_scores(self.query.colbert, stored.colbert, ends)[0])
        return scores

    # ------------------------------------------------------------ the hits

    def _point(self, candidate: Candidate) -> Found:
        space, _, row = candidate.place
        return self.found[space][row]

    def _scored(self, ranked: Ranked) -> Scored:
        return Scored(self._point(ranked.candidate).payload["object_id"], ranked.score, ranked.legs)

    def _payloads(self, candidates: Sequence[Candidate]) -> dict[str, dict[str, Any]]:
        payloads: dict[str, dict[str, Any]] = {}
        for number, space in enumerate(self.spaces):
            ids = [self._point(candidate).id for candidate in candidates if candidate.place[0] == number]
            payloads |= self.index.payloads(space, ids)
        return payloads

    def _load(self, top: Sequence[Ranked]) -> tuple[Hit, ...]:
        payloads = self._payloads([ranked.candidate for ranked in top])
        return tuple(self._hit(ranked, payloads) for ranked in top)

    def _hit(self, ranked: Ranked, payloads: Mapping[str, Mapping[str, Any]]) -> Hit:
        point, legs = self._point(ranked.candidate), ranked.legs
        stored = payloads.get(point.id)
        if stored is None:
            raise replaced(point.payload["object_id"], point.payload["generation"])
        values: dict[str, Any] = {name: stored.get(name) for name in COLUMNS}
        values["heading_path"] = tuple(stored["heading_path"])
        return Hit(
            object_id=stored["object_id"],
            collection=self.place[1],
            generation=stored["generation"],
            source_url=stored["source_url"],
            metadata=metadata_of(stored),
            committed_at=stored["committed_at"],
            score=ranked.score,
            shares=ranked.shares,
            dense=legs.get(Leg.DENSE),
            sparse=legs.get(Leg.SPARSE),
            colbert=legs.get(Leg.COLBERT),
            **values,
        )

    # ------------------------------------------------------------ what is said about it

    def _note_missing_legs(self, kept: Sequence[Candidate], colbert: Mapping[str, float], rows: int) -> None:
        if rows:
            self.notes += [
                f"The {leg} leg is not stored in this collection and was left out."
                for leg in (Leg.DENSE, Leg.SPARSE)
                if (self.request.fusion.weight(leg) or leg in self.request.min_leg_scores)
                and not any(space.has(leg) for space in self.spaces)
            ]
        if self.request.reranks and kept and not colbert:
            self.notes.append("The colbert leg is not stored in this collection: hits were not reranked by MaxSim.")
        elif self.request.reranks and len(colbert) < len(kept):
            self.notes.append(f"{len(kept) - len(colbert)} of {len(kept)} candidates have no stored ColBERT vectors.")

    def _stats(self, rows: int, reranked: int) -> SearchStats:
        chosen = self.chosen
        return SearchStats(
            objects=chosen.objects,
            objects_searched=chosen.searched,
            objects_other_model=chosen.other_model,
            rows=rows,
            rows_filtered=chosen.rows_filtered + chosen.rows - rows,
            rows_reranked=reranked,
            seconds=self.seconds,
            notes=tuple(self.notes),
        )
