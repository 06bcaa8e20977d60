"""Pages partition one ranking, whatever its thresholds and groups."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from trivet.retrieval import Leg, LegScore, SearchRequest
from trivet.retrieval.paging import Scored, page

legs = st.dictionaries(
    st.sampled_from(list(Leg)), st.sampled_from([0.0, 0.25, 0.5, 1.0]).map(lambda score: LegScore(score, None))
)
rankings = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 8), legs), max_size=40).map(
    lambda rows: [Scored(name, 1 - score / 8, found) for name, score, found in sorted(rows, key=lambda row: row[1])]
)


def request(**options: Any) -> SearchRequest:
    return SearchRequest.model_validate({"rerank_candidates": 30, "fusion": {"normalization": "none"}} | options)


@given(
    rankings,
    st.integers(1, 9),
    st.none() | st.integers(1, 3),
    st.none() | st.sampled_from([0.0, 0.5]),
    st.dictionaries(st.sampled_from(list(Leg)), st.sampled_from([0.25, 0.5])),
)
def test_pages_put_together_are_the_ranking_without_what_is_below_the_thresholds(
    ranking: list[Scored], size: int, group: int | None, least: float | None, of_legs: dict[Leg, float]
) -> None:
    options = {"top_k": size, "group_size": group, "min_score": least, "min_leg_scores": of_legs}
    offsets = range(0, 30 - size + 1, size)
    pages = [page(ranking, request(offset=offset, **options), lambda item: item) for offset in offsets]
    kept = [
        item
        for item in ranking[:30]
        if (least is None or item.score >= least)
        and all(leg in item.legs and item.legs[leg].score >= score for leg, score in of_legs.items())
    ]
    shown = [item for one in pages for item in one.items]
    if group is None:
        assert shown == kept[: len(offsets) * size]
        assert {one.ranked for one in pages} == {len(kept)}
        return
    names = list(dict.fromkeys(item.object_id for item in kept))
    assert {one.ranked for one in pages} == {len(names)}
    assert shown == [
        item
        for name in names[: len(offsets) * size]
        for item in [found for found in kept if found.object_id == name][:group]
    ]
