"""The first stage keeps the best of each leg, whatever the order and size of the blocks."""

from __future__ import annotations

import random as stdlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trivet.retrieval import Leg, SearchRequest
from trivet.retrieval.ranking import Best, Block, Made, Ranking, rerank_depth

scores = st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=60)


def blocks(values: list[float], size: int) -> list[Block]:
    return [
        Block(
            [f"c{j:03}" for j in range(i, min(i + size, len(values)))],
            np.arange(min(size, len(values) - i)),
            np.array(values[i : i + size], np.float32),
            None,
        )
        for i in range(0, len(values), size)
    ]


@given(scores, st.integers(1, 10), st.integers(1, 20), st.integers(0, 2**16))
def test_best_keeps_the_highest_scores_with_ties_by_id_in_any_order(
    values: list[float], limit: int, size: int, seed: int
) -> None:
    best = Best(limit)
    shown = blocks(values, size)
    stdlib.Random(seed).shuffle(shown)
    for block in shown:
        assert block.dense is not None
        best.offer(block.dense, Made(block, (0, 0)))
        assert len(best._held) <= 4 * limit
    expected = sorted(((-value, f"c{i:03}") for i, value in enumerate(values)))[:limit]
    assert [candidate.chunk_id for candidate in best.ranked()] == [key for _, key in expected]


def test_scores_that_are_no_numbers_are_never_candidates() -> None:
    block = Block(["a", "b", "c"], np.arange(3), np.array([np.nan, 0.5, np.inf], np.float32), None)
    ranking = Ranking(SearchRequest())
    ranking.offer(block, (0, 0))
    assert [candidate.chunk_id for candidate in ranking.first_stage()] == ["b"]


def test_a_chunk_brought_in_by_one_leg_keeps_its_score_in_the_other_without_a_rank() -> None:
    dense, sparse = np.array([0.9, 0.1], np.float32), np.array([0.0, 3.0], np.float32)
    ranking = Ranking(SearchRequest(top_k=1, candidates=1, rerank=False))
    ranking.offer(Block(["a", "b"], np.arange(2), dense, sparse), (0, 0))
    ranking.first_stage()
    kept = ranking.first_stage()
    legs = {ranked.candidate.chunk_id: ranked.legs for ranked in ranking.final(kept, {})}
    assert set(legs) == {"a", "b"}
    for found in legs.values():
        assert {found[Leg.DENSE].rank, found[Leg.SPARSE].rank} == {1, None}


def test_rerank_depth_is_never_less_than_what_is_returned() -> None:
    assert rerank_depth(SearchRequest(top_k=100, rerank_candidates=10)) == 100
    assert rerank_depth(SearchRequest(top_k=5, rerank_candidates=10)) == 10
    assert rerank_depth(SearchRequest(rerank=False)) == 0
    assert rerank_depth(SearchRequest.model_validate({"fusion": {"weights": {"dense": 1}}})) == 0
