"""What every retriever must do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tests.support.indexed import Indexed, indexed
from tests.support.parts import OPTIONS
from tests.unit.retrieval.world import VOCABULARY, D, World, chunk, model, random_legs, random_query, unit
from trivet.errors import InvalidRequest, StoreUnavailable
from trivet.parts.outputs import shaped
from trivet.retrieval import RETRIEVERS, Hit, Leg, QueryLegs, Retriever, SearchRequest, SearchResult
from trivet.retrieval.exact import ExactRetriever
from trivet.retrieval.many import search_many
from trivet.retrieval.remote import AutoRetriever, RemoteRetriever
from trivet.values import Outputs

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

Find = Callable[..., SearchResult]
OTHER = "f" * 16


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


#: (retriever, way to store vectors). An index keeps them in one way alone, whatever way they came; so two are enough.
CASES = [
    *((name, way) for name in ("exact", "memory") for way in ("float16", "int8", "list", "pooled", "all but list")),
    ("index", "float16"),
    ("index", "all but list"),
]


@pytest.fixture(params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    found: tuple[str, str] = request.param
    return found


@pytest.fixture
def world(case: tuple[str, str]) -> World:
    """A collection whose vectors are stored in one of the ways that there are."""
    return World(outputs=Outputs(**OPTIONS[case[1]]))


def cut(query: Any, width: int) -> Any:
    """As a query is compared with vectors of which less is stored than the model gives."""
    short = query[..., :width]
    return short / np.linalg.norm(short, axis=-1, keepdims=True)


@pytest.fixture
def retriever(case: tuple[str, str], world: World, tmp_path: Path) -> Iterator[Retriever]:
    made: dict[str, Callable[[], AbstractContextManager[Retriever]]] = {
        "exact": lambda: nullcontext(ExactRetriever(world.store, world.prefix, threads=3)),
        "memory": lambda: nullcontext(world.memory),
        # On a disk in one of the ways, in memory in the other, which takes a tenth of the time.
        "index": lambda: indexed(world, tmp_path / "index" if world.outputs == Outputs() else None),
    }
    with made[case[0]]() as opened:
        yield opened


@pytest.fixture
def maxsim_error(retriever: Retriever) -> float:
    """MaxSim in the index rounds the query to float16 too: 2^-11 of each number."""
    return 1e-3 if isinstance(retriever, Indexed) else 1e-5


@pytest.fixture
def find(retriever: Retriever) -> Find:
    def search(query: QueryLegs, collection: str = "docs", namespace: str = "default", **options: Any) -> SearchResult:
        return retriever.search(namespace, collection, query, SearchRequest.model_validate(options))

    return search


def test_every_registered_retriever_can_be_imported() -> None:
    kinds = {"exact": ExactRetriever, "index": RemoteRetriever, "auto": AutoRetriever}
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
    assert hit.committed_at == "2025-01-01T00:00:00Z"
    assert (hit.query, hit.before, hit.after, hit.section, hit.vectors) == (0, (), (), None, None)
    assert hit.dense is not None
    assert hit.dense.score == pytest.approx(1, abs=1e-6)
    assert hit.dense.rank == 1
    assert hit.colbert is None


def test_the_score_of_each_leg_is_the_models_definition(
    find: Find, world: World, rng: np.random.Generator, maxsim_error: float
) -> None:
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
        assert hit.colbert.score == pytest.approx(maxsim, abs=maxsim_error if exact else 1e-2)
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
        ({"metadata": [{"key": "year", "op": "gte", "value": 2001}]}, {("a", i) for i in range(6)}),
        ({"metadata": [{"key": "year", "op": "gt", "value": 2001}]}, set()),
        ({"metadata": [{"key": "year", "op": "exists", "value": False}]}, {("b", i) for i in range(6)}),
        ({"metadata": [{"op": "none", "of": [{"key": "year", "value": 2001}]}]}, {("b", i) for i in range(6)}),
        ({"pages": {"first": 3}}, {(name, i) for name in "ab" for i in (3, 4, 5)}),
        ({"pages": {"last": 1}}, {(name, i) for name in "ab" for i in (0, 1)}),
        ({"pages": {"first": 2, "last": 2}}, {(name, i) for name in "ab" for i in (1, 2, 3)}),
        ({"committed_from": "2025-01-01T00:00:00Z"}, {(name, i) for name in "ab" for i in range(6)}),
        ({"committed_from": "2025-01-01T00:00:01Z"}, set()),
        ({"committed_before": "2025-01-01T00:00:00Z"}, set()),
        ({"committed_before": "2025-01-01T02:00:00+01:00"}, {(name, i) for name in "ab" for i in range(6)}),
        ({"heading": ["Book"]}, {(name, i) for name in "ab" for i in range(6)}),
        ({"heading": ["Book", "Chapter"]}, {(name, i) for name in "ab" for i in range(6)}),
        ({"heading": ["Chapter"]}, set()),
        ({"heading": ["Book", "Chapter", "Section"]}, set()),
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


# ---------------------------------------------------------------- which part of the ranking


def test_pages_put_together_are_the_ranking(find: Find, world: World, rng: np.random.Generator) -> None:
    for name in "abc":
        world.commit(name, random_legs(rng, 20), parts=2)
    query = random_query(rng)
    whole = find(query, top_k=30, rerank_candidates=30)
    pages = [find(query, top_k=7, offset=offset, rerank_candidates=30) for offset in range(0, 23, 7)]
    assert [hit.chunk_id for page in pages for hit in page.hits] == [hit.chunk_id for hit in whole.hits][:28]
    assert [hit.score for page in pages for hit in page.hits] == [hit.score for hit in whole.hits][:28]
    assert {page.ranked for page in [*pages, whole]} == {30}


def test_a_page_beyond_what_was_found_is_empty_and_says_how_much_there_is(
    find: Find, world: World, rng: np.random.Generator
) -> None:
    world.commit("a", random_legs(rng, 5))
    result = find(random_query(rng), top_k=10, offset=20)
    assert (result.hits, result.ranked) == ((), 5)


def test_groups_hold_the_best_chunks_of_each_object_in_order_of_the_best(
    find: Find, world: World, rng: np.random.Generator
) -> None:
    for name in "abcd":
        world.commit(name, random_legs(rng, 9))
    query = random_query(rng)
    ranking = find(query, top_k=36, rerank_candidates=36).hits
    result = find(query, top_k=3, group_size=2, rerank_candidates=36)
    order = list(dict.fromkeys(hit.object_id for hit in ranking))
    expected = [(name, [hit.chunk_id for hit in ranking if hit.object_id == name][:2]) for name in order]
    assert [(name, [hit.chunk_id for hit in hits]) for name, hits in result.groups] == expected[:3]
    assert result.ranked == 4
    last = find(query, top_k=3, group_size=2, offset=3, rerank_candidates=36)
    assert [(name, [hit.chunk_id for hit in hits]) for name, hits in last.groups] == expected[3:]


@pytest.mark.parametrize("leg", list(Leg))
def test_a_leg_may_have_to_reach_a_score(find: Find, world: World, rng: np.random.Generator, leg: Leg) -> None:
    world.commit("a", random_legs(rng, 30))
    query = random_query(rng, terms=VOCABULARY // 2)
    ranking = find(query, top_k=30).hits
    least = sorted(score(hit, leg) for hit in ranking)[20]
    result = find(query, top_k=30, min_leg_scores={leg: least})
    assert list(result.hits) == [hit for hit in ranking if score(hit, leg) >= least]
    assert 0 < result.ranked == len(result.hits) < 30


def score(hit: Hit, leg: Leg) -> float:
    found = getattr(hit, leg)
    assert found is not None
    return float(found.score)


def test_the_least_score_is_held_against_the_fused_one(find: Find, world: World, rng: np.random.Generator) -> None:
    world.commit("a", random_legs(rng, 30))
    query, plain = (
        random_query(rng),
        {"normalization": "none", "weights": {"dense": 0.4, "sparse": 0.2, "colbert": 0.4}},
    )
    ranking = find(query, top_k=30, fusion=plain).hits
    least = ranking[11].score
    assert find(query, top_k=30, fusion=plain, min_score=least).hits == ranking[:12]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"min_score": 0.5},
            r"min_score means nothing here: weighted \(zscore\) scores depend on the other candidates",
        ),
        ({"min_score": 0.5, "fusion": {"method": "rrf"}}, "min_score means nothing here: rrf scores depend"),
        ({"min_score": 0.5, "fusion": {"normalization": "theoretical"}}, "min_score means nothing here"),
        ({"min_leg_scores": {"colbert": 0.5}, "rerank": False}, "no score without rerank"),
        ({"offset": 64, "top_k": 10}, "offset 64 lies beyond the 64 candidates.*rerank_candidates"),
        ({"offset": 100, "top_k": 10, "rerank": False}, "beyond the 100 candidates.*larger candidates"),
        ({"rerank": False, "rerank_fusion": {}}, "rerank_fusion needs rerank"),
        ({"rerank_fusion": {"weights": {"dense": 1}}}, "a weight for colbert"),
        ({"filters": {"pages": {}}}, "pages needs first or last"),
        ({"filters": {"pages": {"first": 3, "last": 2}}}, "before its first"),
        ({"filters": {"page": 1, "pages": {"first": 1}}}, "page or pages"),
        ({"filters": {"committed_from": "2025-01-01T00:00:00"}}, "timezone"),
        (
            {"filters": {"committed_from": "2025-01-02T00:00:00Z", "committed_before": "2025-01-01T00:00:00Z"}},
            "must lie before",
        ),
    ],
)
def test_what_a_request_cannot_mean_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SearchRequest.model_validate(options)


# ---------------------------------------------------------------- reranking by another fusion


def test_maxsim_alone_may_order_what_the_other_legs_bring_in(
    find: Find, world: World, rng: np.random.Generator
) -> None:
    world.commit("a", random_legs(rng, 40))
    query = random_query(rng)
    alone = {"weights": {"colbert": 1}, "normalization": "none"}
    hits = find(query, top_k=9, rerank_candidates=12, rerank_fusion=alone).hits
    first = find(query, top_k=12, rerank=False, fusion={"weights": {"dense": 1, "sparse": 0.3}}).hits
    assert {hit.chunk_id for hit in hits} <= {hit.chunk_id for hit in first}
    assert [hit.colbert.rank for hit in hits if hit.colbert] == list(range(1, 10))
    assert [hit.score for hit in hits] == pytest.approx([score(hit, Leg.COLBERT) for hit in hits], abs=1e-6)


def test_where_maxsim_alone_orders_chunks_without_colbert_come_last(
    find: Find, world: World, rng: np.random.Generator
) -> None:
    world.commit("a", random_legs(rng, 3), outputs=Outputs(colbert="off"))
    world.commit("b", random_legs(rng, 3))
    alone = {"weights": {"colbert": 1}, "normalization": "none"}
    hits = find(random_query(rng), rerank_fusion=alone).hits
    assert len(hits) == 6
    assert {hit.object_id for hit in hits[:2]} == {"b"}
    assert hits[-1].score == hits[-2].score == hits[-3].score
    only = find(random_query(rng), rerank_fusion=alone, min_leg_scores={"colbert": -2}).hits
    assert {hit.object_id for hit in only} == {"b"}


def test_where_no_colbert_is_stored_the_first_fusion_orders(find: Find, world: World, rng: np.random.Generator) -> None:
    world.commit("a", random_legs(rng, 9), outputs=Outputs(colbert="off"))
    query = random_query(rng)
    alone = {"weights": {"colbert": 1}}
    assert find(query, rerank_fusion=alone).hits == find(query, rerank=False).hits


# ---------------------------------------------------------------- what comes with a hit


def sectioned(world: World, rng: np.random.Generator, paths: str) -> None:
    """An object with a chunk per character, which is the heading path: `a` is (a,), and `A` is (a, sub)."""
    rows = [
        replace(chunk("a", i), heading_path=(letter.lower(), *(["sub"] if letter.isupper() else [])))
        for i, letter in enumerate(paths)
    ]
    world.commit("a", random_legs(rng, len(rows)), chunks=rows, parts=3)


def test_neighbours_are_the_chunks_before_and_after(find: Find, world: World, rng: np.random.Generator) -> None:
    sectioned(world, rng, "x" * 40)
    for hit in find(random_query(rng), top_k=40, neighbours=3).hits:
        assert [found.ordinal for found in hit.before] == [i for i in range(hit.ordinal - 3, hit.ordinal) if i >= 0]
        assert [found.ordinal for found in hit.after] == [i for i in range(hit.ordinal + 1, hit.ordinal + 4) if i < 40]
        for found in (*hit.before, *hit.after):
            expected = chunk("a", found.ordinal)
            assert (found.chunk_id, found.text, found.page_start) == (
                expected.chunk_id,
                expected.text,
                expected.page_start,
            )
            assert (found.char_start, found.char_end) == (expected.char_start, expected.char_end)
            assert found.token_count == expected.token_count
        assert hit.section is None


def test_a_section_is_what_stands_under_the_same_heading(find: Find, world: World, rng: np.random.Generator) -> None:
    paths = "aa" + "b" * 20 + "BBBb" + "c" + "bb"
    sectioned(world, rng, paths)
    for hit in find(random_query(rng), top_k=40, section_tokens=10_000).hits:
        assert hit.section is not None
        ordinals = [found.ordinal for found in hit.section.passages]
        first, last = {"a": (0, 1), "b": (2, 25), "B": (22, 24), "c": (26, 26)}[paths[hit.ordinal]]
        if hit.ordinal > 26:
            first, last = 27, 28
        assert ordinals == list(range(first, last + 1))
        assert not hit.section.cut
        assert hit.section.text.split("\n\n") == [chunk("a", i).text for i in ordinals]


def test_a_section_has_no_more_tokens_than_asked_for_and_says_so(
    find: Find, world: World, rng: np.random.Generator
) -> None:
    sectioned(world, rng, "x" * 30)
    for hit in find(random_query(rng), top_k=30, section_tokens=25).hits:
        assert hit.section is not None
        ordinals = [found.ordinal for found in hit.section.passages]
        assert hit.section.cut
        assert hit.ordinal in ordinals
        assert ordinals == list(range(ordinals[0], ordinals[-1] + 1))
        assert sum(found.token_count for found in hit.section.passages) <= 25


def test_vectors_come_with_the_hits_on_request(
    find: Find, retriever: Retriever, world: World, rng: np.random.Generator, maxsim_error: float
) -> None:
    legs = random_legs(rng, 12)
    world.commit("a", legs, parts=2)
    query = random_query(rng)
    kept = shaped(legs, world.outputs)
    hits = find(query, top_k=12, return_vectors=True).hits
    assert len(hits) == 12
    for hit, alone in zip(hits, retriever.vectors("default", hits), strict=True):
        assert hit.vectors is not None
        assert hit.vectors.dense is not None
        assert hit.vectors.sparse is not None
        assert hit.vectors.colbert is not None
        assert alone.dense is not None
        np.testing.assert_array_equal(hit.vectors.dense, kept.dense[hit.ordinal])
        np.testing.assert_array_equal(hit.vectors.dense, alone.dense)
        terms = slice(legs.sparse_offsets[hit.ordinal], legs.sparse_offsets[hit.ordinal + 1])
        np.testing.assert_array_equal(hit.vectors.sparse[0], legs.sparse_ids[terms])
        asked = cut(query.colbert, hit.vectors.colbert.shape[1])
        maxsim = (asked @ hit.vectors.colbert.astype(np.float32).T).max(axis=1).mean()
        assert maxsim == pytest.approx(score(hit, Leg.COLBERT), abs=maxsim_error)
    world.commit("b", random_legs(rng, 20), outputs=Outputs(dense=False, colbert="off"))
    others = find(random_query(rng, terms=VOCABULARY), filters={"object_ids": ["b"]}, return_vectors=True).hits
    assert others
    assert all(hit.vectors and (hit.vectors.dense, hit.vectors.colbert) == (None, None) for hit in others)


def test_passages_are_of_the_generation_that_is_asked_for(
    retriever: Retriever, world: World, rng: np.random.Generator
) -> None:
    world.commit("a", random_legs(rng, 20), parts=3)
    found = retriever.passages("default", "docs", "a", 1, 4, 11)
    assert [passage.ordinal for passage in found] == list(range(4, 12))
    assert retriever.passages("default", "docs", "a", 1, 20, 40) == ()
    with pytest.raises(StoreUnavailable, match="Generation 3 of 'a'"):
        retriever.passages("default", "docs", "a", 3, 0, 1)


# ---------------------------------------------------------------- several queries


def test_several_queries_are_fused_by_rank(
    retriever: Retriever, find: Find, world: World, rng: np.random.Generator
) -> None:
    for name in "ab":
        world.commit(name, random_legs(rng, 20))
    queries, weights = [random_query(rng) for _ in range(3)], [1.0, 0.5, 2.0]
    alone = [find(query, top_k=40, rerank_candidates=40).hits for query in queries]
    expected: dict[str, float] = {}
    for hits, weight in zip(alone, weights, strict=True):
        for rank, hit in enumerate(hits, 1):
            expected[hit.chunk_id] = expected.get(hit.chunk_id, 0) + weight / (60 + rank)
    request = SearchRequest(top_k=40, rerank_candidates=40)
    result = search_many(retriever, "default", "docs", queries, request, weights)
    assert {hit.chunk_id: hit.score for hit in result.hits} == pytest.approx(expected)
    assert [hit.chunk_id for hit in result.hits] == sorted(expected, key=lambda key: (-expected[key], key))
    for hit in result.hits:
        ranks = [[one.chunk_id for one in hits].index(hit.chunk_id) for hits in alone]
        assert hit.query == ranks.index(min(ranks))
        assert hit.dense == alone[hit.query][min(ranks)].dense


def test_several_queries_page_group_and_bring_neighbours_as_one_does(
    retriever: Retriever, world: World, rng: np.random.Generator
) -> None:
    for name in "abcd":
        world.commit(name, random_legs(rng, 8))
    queries = [random_query(rng) for _ in range(2)]
    whole = search_many(retriever, "default", "docs", queries, SearchRequest(top_k=32)).hits
    second = search_many(retriever, "default", "docs", queries, SearchRequest(top_k=5, offset=5, neighbours=1))
    assert [hit.chunk_id for hit in second.hits] == [hit.chunk_id for hit in whole[5:10]]
    assert all(hit.before or hit.after for hit in second.hits)
    grouped = search_many(retriever, "default", "docs", queries, SearchRequest(top_k=2, group_size=1))
    assert [hit.object_id for hit in grouped.hits] == list(dict.fromkeys(hit.object_id for hit in whole))[:2]
    assert grouped.ranked == 4


def test_one_query_of_several_is_that_query(
    retriever: Retriever, find: Find, world: World, rng: np.random.Generator
) -> None:
    world.commit("a", random_legs(rng, 8))
    query = random_query(rng)
    assert search_many(retriever, "default", "docs", [query], SearchRequest()).hits == find(query).hits


@pytest.mark.parametrize(
    ("count", "options", "weights", "message"),
    [
        (0, {}, [], "0 queries"),
        (17, {}, [], "17 queries"),
        (2, {}, [1.0], "one per query"),
        (2, {}, [1.0, 0.0], "above zero"),
        (2, {"min_score": 0.1, "fusion": {"normalization": "none"}}, [], "fused by rank"),
    ],
)
def test_queries_that_cannot_be_fused_are_refused(
    retriever: Retriever,
    rng: np.random.Generator,
    count: int,
    options: dict[str, Any],
    weights: list[float],
    message: str,
) -> None:
    request = SearchRequest.model_validate(options)
    with pytest.raises(InvalidRequest, match=message):
        search_many(retriever, "default", "docs", [random_query(rng) for _ in range(count)], request, weights)
