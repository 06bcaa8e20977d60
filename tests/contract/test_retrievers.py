"""What every retriever must do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.indexed import indexed
from tests.support.parts import OPTIONS
from tests.unit.retrieval.world import VOCABULARY, D, World, chunk, model, random_legs, random_query, unit
from trivet.errors import InvalidRequest
from trivet.parts.outputs import shaped
from trivet.retrieval import RETRIEVERS, Leg, QueryLegs, Retriever, SearchRequest, SearchResult
from trivet.retrieval.exact import ExactRetriever
from trivet.retrieval.remote import RemoteRetriever
from trivet.values import Outputs

Find = Callable[..., SearchResult]
OTHER = "f" * 16


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(params=["float16", "int8", "list", "pooled", "all but list"])
def world(request: pytest.FixtureRequest) -> World:
    """A collection whose vectors are stored in one of the ways that there are."""
    return World(outputs=Outputs(**OPTIONS[request.param]))


def cut(query: Any, width: int) -> Any:
    """As a query is compared with vectors of which less is stored than the model gives."""
    short = query[..., :width]
    return short / np.linalg.norm(short, axis=-1, keepdims=True)


@pytest.fixture(params=["exact", "memory", "index"])
def find(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Iterator[Find]:
    made: dict[str, Callable[[], AbstractContextManager[Retriever]]] = {
        "exact": lambda: nullcontext(ExactRetriever(world.store, world.prefix, threads=3)),
        "memory": lambda: nullcontext(world.memory),
        "index": lambda: indexed(world, tmp_path / "index"),
    }
    with made[request.param]() as retriever:

        def search(
            query: QueryLegs, collection: str = "docs", namespace: str = "default", **options: Any
        ) -> SearchResult:
            return retriever.search(namespace, collection, query, SearchRequest.model_validate(options))

        # MaxSim in the index rounds the query to float16 too: 2^-11 of each number.
        search.maxsim_error = 1e-3 if request.param == "index" else 1e-5  # type: ignore[attr-defined]
        yield search


def test_every_registered_retriever_can_be_imported() -> None:
    kinds = {"exact": ExactRetriever, "index": RemoteRetriever}
    assert {name: f"{kind.__module__}:{kind.__name__}" for name, kind in kinds.items()} == RETRIEVERS


def test_an_empty_collection_gives_no_hits(find: Find, rng: np.random.Generator) -> None:
    result = find(random_query(rng), collection="nobody")
    assert result.hits == ()
    assert (result.stats.objects, result.stats.rows, result.stats.notes) == (0, 0, ())


def test_hits_say_where_they_are_from(find: Find, world: World, rng: np.random.Generator) -> None:
    legs = random_legs(rng, 5)
    world.commit("a", legs, metadata={"year": 1996, "kind": "book"})
    query = QueryLegs("0" * 16, legs.dense[3], legs.sparse_ids[:0], legs.sparse_weights[:0], unit(rng, 2, D))
    hit = find(query, top_k=1, rerank=False).hits[0]
    expected = chunk("a", 3)
    for name in ("chunk_id", "ordinal", "text", "context", "heading_path", "page_start", "page_end"):
        assert getattr(hit, name) == getattr(expected, name)
    assert (hit.char_start, hit.char_end, hit.language) == (expected.char_start, expected.char_end, expected.language)
    assert (hit.object_id, hit.collection, hit.generation, hit.token_count) == ("a", "docs", 1, expected.token_count)
    assert hit.source_url == "https://example.org/a?…"
    assert hit.metadata == {"year": 1996, "kind": "book"}
    assert hit.dense is not None
    assert hit.dense.score == pytest.approx(1, abs=1e-6)
    assert hit.dense.rank == 1
    assert hit.colbert is None


def test_the_score_of_each_leg_is_the_models_definition(find: Find, world: World, rng: np.random.Generator) -> None:
    legs = random_legs(rng, 30)
    world.commit("a", legs, parts=4)
    query = random_query(rng)
    result = find(query, top_k=30)
    assert len(result.hits) == 30
    kept = shaped(legs, world.outputs)
    # float16 as the encoder gives it is stored as it is.
    exact = world.outputs.colbert == "float16" and kept.colbert is legs.colbert
    for hit in result.hits:
        i = hit.ordinal
        assert hit.dense is not None
        assert hit.sparse is not None
        assert hit.colbert is not None
        assert hit.dense.score == pytest.approx(float(cut(query.dense, kept.dense.shape[1]) @ kept.dense[i]), abs=1e-6)
        terms = slice(legs.sparse_offsets[i], legs.sparse_offsets[i + 1])
        stored = dict(zip(legs.sparse_ids[terms].tolist(), legs.sparse_weights[terms].tolist(), strict=True))
        asked = dict(zip(query.sparse_ids.tolist(), query.sparse_weights.tolist(), strict=True))
        assert hit.sparse.score == pytest.approx(sum(w * stored.get(t, 0) for t, w in asked.items()), abs=1e-5)
        assert (hit.sparse.rank is None) == (hit.sparse.score == 0)
        tokens = kept.colbert[kept.colbert_offsets[i] : kept.colbert_offsets[i + 1]].astype(np.float32)
        asked_tokens = cut(query.colbert, tokens.shape[1])
        maxsim = float((asked_tokens @ tokens.T).max(axis=1).mean())
        assert hit.colbert.score == pytest.approx(maxsim, abs=find.maxsim_error if exact else 1e-2)
    for leg in ("dense", "sparse", "colbert"):
        ranked = sorted((found.rank, -found.score) for hit in result.hits if (found := getattr(hit, leg)).rank)
        assert [rank for rank, _ in ranked] == list(range(1, len(ranked) + 1))
        assert [score for _, score in ranked] == sorted(score for _, score in ranked)


def test_hits_come_best_first_with_equal_scores_in_order_of_chunk_id(
    find: Find, world: World, rng: np.random.Generator
) -> None:
    one = random_legs(rng, 1)
    for name in ("c", "a", "b", "d"):
        world.commit(name, one)
    result = find(random_query(rng), top_k=3, candidates=3)
    ids = sorted(chunk(name, 0).chunk_id for name in "abcd")
    assert [hit.chunk_id for hit in result.hits] == ids[:3]


def test_only_the_highest_visible_generation_is_found(find: Find, world: World, rng: np.random.Generator) -> None:
    world.commit("a", random_legs(rng, 4), generation=1)
    world.commit("a", random_legs(rng, 2), generation=2)
    world.commit("b", random_legs(rng, 1), generation=1)
    result = find(random_query(rng), top_k=50)
    assert sorted((hit.object_id, hit.generation) for hit in result.hits) == [("a", 2), ("a", 2), ("b", 1)]


def test_a_deleted_object_is_not_found(find: Find, world: World, rng: np.random.Generator) -> None:
    world.commit("a", random_legs(rng, 3), generation=1)
    world.commit("b", random_legs(rng, 3), generation=1)
    world.commit("a", random_legs(rng, 0), generation=2, tombstone=True)
    result = find(random_query(rng), top_k=50)
    assert {hit.object_id for hit in result.hits} == {"b"}
    assert result.stats.objects == 1


@pytest.mark.parametrize("passport", [True, False])
def test_objects_of_another_model_are_left_out_and_counted(
    find: Find, world: World, rng: np.random.Generator, passport: bool
) -> None:
    world.commit("old", random_legs(rng, 3), identity=model(OTHER, "old-model"), passport=passport)
    world.commit("new", random_legs(rng, 3), passport=passport)
    result = find(random_query(rng), top_k=50)
    assert {hit.object_id for hit in result.hits} == {"new"}
    assert (result.stats.objects, result.stats.objects_searched, result.stats.objects_other_model) == (2, 1, 1)
    assert "1 of 2 objects were embedded by another model" in result.stats.notes[0]
    assert {hit.object_id for hit in find(random_query(rng, key=OTHER), top_k=50).hits} == {"old"}


def test_collections_and_namespaces_do_not_see_one_another(world: World, find: Find, rng: np.random.Generator) -> None:
    world.commit("a", random_legs(rng, 3))
    assert find(random_query(rng), namespace="tenant").hits == ()
    assert find(random_query(rng), collection="docs2").hits == ()
    assert find(random_query(rng), collection="doc").hits == ()


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"object_ids": ["b", "unknown"]}, {("b", i) for i in range(6)}),
        ({"object_ids": []}, set()),
        ({"languages": ["de"]}, {(name, i) for name in "ab" for i in (1, 4)}),
        ({"languages": ["de", "fr"]}, {(name, i) for name in "ab" for i in (1, 4)}),
        ({"page": 2}, {(name, i) for name in "ab" for i in (1, 2, 3)}),
        ({"metadata": {"year": 2001}}, {("a", i) for i in range(6)}),
        ({"metadata": {"year": "2001"}}, set()),
        ({"metadata": {"year": None}}, set()),
        ({"metadata": {"year": 2001}, "languages": ["en"], "page": 1}, {("a", 0)}),
    ],
)
def test_filters_let_through_what_they_say(
    find: Find, world: World, rng: np.random.Generator, filters: dict[str, Any], expected: set[tuple[str, int]]
) -> None:
    world.commit("a", random_legs(rng, 6), metadata={"year": 2001}, parts=2)
    world.commit("b", random_legs(rng, 6), metadata={})
    result = find(random_query(rng), top_k=50, filters=filters)
    assert {(hit.object_id, hit.ordinal) for hit in result.hits} == expected
    assert result.stats.rows == len(expected)


def test_without_stored_colbert_the_two_other_legs_are_fused(
    find: Find, world: World, rng: np.random.Generator
) -> None:
    world.commit("a", random_legs(rng, 9), outputs=Outputs(colbert="off"))
    query = random_query(rng)
    hits = find(query, top_k=9).hits
    assert len(hits) == 9
    assert all(hit.colbert is None and hit.dense is not None and hit.sparse is not None for hit in hits)
    assert [hit.chunk_id for hit in hits] == [hit.chunk_id for hit in find(query, top_k=9, rerank=False).hits]


def test_where_some_objects_have_no_colbert_they_are_still_found(
    find: Find, world: World, rng: np.random.Generator
) -> None:
    world.commit("a", random_legs(rng, 3), outputs=Outputs(colbert="off"))
    world.commit("b", random_legs(rng, 3))
    result = find(random_query(rng), top_k=50)
    assert {(hit.object_id, hit.colbert is None) for hit in result.hits} == {("a", True), ("b", False)}
    assert len(result.hits) == 6
    assert result.stats.rows_reranked == 3


@pytest.mark.parametrize("off", ["dense", "sparse"])
def test_a_collection_with_one_leg_is_searched_by_it(
    find: Find, world: World, rng: np.random.Generator, off: str
) -> None:
    world.commit("a", random_legs(rng, 20), outputs=Outputs.model_validate({off: False, "colbert": "off"}))
    hits = find(random_query(rng, terms=VOCABULARY), top_k=50).hits
    assert hits
    assert all(getattr(hit, off) is None for hit in hits)


def test_a_weight_of_zero_leaves_a_leg_out_and_still_shows_its_score(
    find: Find, world: World, rng: np.random.Generator
) -> None:
    world.commit("a", random_legs(rng, 20))
    query = random_query(rng)
    hits = find(query, top_k=20, fusion={"weights": {"dense": 1}}).hits
    order = sorted(hits, key=lambda hit: -hit.dense.score)  # type: ignore[union-attr] # the leg is stored
    assert list(hits) == order
    assert all(hit.sparse is not None and hit.sparse.rank is None and hit.colbert is None for hit in hits)


def test_rerank_looks_at_the_best_candidates_alone(find: Find, world: World, rng: np.random.Generator) -> None:
    world.commit("a", random_legs(rng, 40))
    query = random_query(rng)
    result = find(query, top_k=3, rerank_candidates=7, candidates=20)
    assert result.stats.rows_reranked == 7
    first = {hit.chunk_id for hit in find(query, top_k=7, candidates=20, rerank=False).hits}
    assert {hit.chunk_id for hit in result.hits} <= first


def test_top_k_may_exceed_the_depths_of_candidates_and_rerank(
    find: Find, world: World, rng: np.random.Generator
) -> None:
    world.commit("a", random_legs(rng, 40))
    assert len(find(random_query(rng), top_k=40, candidates=1, rerank_candidates=1).hits) == 40


def test_the_same_search_gives_the_same_hits(find: Find, world: World, rng: np.random.Generator) -> None:
    for name in "abcdef":
        world.commit(name, random_legs(rng, 11), parts=3)
    query = random_query(rng)
    assert find(query).hits == find(query).hits


def test_a_query_of_other_dimensions_is_refused(find: Find, world: World, rng: np.random.Generator) -> None:
    world.commit("a", random_legs(rng, 3))
    query = random_query(rng)
    wrong = QueryLegs(query.encoder_key, query.dense[:4], query.sparse_ids, query.sparse_weights, query.colbert)
    with pytest.raises(InvalidRequest, match=f"4 dimensions, the stored ones {world.outputs.dense_dimensions or D}"):
        find(wrong)


def test_an_unknown_fusion_method_is_refused(find: Find, world: World, rng: np.random.Generator) -> None:
    world.commit("a", random_legs(rng, 3))
    with pytest.raises(InvalidRequest, match="learned"):
        find(random_query(rng), fusion={"method": "learned"})


def test_a_query_without_terms_in_common_is_found_by_dense_alone(
    find: Find, world: World, rng: np.random.Generator
) -> None:
    world.commit("a", random_legs(rng, 5))
    query = random_query(rng)
    far = QueryLegs(query.encoder_key, query.dense, query.sparse_ids + 10**6, query.sparse_weights, query.colbert)
    result = find(far, fusion={"method": "rrf", "weights": {Leg.DENSE: 1, Leg.SPARSE: 1}})
    assert [hit.sparse.score for hit in result.hits if hit.sparse] == [0.0] * 5
    assert [hit.dense.rank for hit in result.hits if hit.dense] == [1, 2, 3, 4, 5]
