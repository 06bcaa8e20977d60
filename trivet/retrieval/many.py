"""Several queries in one search, such as a question in other words or languages: one ranking each, fused by rank.

Ranks, since fused scores of different queries do not compare. Works with every retriever: it is asked once per query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trivet.errors import InvalidRequest
from trivet.retrieval import Hit, Leg, QueryLegs, Retriever, SearchRequest, SearchResult, SearchStats
from trivet.retrieval.extras import with_extras
from trivet.retrieval.paging import Scored, page

MOST_QUERIES = 16
#: RRF's constant, as Cormack, Clarke and Büttcher, SIGIR 2009, have it.
K = 60.0
#: `SearchRequest.top_k` takes no more.
_MOST_HITS = 1000


def search_many(
    retriever: Retriever,
    namespace: str,
    collection: str,
    queries: Sequence[QueryLegs],
    request: SearchRequest,
    weights: Sequence[float] = (),
) -> SearchResult:
    """Hits of all queries: score Σ weight / (60 + rank of the chunk for the query), ranks from 1; weights 1 if none.

    A hit has the legs' scores of the query that ranks it best, the first of equals, whose number is `Hit.query`. One
    query alone is searched as it is. Raises `InvalidRequest` for no or too many queries, weights that are not one per
    query and above zero, and `min_score`, which ranks cannot reach; and what `Retriever.search` raises.
    """
    if not 1 <= len(queries) <= MOST_QUERIES:
        raise InvalidRequest(f"{len(queries)} queries were given.", hint=f"Give 1 to {MOST_QUERIES}.")
    weights = weights or [1.0] * len(queries)
    if len(weights) != len(queries) or any(not 0 < weight < float("inf") for weight in weights):
        raise InvalidRequest("Weights of queries must be one per query, finite and above zero.")
    if len(queries) == 1:
        return retriever.search(namespace, collection, queries[0], request)
    if request.min_score is not None:
        raise InvalidRequest(
            "min_score means nothing for several queries: they are fused by rank.",
            hint="Use min_leg_scores, or search for one query at a time.",
        )
    whole = request.model_copy(
        update={
            "top_k": min(request.window, _MOST_HITS),
            "offset": 0,
            "group_size": None,
            "neighbours": 0,
            "section_tokens": None,
            "return_vectors": False,
        }
    )
    results = [retriever.search(namespace, collection, query, whole) for query in queries]
    found = page(_fused(results, weights), request, _scored)
    return SearchResult(with_extras(retriever, namespace, found.items, request), _stats(results), found.ranked)


def _fused(results: Sequence[SearchResult], weights: Sequence[float]) -> list[Hit]:
    scores: dict[str, float] = {}
    best: dict[str, tuple[int, Hit]] = {}
    for number, (result, weight) in enumerate(zip(results, weights, strict=True)):
        for rank, hit in enumerate(result.hits, 1):
            scores[hit.chunk_id] = scores.get(hit.chunk_id, 0.0) + weight / (K + rank)
            if hit.chunk_id not in best or rank < best[hit.chunk_id][0]:
                best[hit.chunk_id] = (rank, replace(hit, query=number))
    hits = (replace(hit, score=scores[key], shares={}) for key, (_, hit) in best.items())
    return sorted(hits, key=lambda hit: (-hit.score, hit.chunk_id))


def _scored(hit: Hit) -> Scored:
    legs = {Leg.DENSE: hit.dense, Leg.SPARSE: hit.sparse, Leg.COLBERT: hit.colbert}
    return Scored(hit.object_id, hit.score, {leg: score for leg, score in legs.items() if score})


def _stats(results: Sequence[SearchResult]) -> SearchStats:
    """What was looked at once, and the sum of what was done per query."""
    every = [result.stats for result in results]
    seconds: dict[str, float] = {}
    for stats in every:
        for step, spent in stats.seconds.items():
            seconds[step] = seconds.get(step, 0.0) + spent
    return replace(
        every[0],
        rows_reranked=sum(stats.rows_reranked for stats in every),
        bytes_read=sum(stats.bytes_read for stats in every),
        seconds=seconds,
        notes=tuple(dict.fromkeys(note for stats in every for note in stats.notes)),
    )
