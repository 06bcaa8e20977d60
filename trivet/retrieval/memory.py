"""The twin of exact search: rows in lists, every leg sorted in full, nothing streamed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from trivet.encoder import Legs
from trivet.parts.arrow import np
from trivet.parts.outputs import dequantise, quantise, shaped
from trivet.retrieval import (
    Filters,
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
from trivet.retrieval.extras import with_extras
from trivet.retrieval.filters import chunk_matches, object_matches
from trivet.retrieval.fusion import Fused, fuse
from trivet.retrieval.paging import Scored, page
from trivet.retrieval.ranking import rerank_depth
from trivet.retrieval.scores import colbert_scores, dense_scores, sparse_scores
from trivet.retrieval.stored import replaced
from trivet.values import Chunk, Manifest, Outputs

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class _Generation:
    manifest: Manifest
    encoder_key: str
    chunks: tuple[Chunk, ...]
    legs: Legs
    outputs: Outputs


@dataclass(frozen=True, slots=True)
class _Row:
    generation: _Generation
    #: Number of the row in its generation.
    index: int
    #: Of the legs that are stored.
    scores: dict[Leg, float]

    @property
    def chunk(self) -> Chunk:
        return self.generation.chunks[self.index]


class MemoryRetriever:
    """`Retriever` over what was added in this process. Not thread-safe."""

    def __init__(self) -> None:
        self._visible: dict[tuple[str, str, str], _Generation] = {}

    def add(
        self, manifest: Manifest, encoder_key: str, chunks: Sequence[Chunk], legs: Legs, outputs: Outputs | None = None
    ) -> None:
        """Make a generation visible, unless a higher one is; a tombstone hides its object.

        `legs` are as an encoder gives them, `outputs` what its collection stores of them.
        """
        key = (manifest.namespace, manifest.collection, manifest.object_id)
        held = self._visible.get(key)
        if held is None or held.manifest.generation < manifest.generation:
            outputs = outputs or Outputs()
            self._visible[key] = _Generation(manifest, encoder_key, tuple(chunks), shaped(legs, outputs), outputs)

    def search(self, namespace: str, collection: str, query: QueryLegs, request: SearchRequest) -> SearchResult:
        """See `trivet.retrieval.Retriever.search`."""
        filters = request.filters
        visible = [
            generation
            for (ns, name, object_id), generation in sorted(self._visible.items())
            if (ns, name) == (namespace, collection) and not generation.manifest.tombstone
            if filters.object_ids is None or object_id in filters.object_ids
        ]
        matching = [generation for generation in visible if object_matches(generation.manifest, filters)]
        searched = [generation for generation in matching if generation.encoder_key == query.encoder_key]
        rows = {row.chunk.chunk_id: row for generation in searched for row in _rows(generation, query, filters)}
        scores = {
            leg: {key: LegScore(row.scores[leg], None) for key, row in rows.items() if leg in row.scores} for leg in Leg
        }
        ranking, reranked = _rank(scores, request)

        def scored(one: tuple[Fused, dict[Leg, LegScore]]) -> Scored:
            return Scored(rows[one[0].chunk_id].generation.manifest.object_id, one[0].score, one[1])

        found = page(ranking, request, scored)
        hits = tuple(_hit(rows[fused.chunk_id], fused, legs) for fused, legs in found.items)
        others = len(matching) - len(searched)
        return SearchResult(
            with_extras(self, namespace, hits, request),
            SearchStats(
                objects=len(visible),
                objects_searched=len(searched),
                objects_other_model=others,
                parts=sum(len(generation.manifest.parts) for generation in searched),
                rows=len(rows),
                rows_filtered=sum(len(g.chunks) for g in visible if g not in matching)
                + sum(len(g.chunks) for g in searched)
                - len(rows),
                rows_reranked=reranked,
                notes=(f"{others} of {len(visible)} objects were embedded by another model.",) if others else (),
            ),
            found.ranked,
        )

    def vectors(self, namespace: str, hits: Sequence[Hit]) -> tuple[StoredVectors, ...]:
        """See `trivet.retrieval.Retriever.vectors`."""
        return tuple(
            _vectors(self._held(namespace, hit.collection, hit.object_id, hit.generation), hit) for hit in hits
        )

    def passages(
        self, namespace: str, collection: str, object_id: str, generation: int, first: int, last: int
    ) -> tuple[Passage, ...]:
        """See `trivet.retrieval.Retriever.passages`."""
        chunks = self._held(namespace, collection, object_id, generation).chunks
        names = [found.name for found in fields(Passage)]
        return tuple(
            Passage(**{name: getattr(chunk, name) for name in names})
            for chunk in chunks
            if first <= chunk.ordinal <= last
        )

    def _held(self, namespace: str, collection: str, object_id: str, generation: int) -> _Generation:
        found = self._visible.get((namespace, collection, object_id))
        if found is None or found.manifest.generation != generation:
            raise replaced(object_id, generation)
        return found


def _stored_colbert(generation: _Generation) -> NDArray[Any]:
    vectors = generation.legs.colbert
    return dequantise(*quantise(vectors)) if generation.outputs.colbert == "int8" else vectors.astype(np.float16)


def _vectors(generation: _Generation, hit: Hit) -> StoredVectors:
    legs, outputs = generation.legs, generation.outputs
    i = [chunk.chunk_id for chunk in generation.chunks].index(hit.chunk_id)
    terms = slice(legs.sparse_offsets[i], legs.sparse_offsets[i + 1])
    tokens = slice(legs.colbert_offsets[i], legs.colbert_offsets[i + 1])
    return StoredVectors(
        sparse=(legs.sparse_ids[terms], legs.sparse_weights[terms]) if outputs.sparse else None,
        colbert=_stored_colbert(generation)[tokens] if hit.colbert else None,
        colbert_pooling=outputs.colbert_pooling,
        dense=legs.dense[i] if outputs.dense else None,
    )


def _rows(generation: _Generation, query: QueryLegs, filters: Filters) -> Iterator[_Row]:
    legs, outputs = generation.legs, generation.outputs
    found = {}
    if outputs.dense:
        found[Leg.DENSE] = dense_scores(query.dense, legs.dense)
    if outputs.sparse:
        terms = (legs.sparse_ids, legs.sparse_weights, legs.sparse_offsets)
        found[Leg.SPARSE] = sparse_scores(query.sparse_ids, query.sparse_weights, *terms)
    if outputs.colbert != "off":
        found[Leg.COLBERT] = colbert_scores(query.colbert, _stored_colbert(generation), legs.colbert_offsets)
    for i, chunk in enumerate(generation.chunks):
        if chunk_matches(chunk, filters):
            yield _Row(generation, i, {leg: float(scores[i]) for leg, scores in found.items()})


def _rank(
    scores: dict[Leg, dict[str, LegScore]], request: SearchRequest
) -> tuple[list[tuple[Fused, dict[Leg, LegScore]]], int]:
    """The whole ranking with fused and leg scores, and how many candidates have a MaxSim score."""
    limit = max(request.candidates, request.top_k)
    candidates: set[str] = set()
    for leg in (Leg.DENSE, Leg.SPARSE):
        if request.fusion.weight(leg):
            best = [key for key in _order(scores[leg]) if leg == Leg.DENSE or scores[leg][key].score > 0][:limit]
            candidates |= set(best)
            scores[leg] |= {key: LegScore(scores[leg][key].score, rank) for rank, key in enumerate(best, 1)}
    first = {
        leg: {key: scores[leg][key] for key in candidates if key in scores[leg]} for leg in (Leg.DENSE, Leg.SPARSE)
    }
    ordered = [found.chunk_id for found in fuse(first, request.fusion)]
    depth = rerank_depth(request)
    kept = set(ordered[:depth] if depth else ordered)
    last = {leg: {key: found for key, found in listed.items() if key in kept} for leg, listed in first.items()}
    if depth:
        maxsim = {key: scores[Leg.COLBERT][key] for key in kept if key in scores[Leg.COLBERT]}
        last[Leg.COLBERT] = {key: LegScore(maxsim[key].score, rank) for rank, key in enumerate(_order(maxsim), 1)}
    fused = fuse(last, request.final_fusion if last.get(Leg.COLBERT) else request.fusion, kept)
    ranking = [
        (found, {leg: listed[found.chunk_id] for leg, listed in last.items() if found.chunk_id in listed})
        for found in fused
    ]
    return ranking, len(last.get(Leg.COLBERT, {}))


def _order(listed: dict[str, LegScore]) -> list[str]:
    return sorted(listed, key=lambda key: (-listed[key].score, key))


def _hit(row: _Row, fused: Fused, legs: dict[Leg, LegScore]) -> Hit:
    chunk, manifest = row.chunk, row.generation.manifest
    return Hit(
        chunk_id=chunk.chunk_id,
        object_id=manifest.object_id,
        collection=manifest.collection,
        generation=manifest.generation,
        ordinal=chunk.ordinal,
        text=chunk.text,
        context=chunk.context,
        heading_path=chunk.heading_path,
        page_start=chunk.page_start,
        page_end=chunk.page_end,
        char_start=chunk.char_start,
        char_end=chunk.char_end,
        language=chunk.language,
        token_count=chunk.token_count,
        source_url=manifest.source_url,
        metadata=dict(manifest.metadata),
        committed_at=manifest.created_at,
        score=fused.score,
        shares=fused.shares,
        dense=legs.get(Leg.DENSE),
        sparse=legs.get(Leg.SPARSE),
        colbert=legs.get(Leg.COLBERT),
    )
