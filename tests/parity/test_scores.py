"""Scores are those of FlagEmbedding's own functions on the same vectors: its code is called, not written off."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.retrieval.world import World, model, random_legs, random_query, some
from trivet.encoder.reference import flag_class
from trivet.retrieval import QueryLegs, Retriever, SearchRequest
from trivet.retrieval.exact import ExactRetriever
from trivet.retrieval.scores import colbert_scores, sparse_scores

TOLERANCE = 1e-5


def flag_sparse(ids: Any, weights: Any, other_ids: Any, other_weights: Any) -> float:
    """Its keys are texts of token ids."""
    query, chunk = (
        {str(token): float(weight) for token, weight in zip(found.tolist(), given.tolist(), strict=True)}
        for found, given in ((ids, weights), (other_ids, other_weights))
    )
    return float(flag_class().compute_lexical_matching_score(None, query, chunk))


def flag_colbert(query: Any, chunk: Any) -> float:
    return float(flag_class().colbert_score(None, query, np.ascontiguousarray(chunk, np.float32)))


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 12),
    tokens=st.integers(1, 60),
    asked=st.integers(1, 40),
    d=st.sampled_from([1, 64, 1024]),
)
def test_both_scores_of_any_vectors_are_flag_embeddings(seed: int, n: int, tokens: int, asked: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    legs, query = random_legs(rng, n, tokens=tokens, d=d), random_query(rng, tokens=asked, d=d)
    sparse = sparse_scores(
        query.sparse_ids, query.sparse_weights, legs.sparse_ids, legs.sparse_weights, legs.sparse_offsets
    )
    colbert = colbert_scores(query.colbert, legs.colbert, legs.colbert_offsets)
    for i in range(n):
        row = some(legs, i, i + 1)
        expected = flag_sparse(query.sparse_ids, query.sparse_weights, row.sparse_ids, row.sparse_weights)
        assert sparse[i] == pytest.approx(expected, abs=TOLERANCE)
        assert colbert[i] == pytest.approx(flag_colbert(query.colbert, row.colbert), abs=TOLERANCE)


@pytest.mark.parametrize("name", ["exact", "memory"])
def test_the_scores_of_hits_are_flag_embeddings_of_the_stored_vectors(name: str) -> None:
    rng = np.random.default_rng(5)
    world, d = World(), 1024
    identity = model().model_copy(update={"dimensions": d, "colbert_dimensions": d})
    world.commit("a", random_legs(rng, 50, tokens=80, d=d), identity=identity, parts=3)
    query: QueryLegs = random_query(rng, tokens=24, d=d)
    retriever: Retriever = world.memory if name == "memory" else ExactRetriever(world.store, world.prefix)
    result = retriever.search("default", "docs", query, SearchRequest(top_k=50, return_vectors=True))
    assert len(result.hits) == 50
    for hit in result.hits:
        assert hit.vectors is not None
        assert hit.vectors.sparse is not None
        assert hit.sparse is not None
        assert hit.colbert is not None
        expected = flag_sparse(query.sparse_ids, query.sparse_weights, *hit.vectors.sparse)
        assert hit.sparse.score == pytest.approx(expected, abs=TOLERANCE)
        assert hit.colbert.score == pytest.approx(flag_colbert(query.colbert, hit.vectors.colbert), abs=TOLERANCE)
