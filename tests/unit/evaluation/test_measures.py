from __future__ import annotations

from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.evaluation.lists import fused, ranked_by
from trivet.evaluation.measures import bootstrap, per_query
from trivet.retrieval import Fusion, Leg, LegScore


def test_measures_equal_what_is_computed_by_hand() -> None:
    judged = {"two": {"a": 1, "b": 1}, "graded": {"a": 2, "b": 1, "c": 0}, "late": {"z": 1}, "none": {"a": 1}}
    ranked = {
        "two": ["x", "a", "y", "b"],
        "graded": ["b", "c", "a"],
        "late": [*(f"d{i}" for i in range(10)), "z"],
        "none": [],
    }
    found = per_query(judged, ranked)
    two = (1 / log2(3) + 1 / log2(5)) / (1 + 1 / log2(3))
    graded = (1 + 2 / log2(4)) / (2 + 1 / log2(3))
    assert found["nDCG@10"] == pytest.approx([two, graded, 0, 0])
    assert found["Recall@10"] == pytest.approx([1, 1, 0, 0])
    assert found["Recall@100"] == pytest.approx([1, 1, 1, 0])
    assert found["MRR@10"] == pytest.approx([1 / 2, 1, 0, 0])


def test_the_order_that_is_given_is_the_order_that_is_measured_whatever_the_ids() -> None:
    judged = {"q": {"b": 1}}
    assert per_query(judged, {"q": ["a", "b", "c"]})["MRR@10"] == pytest.approx([1 / 2])
    assert per_query(judged, {"q": ["c", "b", "a"]})["MRR@10"] == pytest.approx([1 / 2])


def test_the_bootstrap_is_the_same_for_the_same_seed_and_holds_the_mean() -> None:
    values = np.random.default_rng(1).random(50)
    one, two, other = (bootstrap(values, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert one == two != other
    assert one.low < one.mean < one.high
    assert one.mean == pytest.approx(values.mean())


def test_the_bootstrap_of_two_values_has_the_quantiles_of_their_four_samples() -> None:
    found = bootstrap(np.array([0.0, 1.0]), np.random.default_rng(0))
    assert (found.low, found.mean, found.high) == (0, 0.5, 1)
    half = bootstrap(np.array([0.0, 1.0]), np.random.default_rng(0), level=0.4)
    assert (half.low, half.high) == (0.5, 0.5)


def test_a_difference_that_is_the_same_for_every_query_has_no_spread() -> None:
    found = bootstrap(np.full(20, 0.25), np.random.default_rng(0))
    assert (found.low, found.mean, found.high) == (0.25, 0.25, 0.25)


_SCORES = st.dictionaries(st.sampled_from("abcdefghij"), st.integers(0, 64).map(lambda n: n / 64), max_size=10)


def _listed(leg: Leg, scores: dict[str, float], depth: int) -> dict[str, LegScore]:
    order = sorted((key for key in scores if leg != Leg.SPARSE or scores[key]), key=lambda key: (-scores[key], key))
    ranks = {key: rank for rank, key in enumerate(order[:depth], 1)}
    return {key: LegScore(score, ranks.get(key)) for key, score in scores.items()}


@given(
    scores=st.fixed_dictionaries(dict.fromkeys(Leg, _SCORES)),
    depth=st.integers(1, 10),
    leg=st.sampled_from(list(Leg)),
    method=st.sampled_from(["weighted", "rrf", "dbsf", "max"]),
    normalization=st.sampled_from(["zscore", "minmax", "theoretical", "none"]),
)
def test_a_fusion_with_one_legs_weight_alone_ranks_as_that_leg(
    scores: dict[Leg, dict[str, float]], depth: int, leg: Leg, method: str, normalization: str
) -> None:
    lists = {of: _listed(of, found, depth) for of, found in scores.items()}
    fusion = Fusion.model_validate({"method": method, "normalization": normalization, "weights": {leg: 0.7}})
    alone = ranked_by(leg, lists)
    assert fused(lists, fusion) == alone
    judged = {"q": {"a": 2, "b": 1}}
    assert per_query(judged, {"q": fused(lists, fusion)}) == per_query(judged, {"q": alone})
