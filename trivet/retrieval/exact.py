"""Exact search over the committed parts of a collection, with no index: every row is scored.

Two passes. The first streams the dense and sparse columns of all visible parts and keeps the best candidates of each
leg; the second reads ColBERT vectors of the row groups that hold the best of these, and the last texts of the hits.
Memory is bounded by threads and candidates, not by the collection.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from trivet.clock import Clock, SystemClock
from trivet.parts.arrow import np
from trivet.parts.reader import RowGroup
from trivet.retrieval import Hit, Leg, Passage, QueryLegs, SearchRequest, SearchResult, SearchStats, StoredVectors
from trivet.retrieval.extras import wants_extras, with_extras
from trivet.retrieval.filters import filter_columns, object_matches, row_matches
from trivet.retrieval.paging import Scored, page
from trivet.retrieval.ranking import Block, Candidate, Ranked, Ranking, by_row_group, rerank_depth
from trivet.retrieval.rows import PartRows, open_part
from trivet.retrieval.scores import colbert_scores, dense_scores, sparse_scores
from trivet.retrieval.stored import stored_passages, stored_vectors
from trivet.retrieval.visible import in_order, visible_objects
from trivet.settings import Settings
from trivet.stores import ObjectStore, open_store
from trivet.stores.layout import Layout
from trivet.values import Manifest, Part

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TEXT_COLUMNS = (
    "ordinal",
    "text",
    "context",
    "heading_path",
    "page_start",
    "page_end",
    "char_start",
    "char_end",
    "language",
    "token_count",
)


class ExactRetriever:
    """`Retriever` that reads the parts themselves. Safe to share between threads."""

    def __init__(self, store: ObjectStore, prefix: str, *, threads: int = 8, clock: Clock | None = None) -> None:
        self._store = store
        self._prefix = prefix.strip("/")
        self._threads = threads
        self._clock = clock or SystemClock()

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Over the store that the settings name."""
        return cls(open_store(settings), settings.s3_prefix, threads=settings.io_threads)

    def search(self, namespace: str, collection: str, query: QueryLegs, request: SearchRequest) -> SearchResult:
        """See `trivet.retrieval.Retriever.search`."""
        layout = Layout(self._prefix, namespace, collection)
        with ThreadPoolExecutor(self._threads, thread_name_prefix="search") as pool:
            search = _Search(self._store, layout, query, request, pool, 2 * self._threads, self._clock)
            result = search.run()
        if not wants_extras(request):
            return result
        begin = self._clock.monotonic()
        hits = with_extras(self, namespace, result.hits, request)
        seconds = {**result.stats.seconds, "extras": self._clock.monotonic() - begin}
        return replace(result, hits=hits, stats=replace(result.stats, seconds=seconds))

    def vectors(self, namespace: str, hits: Sequence[Hit]) -> tuple[StoredVectors, ...]:
        """See `trivet.retrieval.Retriever.vectors`."""
        with ThreadPoolExecutor(self._threads, thread_name_prefix="explain") as pool:
            return stored_vectors(self._store, self._prefix, namespace, hits, pool, 2 * self._threads)

    def passages(
        self, namespace: str, collection: str, object_id: str, generation: int, first: int, last: int
    ) -> tuple[Passage, ...]:
        """See `trivet.retrieval.Retriever.passages`."""
        layout = Layout(self._prefix, namespace, collection)
        return stored_passages(self._store, layout, object_id, generation, first, last)


@dataclass(slots=True)
class _Counts:
    """What becomes `SearchStats`."""

    objects: int = 0
    objects_searched: int = 0
    objects_other_model: int = 0
    row_groups: int = 0
    rows: int = 0
    rows_filtered: int = 0
    rows_reranked: int = 0
    bytes_read: int = 0


