"""Fusion methods: known figures, and what must hold for all of them."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trivet.errors import InvalidRequest
from trivet.retrieval import Fusion, Leg, LegScore, SearchRequest
from trivet.retrieval.fusion import METHODS, Fused, fuse

Legs = dict[Leg, dict[str, LegScore]]
EVEN = dict.fromkeys(Leg, 1.0)


def legs(**named: dict[str, float]) -> Legs:
    """Scores by leg, ranked by score then id."""
    out: Legs = {}
    for name, scores in named.items():
        order = sorted(scores, key=lambda key: (-scores[key], key))
        out[Leg(name)] = {key: LegScore(scores[key], order.index(key) + 1) for key in scores}
    return out


def by_chunk(fused: list[Fused]) -> dict[str, float]:
    return {found.chunk_id: found.score for found in fused}


scored = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-1, 1, width=32), max_size=8)
any_legs = st.builds(lambda d, s, c: legs(dense=d, sparse=s, colbert=c), scored, scored, scored)
fusions = st.builds(
    Fusion,
    method=st.sampled_from(sorted(METHODS)),
    weights=st.fixed_dictionaries({leg: st.sampled_from([0.0, 0.3, 1.0, 2.5]) for leg in Leg}).filter(
        lambda weights: any(weights.values())
    ),
    k=st.sampled_from([1.0, 60.0]),
    normalization=st.sampled_from(["minmax", "theoretical", "zscore", "none"]),
)


@given(any_legs, fusions)
def test_fusion_lists_each_chunk_of_a_weighted_leg_once_in_a_total_order(given_legs: Legs, fusion: Fusion) -> None:
    fused = fuse(given_legs, fusion)
    expected = {key for leg, listed in given_legs.items() if fusion.weight(leg) for key in listed}
    assert sorted(found.chunk_id for found in fused) == sorted(expected)
    assert all(math.isfinite(found.score) for found in fused)
    assert fused == sorted(fused, key=lambda found: (-found.score, found.chunk_id))


@given(any_legs, fusions, st.randoms())
def test_fusion_does_not_depend_on_the_order_of_its_input(given_legs: Legs, fusion: Fusion, random: object) -> None:
    shuffled: Legs = {}
    for leg in reversed(list(given_legs)):
        items = list(given_legs[leg].items())
        random.shuffle(items)  # type: ignore[attr-defined] # hypothesis types its Random as object
        shuffled[leg] = dict(items)
    assert fuse(shuffled, fusion) == fuse(given_legs, fusion)


@given(any_legs, fusions)
def test_a_chunk_that_is_better_in_every_leg_is_never_placed_lower(given_legs: Legs, fusion: Fusion) -> None:
    fused = by_chunk(fuse(given_legs, fusion))
    used = [listed for leg, listed in given_legs.items() if fusion.weight(leg) and listed]
    everywhere = [key for key in fused if all(key in listed for listed in used)]
    for a in everywhere:
        for b in everywhere:
            if all(listed[a].score >= listed[b].score and listed[a].rank <= listed[b].rank for listed in used):  # type: ignore[operator] # every rank is set here
                assert fused[a] >= fused[b] - 1e-9


@given(any_legs, fusions)
def test_what_the_legs_bring_adds_up_to_the_score_or_is_the_largest(given_legs: Legs, fusion: Fusion) -> None:
    for found in fuse(given_legs, fusion, also=["z"]):
        assert set(found.shares) <= {leg for leg in Leg if fusion.weight(leg)}
        if found.chunk_id == "z":
            assert not found.shares
        elif fusion.method == "max":
            assert found.score == max(found.shares.values())
        else:
            assert found.score == pytest.approx(math.fsum(found.shares.values()), abs=1e-9)


def test_rrf_is_the_weighted_sum_of_reciprocal_ranks() -> None:
    given_legs = legs(dense={"a": 0.9, "b": 0.8}, sparse={"b": 3.0, "c": 1.0})
    fused = by_chunk(fuse(given_legs, Fusion(method="rrf", weights={Leg.DENSE: 1, Leg.SPARSE: 0.5}, k=60)))
    assert fused == pytest.approx({"a": 1 / 61, "b": 1 / 62 + 0.5 / 61, "c": 0.5 / 62})


def test_rrf_gives_nothing_for_a_leg_that_did_not_bring_the_chunk_in() -> None:
    given_legs: Legs = {Leg.DENSE: {"a": LegScore(0.9, 1), "b": LegScore(0.1, None)}, Leg.SPARSE: {"b": LegScore(2, 1)}}
    fused = fuse(given_legs, Fusion(method="rrf", weights=EVEN))
    assert [found.chunk_id for found in fused] == ["a", "b"]
    assert [found.score for found in fused] == pytest.approx([1 / 61] * 2)


def test_weighted_sums_equal_the_scores_that_the_model_card_of_bge_m3_prints() -> None:
    # From the card of BAAI/bge-m3: pairs (query 0 or 1, passage 0 or 1), weights 0.4, 0.2, 0.4.
    pairs = ["q0p0", "q0p1", "q1p0", "q1p1"]
    dense = [0.6259765625, 0.347412109375, 0.349853515625, 0.67822265625]
    sparse = [0.195556640625, 0.00879669189453125, 0.0, 0.1802978515625]
    colbert = [0.7796499729156494, 0.4621465802192688, 0.4523794651031494, 0.7898575067520142]
    weights = {Leg.DENSE: 0.4, Leg.SPARSE: 0.2, Leg.COLBERT: 0.4}
    fusion = Fusion(method="weighted", weights=weights, normalization="none")
    two = legs(dense=dict(zip(pairs, dense, strict=True)), sparse=dict(zip(pairs, sparse, strict=True)))
    three = two | legs(colbert=dict(zip(pairs, colbert, strict=True)))
    # The card's figures are in half precision.
    assert [by_chunk(fuse(two, fusion))[pair] for pair in pairs] == pytest.approx(
        [0.482503205537796, 0.23454029858112335, 0.2332356721162796, 0.5122477412223816], abs=2e-4
    )
    assert [by_chunk(fuse(three, fusion))[pair] for pair in pairs] == pytest.approx(
        [0.6013619303703308, 0.3255828022956848, 0.32089319825172424, 0.6232916116714478], abs=2e-4
    )


@pytest.mark.parametrize(
    ("normalization", "expected"),
    [
        ("minmax", {"a": 1.0, "b": 0.0, "c": 0.5}),
        ("theoretical", {"a": 1.0, "b": 1.2 / 1.6, "c": 1.4 / 1.6}),
        ("zscore", {"a": math.sqrt(1.5), "b": -math.sqrt(1.5), "c": 0.0}),
        ("none", {"a": 0.6, "b": 0.2, "c": 0.4}),
    ],
)
def test_normalisations_are_as_documented(normalization: str, expected: dict[str, float]) -> None:
    fusion = Fusion.model_validate({"weights": {"dense": 2}, "normalization": normalization})
    assert by_chunk(fuse(legs(dense={"a": 0.6, "b": 0.2, "c": 0.4}), fusion)) == pytest.approx(expected, abs=1e-6)


def test_dbsf_places_a_score_within_three_deviations_of_the_mean() -> None:
    fused = by_chunk(fuse(legs(dense={"a": 0.9, "b": 0.7, "c": 0.5}), Fusion(method="dbsf", weights=EVEN)))
    # mean 0.7, sample deviation 0.2: 0.9 is one deviation above.
    assert fused == pytest.approx({"a": 4 / 6, "b": 3 / 6, "c": 2 / 6})


def test_max_takes_the_better_leg() -> None:
    given_legs = legs(dense={"a": 0.9, "b": 0.1, "c": 0.3}, sparse={"a": 0.0, "b": 3.0, "c": 1.0})
    fused = by_chunk(fuse(given_legs, Fusion(method="max", weights=EVEN)))
    assert fused == pytest.approx({"a": 1.0, "b": 1.0, "c": 1 / 3})


@given(scored.filter(bool), fusions)
def test_a_leg_whose_scores_are_all_equal_changes_no_order(scores: dict[str, float], fusion: Fusion) -> None:
    fusion = fusion.model_copy(update={"weights": {Leg.DENSE: 1.0, Leg.SPARSE: 1.0}})
    silent = {key: LegScore(0.0, None) for key in scores}
    alone = [found.chunk_id for found in fuse(legs(dense=scores), fusion)]
    both = fuse(legs(dense=scores) | {Leg.SPARSE: silent}, fusion)
    order = by_chunk(both)
    # Sums may round two neighbours to one value, never swap them.
    assert all(order[a] >= order[b] for a, b in itertools.pairwise(alone))


def test_an_unknown_method_is_named_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match=r"'learned'.*rrf, weighted, dbsf, max"):
        fuse(legs(dense={"a": 1.0}), Fusion(method="learned"))


@pytest.mark.parametrize("weights", [{}, {"dense": -1}, {"dense": 0, "sparse": 0}, {"dense": math.inf}])
def test_weights_that_cannot_order_anything_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Fusion.model_validate({"weights": weights})


def test_colbert_alone_is_refused_since_it_brings_in_no_candidates() -> None:
    with pytest.raises(ValidationError, match="bring in the candidates"):
        SearchRequest.model_validate({"fusion": {"weights": {"colbert": 1}}})


def test_requests_travel_as_json() -> None:
    request = SearchRequest(fusion=Fusion(method="rrf"))
    assert SearchRequest.model_validate(json.loads(request.model_dump_json())) == request


def test_fusion_needs_no_numpy() -> None:
    source = Path(__file__).parents[3] / "trivet" / "retrieval" / "fusion.py"
    assert "numpy" not in source.read_text()
