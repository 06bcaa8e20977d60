"""Retriever stages in Mixpeek's shapes become the search that they describe, or are refused in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.errors import InvalidRequest
from trivet.retrieval import Condition, Filters, Fusion, Group, Leg, SearchRequest
from trivet.retrieval.conditions import matches
from trivet.retrieval.stage_filters import read_filters
from trivet.retrieval.stages import read_stages

URI = "mixpeek://text_extractor@v1/baai_bge_m3_v1"
SPARSE, COLBERT, ALL = f"{URI}_sparse", f"{URI}_colbert", "mixpeek://text_extractor@v1"
INPUTS = {"query": "what changed", "year": 2024}
TEMPLATE = {"input_mode": "text", "value": "{{INPUT.query}}"}


def stage(stage_id: str, **parameters: Any) -> dict[str, Any]:
    return {"stage_name": stage_id, "config": {"stage_id": stage_id, "parameters": parameters}}


def search(*uris: str, **parameters: Any) -> dict[str, Any]:
    return stage("feature_search", searches=[{"feature_uri": uri, "query": TEMPLATE} for uri in uris], **parameters)


def test_one_feature_keeps_its_own_score() -> None:
    plan = read_stages([search(URI)], INPUTS)
    assert (plan.queries, plan.weights, plan.feature_uris, plan.collections) == (("what changed",), (), (URI,), ())
    assert plan.request.fusion == Fusion(weights={Leg.DENSE: 1.0}, normalization="none")
    assert (plan.request.top_k, plan.request.candidates, plan.request.reranks) == (25, 100, False)


def test_several_features_are_fused_with_their_weights() -> None:
    one = {"feature_uri": URI, "query": TEMPLATE, "top_k": 50, "weight": 0.7}
    two = {"feature_uri": SPARSE, "query": TEMPLATE, "top_k": 200, "weight": 0.3}
    plan = read_stages([stage("feature_search", searches=[one, two], fusion="dbsf", final_top_k=40)], INPUTS)
    assert plan.request.fusion == Fusion(method="dbsf", weights={Leg.DENSE: 0.7, Leg.SPARSE: 0.3})
    assert (plan.request.candidates, plan.request.top_k, plan.request.reranks) == (200, 40, False)


def test_colbert_among_the_features_is_fused_for_all_candidates() -> None:
    request = read_stages([search(URI, SPARSE, COLBERT)], INPUTS).request
    assert request.reranks
    assert request.rerank_candidates == 100
    assert request.fusion == Fusion(method="rrf", weights=dict.fromkeys(Leg, 1.0))


def test_the_clients_own_search_is_all_legs_with_the_default_fusion() -> None:
    sent: list[dict[str, Any]] = [
        {"type": "attribute_filter", "conditions": {"metadata.year": 2024}},
        {
            "type": "feature_search",
            "feature_extractor": {"type": "text"},
            "query": "what changed",
            "collection_ids": ["docs"],
            "limit": 7,
        },
    ]
    plan = read_stages(sent, INPUTS)
    assert (plan.queries, plan.collections) == (("what changed",), ("docs",))
    assert plan.request.fusion == Fusion()
    assert (plan.request.top_k, plan.request.reranks) == (7, True)
    assert plan.request.filters == Filters.model_validate({"metadata": {"year": 2024}})


def test_rerank_fuses_and_maxsim_rerank_orders_by_maxsim_alone() -> None:
    request = read_stages([search(URI, final_top_k=50), stage("rerank", top_k=5, max_candidates=20)], INPUTS).request
    assert (request.rerank_fusion, request.rerank_candidates, request.top_k) == (Fusion(), 20, 5)
    alone = stage("maxsim_rerank", feature_uri=COLBERT, missing="drop")
    request = read_stages([search(URI, final_top_k=50), alone], INPUTS, limit=3).request
    assert request.rerank_fusion == Fusion(weights={Leg.COLBERT: 1.0}, normalization="none")
    assert (request.rerank_candidates, request.top_k) == (50, 3)
    assert request.min_leg_scores == {Leg.COLBERT: -2.0}


def test_a_threshold_of_the_one_feature_is_the_legs() -> None:
    one = {"feature_uri": URI, "query": TEMPLATE, "min_score": 0.5}
    assert read_stages([stage("feature_search", searches=[one])], INPUTS).request.min_leg_scores == {Leg.DENSE: 0.5}


def test_groups_are_by_object() -> None:
    group = {"field": "source_object_id", "max_per_group": 3, "limit": 4}
    request = read_stages([search(URI, group_by=group)], INPUTS).request
    assert (request.top_k, request.group_size) == (4, 3)
    request = read_stages([search(URI, group_by=group | {"output_mode": "first"}), stage("rerank")], INPUTS).request
    assert (request.group_size, request.rerank_candidates) == (1, 100)


def test_one_feature_for_several_texts_is_several_queries() -> None:
    texts = [{"feature_uri": URI, "query": {"text": text}, "weight": weight} for text, weight in (("a", 1), ("b", 0.5))]
    plan = read_stages([stage("feature_search", searches=texts)], INPUTS)
    assert (plan.queries, plan.weights) == (("a", "b"), (1.0, 0.5))


def test_the_page_is_the_callers() -> None:
    request = read_stages([search(URI)], INPUTS, limit=10, offset=20, return_vectors=True).request
    assert (request.top_k, request.offset, request.return_vectors) == (10, 20, True)


def test_defaults_that_the_generated_client_writes_say_nothing() -> None:
    written = stage(
        "attribute_filter",
        field="metadata.status",
        natural_language="null",
        batch_size=100,
        case_insensitive=False,
        conditions={"AND": [{"field": "year", "operator": "gte", "value": "{{INPUT.year}}"}], "case_sensitive": False},
    )
    searched = search(URI, cache_behavior="auto", hard_timeout_ms=5000, interactive=False, facets=None)
    request = read_stages([written, searched], INPUTS).request
    assert request.filters.metadata == (Condition(key="year", op="gte", value=2024),)


def test_filters_stand_for_the_whole_pipeline() -> None:
    later = stage("attribute_filter", field="language", operator="in", value=["de", "en"])
    plan = read_stages([search(URI), later], INPUTS, filters={"AND": [{"language": "de"}, {"page": 3}, {"a": 1}]})
    assert plan.request.filters == Filters.model_validate({"languages": ["de"], "page": 3, "metadata": {"a": 1}})


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"metadata.a": 1, "b": 2}, {"metadata": {"a": 1, "b": 2}}),
        ({"field": "object_id", "operator": "in", "value": ["x", "y"]}, {"object_ids": ["x", "y"]}),
        ({"source_object_id": "x"}, {"object_ids": ["x"]}),
        ({"AND": [{"object_id": "x"}, {"object_id": "y"}]}, {"object_ids": []}),
        ({"heading": ["Guide", "Install"]}, {"heading": ["Guide", "Install"]}),
        (
            {
                "AND": [
                    {"field": "page", "operator": "gte", "value": 2},
                    {"field": "page", "operator": "lte", "value": 4},
                ]
            },
            {"pages": {"first": 2, "last": 4}},
        ),
        (
            {"field": "created_at", "operator": "gte", "value": "2025-01-01T00:00:00Z"},
            {"committed_from": "2025-01-01T00:00:00Z"},
        ),
        ({"field": "a", "operator": "is_null", "value": True}, {"metadata": {"a": None}}),
        (
            {"NOT": [{"field": "a", "operator": "exists", "value": True}]},
            {"metadata": [{"op": "none", "of": [{"key": "a", "op": "exists"}]}]},
        ),
        (
            {"OR": [{"a": 1, "b": 2}, {"field": "c", "operator": "contains", "value": "x"}]},
            {
                "metadata": [
                    {
                        "op": "any",
                        "of": [
                            {"op": "all", "of": [{"key": "a", "value": 1}, {"key": "b", "value": 2}]},
                            {"key": "c", "op": "contains", "value": "x"},
                        ],
                    }
                ]
            },
        ),
    ],
)
def test_filter_conditions_are_read_as_they_are_meant(tree: dict[str, Any], expected: dict[str, Any]) -> None:
    assert read_filters([tree]) == Filters.model_validate(expected)


refused: list[tuple[list[dict[str, Any]], dict[str, Any], str]] = [
    ([], {}, "0 feature_search"),
    ([search(URI), search(URI)], {}, "2 feature_search"),
    ([search(URI), stage("rerank"), stage("rerank")], {}, "2 rerank"),
    ([stage("rerank"), search(URI)], {}, "before it has searched"),
    ([stage("llm_filter")], {}, "Stage 1 is a 'llm_filter'"),
    ([{"stage_name": "x", "config": 3}], {}, "Stage 1 is no stage"),
    (["search"], {}, "Stage 1 is no stage"),  # type: ignore[list-item] # what a caller may send
    ([search(URI, facets=[{"field": "a"}])], {}, r"Stage 1 \(feature_search\): facets: there is no such parameter"),
    ([search(URI, fusion="learned")], {}, "fusion"),
    ([search()], {}, "searches"),
    ([search("no uri")], {}, "no feature URI"),
    ([search(COLBERT)], {}, "no search that brings in candidates"),
    ([search(URI, URI)], {}, "the same feature"),
    ([search(URI, ALL)], {}, "the same feature"),
    ([search(URI, group_by={"field": "metadata.kind"})], {}, "group_by.field"),
    ([search(URI), stage("rerank", inference_name="BAAI__bge_reranker_v2_m3")], {}, "There is no reranker 'BAAI__bge"),
    ([search(URI), stage("maxsim_rerank", feature_uri=URI)], {}, "needs a ColBERT feature"),
    ([search(URI), stage("maxsim_rerank", feature_uri=COLBERT, match_on="root_object_id")], {}, "match_on"),
    ([search(URI), stage("rerank", query="something else")], {}, "another query"),
    ([search(URI)], {"offset": 100, "limit": 10}, "beyond the 100 candidates"),
    ([search(URI)], {"limit": 0}, "greater than or equal to 1"),
    ([search(URI)], {"filters": {"field": "a", "operator": "regex", "value": "x"}}, "operator 'regex' is not there"),
    ([search(URI)], {"filters": {"OR": [{"language": "de"}, {"a": 1}]}}, "'language' stands in OR or NOT"),
    ([search(URI)], {"filters": {"document_id": "x"}}, "no filter on 'document_id'"),
    ([search(URI)], {"filters": {"AND": []}}, "AND of a filter needs a list"),
    ([search(URI)], {"filters": {"AND": ["a"]}}, "A filter condition is 'a'"),
    ([search(URI)], {"filters": {"field": "page", "operator": "ne", "value": 3}}, "no filter page ne"),
    ([search(URI)], {"filters": {"a": "{{DOC.b}}-"}}, "cannot be filled in"),
    ([search(URI), stage("attribute_filter")], {}, "no field and no conditions"),
    ([stage("feature_search", searches=[{"feature_uri": URI, "query": "{{INPUT.other}}"}])], {}, "the input 'other'"),
    (
        [stage("feature_search", searches=[{"feature_uri": URI, "query": {"input_mode": "vector", "value": [1.0]}}])],
        {},
        "input_mode",
    ),
    (
        [stage("feature_search", searches=[{"feature_uri": URI, "query": "a"}, {"feature_uri": SPARSE, "query": "b"}])],
        {},
        "different texts in different features",
    ),
    (
        [
            stage(
                "feature_search",
                searches=[{"feature_uri": uri, "query": "a", "min_score": 0.5} for uri in (URI, SPARSE)],
            )
        ],
        {},
        "min_score stands in a feature_search over several",
    ),
]


@pytest.mark.parametrize(("stages", "options", "message"), refused)
def test_what_cannot_be_had_is_refused_by_name(
    stages: list[dict[str, Any]], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message) as error:
        read_stages(stages, INPUTS, **options)
    assert "\n" not in str(error.value)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["AND", "OR", "NOT", "field", "operator", "value", "language", "page", "metadata.a", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["AND", "OR", "field", "operator", "value", "page", "created_at"]), anything))
def test_whatever_stands_in_a_filter_it_is_read_or_refused_in_one_sentence(tree: dict[str, Any]) -> None:
    try:
        filters = read_filters([tree])
    except InvalidRequest:
        return
    assert SearchRequest(filters=filters).filters == filters


leaves = st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 2))


@given(
    st.lists(st.tuples(st.sampled_from(["AND", "OR", "NOT"]), st.lists(leaves, min_size=1, max_size=3)), max_size=3),
    st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 2)),
)
def test_and_or_and_not_mean_what_they_mean_there(
    parts: list[tuple[str, list[tuple[str, int]]]], metadata: dict[str, Any]
) -> None:
    """AND: all hold; OR: one does; NOT: none does."""
    tree = {"AND": [{name: [{key: value} for key, value in found]} for name, found in parts]} if parts else {}
    check = {"AND": all, "OR": any, "NOT": lambda found: not any(found)}
    expected = all(check[name](metadata.get(key) == value for key, value in found) for name, found in parts)
    found = read_filters([tree]).metadata
    assert all(matches(metadata, one) for one in found) == expected
    assert all(isinstance(one, Condition | Group) for one in found)