@dataclass(slots=True)
class _Search:
    """One search; lives as long as its pool."""

    store: ObjectStore
    layout: Layout
    query: QueryLegs
    request: SearchRequest
    pool: Executor
    window: int
    clock: Clock
    targets: list[tuple[Manifest, Part]] = field(default_factory=list)
    counts: _Counts = field(default_factory=_Counts)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    stored: set[Leg] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    ranking: Ranking = field(init=False)

    def __post_init__(self) -> None:
        self.ranking = Ranking(self.request)

    def run(self) -> SearchResult:
        with self._step("list"):
            self._list()
        with self._step("scan"):
            for _ in in_order(self.pool, self._scan, range(len(self.targets)), self.window):
                pass
            first = self.ranking.first_stage()
        with self._step("rerank"):
            depth = rerank_depth(self.request)
            kept = first[:depth] if depth else first
            colbert = self._maxsim(kept) if depth else {}
            top = page(self.ranking.final(kept, colbert), self.request, self._scored)
        with self._step("load"):
            hits = self._load(top.items)
        self._note_missing_legs(kept, colbert, bool(depth))
        return SearchResult(hits, self._stats(), top.ranked)

    def _scored(self, ranked: Ranked) -> Scored:
        manifest, _ = self.targets[ranked.candidate.place[0]]
        return Scored(manifest.object_id, ranked.score, ranked.legs)

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        begin = self.clock.monotonic()
        yield
        self.seconds[name] = self.clock.monotonic() - begin

    # ------------------------------------------------------------ which parts

    def _list(self) -> None:
        counts, filters, others = self.counts, self.request.filters, set()
        for found in visible_objects(self.store, self.layout, self.pool, filters.object_ids):
            counts.objects += 1
            if not object_matches(found.manifest, filters):
                counts.rows_filtered += sum(part.rows for part in found.manifest.parts)
            elif found.encoder_key != self.query.encoder_key:
                counts.objects_other_model += 1
                others.add(found.model)
            else:
                counts.objects_searched += 1
                self.targets += [(found.manifest, part) for part in found.manifest.parts]
        if counts.objects_other_model:
            self.notes.append(
                f"{counts.objects_other_model} of {counts.objects} objects were embedded by another model than the "
                f"query ({', '.join(sorted(others))}) and were not searched; ingest them again to find them."
            )

    # ------------------------------------------------------------ dense and sparse, all rows

    def _scan(self, target: int) -> None:
        manifest, part = self.targets[target]
        columns = ["chunk_id", "dense", "sparse_ids", "sparse_weights", *filter_columns(self.request.filters)]
        with open_part(self.store, manifest.object_id, part) as rows:
            for group in range(rows.row_groups):
                for first, batch in rows.batches(group, columns):
                    self._score(batch, first, (target, group))
            self._count_read(rows, groups=rows.row_groups)

    def _score(self, batch: RowGroup, first: int, place: tuple[int, int]) -> None:
        keep = np.flatnonzero(row_matches(batch, self.request.filters))
        query, legs = self.query, batch.legs()
        dense = sparse = None
        if _stored(batch, "dense"):
            dense = dense_scores(query.dense, legs.dense)[keep]
        if _stored(batch, "sparse_ids"):
            terms = (legs.sparse_ids, legs.sparse_weights, legs.sparse_offsets)
            sparse = sparse_scores(query.sparse_ids, query.sparse_weights, *terms)[keep]
        ids = batch.table.column("chunk_id").take(keep).to_pylist()
        with self.lock:
            self.counts.rows += len(keep)
            self.counts.rows_filtered += len(batch) - len(keep)
            self.stored |= {leg for leg, found in ((Leg.DENSE, dense), (Leg.SPARSE, sparse)) if found is not None}
            self.ranking.offer(Block(ids, keep + first, dense, sparse), place)

    # ------------------------------------------------------------ ColBERT, the best candidates

    def _maxsim(self, kept: Sequence[Candidate]) -> dict[str, float]:
        groups = by_row_group(kept, lambda candidate: candidate)
        scores: dict[str, float] = {}
        for part in in_order(self.pool, self._maxsim_group, groups.items(), self.window):
            scores |= part
        self.counts.rows_reranked = len(scores)
        return scores

    def _maxsim_group(self, group: tuple[tuple[int, int], list[Candidate]]) -> dict[str, float]:
        (target, row_group), candidates = group
        manifest, part = self.targets[target]
        wanted = {candidate.place[2]: candidate.chunk_id for candidate in candidates}
        scores: dict[str, float] = {}
        with open_part(self.store, manifest.object_id, part) as rows:
            for first, batch in rows.batches(row_group, ["colbert"], rows=16):
                here = [row for row in range(first, first + len(batch)) if row in wanted]
                vectors = [found for row in here if (found := batch.colbert(row - first)) is not None]
                if vectors:  # a leg is stored for all rows of a part, or for none
                    ends = np.cumsum([0, *(len(found) for found in vectors)])
                    tokens: NDArray[Any] = np.concatenate(vectors)
                    best = colbert_scores(self.query.colbert, tokens, ends)
                    scores |= zip((wanted[row] for row in here), best.tolist(), strict=True)
                if first + len(batch) > max(wanted):
                    break
            self._count_read(rows)
        return scores

    # ------------------------------------------------------------ texts, the hits

    def _load(self, top: Sequence[Ranked]) -> tuple[Hit, ...]:
        groups = by_row_group(top, lambda ranked: ranked.candidate)
        loaded: dict[str, Hit] = {}
        for part in in_order(self.pool, self._load_group, groups.items(), self.window):
            loaded |= part
        return tuple(loaded[ranked.candidate.chunk_id] for ranked in top)

    def _load_group(self, group: tuple[tuple[int, int], list[Ranked]]) -> dict[str, Hit]:
        (target, row_group), wanted = group
        manifest, part = self.targets[target]
        by_row = {ranked.candidate.place[2]: ranked for ranked in wanted}
        hits: dict[str, Hit] = {}
        with open_part(self.store, manifest.object_id, part) as rows:
            for first, batch in rows.batches(row_group, _TEXT_COLUMNS):
                for row in range(first, first + len(batch)):
                    if row in by_row:
                        hit = self._hit(manifest, by_row[row], batch, row - first)
                        hits[hit.chunk_id] = hit
            self._count_read(rows)
        return hits

    def _hit(self, manifest: Manifest, ranked: Ranked, batch: RowGroup, row: int) -> Hit:
        values: dict[str, Any] = batch.table.select(list(_TEXT_COLUMNS)).slice(row, 1).to_pylist()[0]
        return Hit(
            chunk_id=ranked.candidate.chunk_id,
            object_id=manifest.object_id,
            collection=manifest.collection,
            generation=manifest.generation,
            heading_path=tuple(values.pop("heading_path")),
            source_url=manifest.source_url,
            metadata=dict(manifest.metadata),
            committed_at=manifest.created_at,
            score=ranked.score,
            shares=ranked.shares,
            dense=ranked.legs.get(Leg.DENSE),
            sparse=ranked.legs.get(Leg.SPARSE),
            colbert=ranked.legs.get(Leg.COLBERT),
            **values,
        )

    # ------------------------------------------------------------ what is said about it

    def _count_read(self, rows: PartRows, groups: int = 0) -> None:
        with self.lock:
            self.counts.bytes_read += rows.bytes_read
            self.counts.row_groups += groups

    def _note_missing_legs(self, kept: Sequence[Candidate], colbert: Mapping[str, float], reranked: bool) -> None:
        if self.counts.rows:
            self.notes += [
                f"The {leg} leg is not stored in this collection and was left out."
                for leg in (Leg.DENSE, Leg.SPARSE)
                if leg not in self.stored and (self.request.fusion.weight(leg) or leg in self.request.min_leg_scores)
            ]
        if reranked and kept and not colbert:
            self.notes.append("The colbert leg is not stored in this collection: hits were not reranked by MaxSim.")
        elif reranked and len(colbert) < len(kept):
            self.notes.append(f"{len(kept) - len(colbert)} of {len(kept)} candidates have no stored ColBERT vectors.")

    def _stats(self) -> SearchStats:
        counts = {name: getattr(self.counts, name) for name in _Counts.__slots__}
        return SearchStats(parts=len(self.targets), seconds=self.seconds, notes=tuple(self.notes), **counts)


def _stored(batch: RowGroup, column: str) -> bool:
    """A leg that is off is null in every row."""
    return bool(batch.table.column(column).null_count == 0)
