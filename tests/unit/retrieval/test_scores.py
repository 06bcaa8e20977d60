"""The vectorised scores against loops that read like the formulas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trivet.errors import InvalidRequest
from trivet.retrieval import scores

Terms = dict[int, float]
F32 = NDArray[np.float32]


def flat(rows: Sequence[Terms]) -> tuple[NDArray[np.uint32], F32, NDArray[np.int64]]:
    ids = [i for row in rows for i in sorted(row)]
    weights = [row[i] for row in rows for i in sorted(row)]
    offsets = np.cumsum([0, *(len(row) for row in rows)])
    return np.array(ids, np.uint32), np.array(weights, np.float32), offsets.astype(np.int64)


def flag_lexical_score(query: Terms, chunk: Terms) -> float:
    """FlagEmbedding 1.4.2, M3Embedder.compute_lexical_matching_score."""
    total = 0.0
    for token, weight in query.items():
        if token in chunk:
            total += weight * chunk[token]
    return total


def flag_colbert_score(query: F32, chunk: F32) -> float:
    """FlagEmbedding 1.4.2, M3Embedder.colbert_score, in loops."""
    return sum(max(float(np.dot(q.astype(np.float64), d)) for d in chunk) for q in query) / len(query)


# Few distinct ids, so that terms are shared; the largest id of uint32 too.
ids = st.sampled_from([0, 1, 2, 3, 5, 8, 13, 250_001, 2**32 - 1])
terms = st.dictionaries(ids, st.floats(2**-10, 4, width=32), max_size=8)


@given(query=terms, rows=st.lists(terms, max_size=12))
def test_sparse_scores_are_the_sum_over_shared_ids(query: Terms, rows: list[Terms]) -> None:
    query_ids, query_weights, _ = flat([query])
    found = scores.sparse_scores(query_ids, query_weights, *flat(rows))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [flag_lexical_score(query, row) for row in rows], rtol=1e-5, atol=1e-7)


@given(
    seed=st.integers(0, 2**32 - 1),
    d=st.integers(1, 9),
    q=st.integers(1, 6),
    lengths=st.lists(st.integers(0, 7), max_size=12),
    block=st.integers(1, 10),
)
def test_colbert_scores_are_the_mean_over_query_vectors_of_the_best_match(
    seed: int, d: int, q: int, lengths: list[int], block: int
) -> None:
    rng = np.random.default_rng(seed)
    query = rng.standard_normal((q, d)).astype(np.float32)
    tokens = rng.standard_normal((sum(lengths), d)).astype(np.float16)
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "BLOCK_TOKENS", block)
        found = scores.colbert_scores(query, tokens, offsets)
    rows = [tokens[offsets[i] : offsets[i + 1]].astype(np.float32) for i in range(len(lengths))]
    expected = [flag_colbert_score(query, row) if len(row) else 0.0 for row in rows]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 20), d=st.integers(1, 70))
def test_dense_scores_are_dot_products_and_do_not_depend_on_the_other_rows(seed: int, n: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    query, rows = rng.standard_normal(d).astype(np.float32), rng.standard_normal((n, d)).astype(np.float32)
    found = scores.dense_scores(query, rows)
    np.testing.assert_allclose(found, [float(query.astype(np.float64) @ row) for row in rows], rtol=1e-4, atol=1e-4)
    alone = [float(scores.dense_scores(query, rows[i : i + 1])[0]) for i in range(n)]
    assert alone == found.tolist()


def test_a_query_of_other_dimensions_is_an_invalid_request() -> None:
    with pytest.raises(InvalidRequest, match="384 dimensions, the stored ones 1024"):
        scores.dense_scores(np.zeros(384, np.float32), np.zeros((2, 1024), np.float32))
    with pytest.raises(InvalidRequest, match="ColBERT"):
        scores.colbert_scores(np.zeros((3, 4), np.float32), np.zeros((2, 8), np.float16), np.array([0, 2]))
