from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.unit.retrieval.world import random_legs, random_query
from trivet.encoder import Legs
from trivet.evaluation.encoding import Block
from trivet.evaluation.lists import Scorer, ranked_by
from trivet.parts.writer import gather
from trivet.retrieval import Leg
from trivet.retrieval.scores import colbert_scores, dense_scores, sparse_scores

DOCUMENTS = 60


def blocks(legs: Legs, size: int, rows: Sequence[int] | None = None) -> list[Block]:
    some = list(range(len(legs))) if rows is None else list(rows)
    return [
        Block(first, gather([(legs, i) for i in some[first : first + size]]), 0) for first in range(0, len(some), size)
    ]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_lists_hold_the_exact_scores_of_every_document_in_order(rng: np.random.Generator) -> None:
    legs, queries = random_legs(rng, DOCUMENTS), [random_query(rng) for _ in range(3)]
    ids = [f"d{i:02}" for i in rng.permutation(DOCUMENTS)]
    scorer = Scorer(queries, ids)
    scorer.scan(blocks(legs, 17))
    for query, lists in zip(queries, scorer.lists(), strict=True):
        exact = {
            Leg.DENSE: dense_scores(query.dense, legs.dense),
            Leg.SPARSE: sparse_scores(
                query.sparse_ids, query.sparse_weights, legs.sparse_ids, legs.sparse_weights, legs.sparse_offsets
            ),
            Leg.COLBERT: colbert_scores(query.colbert, legs.colbert.astype(np.float32), legs.colbert_offsets),
        }
        for leg, scores in exact.items():
            assert {key: found.score for key, found in lists[leg].items()} == pytest.approx(
                dict(zip(ids, scores.tolist(), strict=True)), abs=1e-6
            )
            matched = [i for i in range(DOCUMENTS) if leg != Leg.SPARSE or scores[i] > 0]
            by_score = [lists[leg][key].score for key in ranked_by(leg, lists)]
            assert len(by_score) == len(matched)
            assert by_score == sorted(by_score, reverse=True)


def test_a_shallow_list_is_the_beginning_of_the_whole_one_and_other_legs_finds_get_their_score(
    rng: np.random.Generator,
) -> None:
    legs, query = random_legs(rng, DOCUMENTS), random_query(rng)
    ids = [f"d{i:02}" for i in range(DOCUMENTS)]
    whole, shallow = Scorer([query], ids), Scorer([query], ids, depth=5)
    whole.scan(blocks(legs, 60))
    shallow.scan(blocks(legs, 7))
    shallow.complete(blocks(legs, 7))
    (full,), (short,) = whole.lists(), shallow.lists()
    for leg in Leg:
        assert ranked_by(leg, short) == ranked_by(leg, full)[:5]
    listed = {key for leg in Leg for key in ranked_by(leg, short)}
    for leg in (Leg.DENSE, Leg.SPARSE):
        assert set(short[leg]) == listed
        assert all(found.score == pytest.approx(full[leg][key].score) for key, found in short[leg].items())


def test_equal_scores_are_in_order_of_id_wherever_blocks_end(rng: np.random.Generator) -> None:
    one, query = random_legs(rng, 1), random_query(rng)
    legs = gather([(one, 0)] * 9)
    for size in (1, 4, 9):
        scorer = Scorer([query], list("ihgfedcba"))
        scorer.scan(blocks(legs, size))
        assert ranked_by(Leg.DENSE, scorer.lists()[0]) == list("abcdefghi")


def test_candidates_of_the_dense_leg_get_the_same_maxsim_as_in_a_whole_scan(rng: np.random.Generator) -> None:
    legs, queries = random_legs(rng, DOCUMENTS), [random_query(rng) for _ in range(2)]
    ids = [f"d{i:02}" for i in range(DOCUMENTS)]
    whole, some = Scorer(queries, ids), Scorer(queries, ids)
    whole.scan(blocks(legs, 60))
    flat = Legs(
        legs.dense,
        legs.sparse_ids,
        legs.sparse_weights,
        legs.sparse_offsets,
        legs.colbert[:0, :0],
        legs.colbert_offsets * 0,
    )
    some.scan(blocks(flat, 60))
    some.rerank(lambda documents: blocks(legs, 4, documents), 6)
    for full, part in zip(whole.lists(), some.lists(), strict=True):
        best = ranked_by(Leg.DENSE, full)[:6]
        assert ranked_by(Leg.COLBERT, part) == [key for key in ranked_by(Leg.COLBERT, full) if key in best]
        for key, found in part[Leg.COLBERT].items():
            assert found.score == pytest.approx(full[Leg.COLBERT][key].score, abs=1e-6)
