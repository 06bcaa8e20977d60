"""What every retriever must give, so that a hit can be explained down to its words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.indexed import indexed
from tests.support.parts import OPTIONS
from tests.unit.retrieval.readable import WORDS, Reader
from tests.unit.retrieval.world import World
from trivet.errors import StoreUnavailable
from trivet.retrieval import Hit, Retriever, SearchRequest
from trivet.retrieval.exact import ExactRetriever
from trivet.retrieval.explaining import Explanation, explain
from trivet.retrieval.query import EncodedQuery
from trivet.values import Outputs

TEXTS = [f"the {word} and {WORDS[i - 1]}, a {word}" for i, word in enumerate(WORDS)]


@pytest.fixture(params=["float16", "int8", "list", "cut", "pooled", "all but list", "all but int8"])
def world(request: pytest.FixtureRequest) -> World:
    return World(outputs=Outputs(**OPTIONS[request.param]))


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture(params=["exact", "memory"])
def retriever(request: pytest.FixtureRequest, world: World) -> Retriever:
    return world.memory if request.param == "memory" else ExactRetriever(world.store, world.prefix, threads=3)


def search(
    retriever: Retriever, reader: Reader, text: str, **options: Any
) -> tuple[EncodedQuery, list[tuple[Hit, Explanation]]]:
    query = reader.queries.encode(text)
    hits = retriever.search("default", "docs", query.legs, SearchRequest.model_validate({"top_k": 50} | options)).hits
    return query, list(zip(hits, explain(retriever, "default", reader.tokenizer, query, hits), strict=True))


def test_the_contributions_add_up_to_the_scores_of_the_legs(world: World, retriever: Retriever, reader: Reader) -> None:
    reader.commit(world, TEXTS, context="Guide > 東京", parts=4)
    query, found = search(retriever, reader, "tower lighthouse 東京 กรุงเทพ?")
    assert len(found) == len(TEXTS)
    for hit, why in found:
        assert hit.chunk_id == why.chunk_id
        assert hit.sparse is not None
        assert hit.colbert is not None
        assert why.terms is not None
        parts = [term.contribution for term in why.terms]
        assert sum(parts) == pytest.approx(hit.sparse.score, abs=1e-5)
        assert parts == sorted(parts, reverse=True)
        assert all(term.contribution == term.query_weight * term.weight for term in why.terms)
        if world.outputs.colbert_pooling > 1:
            assert why.alignment is None
            assert "pools" in why.alignment_missing
        else:
            assert why.alignment is not None
            assert len(why.alignment) == query.tokens - 1
            assert sum(match.contribution for match in why.alignment) == pytest.approx(hit.colbert.score, abs=1e-5)


def test_spans_are_those_of_the_tokens_in_query_chunk_and_document(
    world: World, retriever: Retriever, reader: Reader
) -> None:
    reader.commit(world, TEXTS, context="Guide", parts=2)
    query, found = search(retriever, reader, "lighthouse")
    for hit, why in found:
        assert (why.page_start, why.page_end) == (hit.page_start, hit.page_end)
        for term in why.terms or ():
            assert all(hit.text[start:end] == term.term for start, end in term.spans)
        for match in why.alignment or ():
            assert match.query_span is None or query.text[slice(*match.query_span)] == match.query_token
            assert match.chunk_span is None or hit.text[slice(*match.chunk_span)] == match.chunk_token
        for shown in why.highlights:
            assert 0 <= shown.start < shown.end <= len(hit.text)
            assert (shown.char_start, shown.char_end) == (shown.start + hit.char_start, shown.end + hit.char_start)
    (words,) = ([hit.text[h.start : h.end] for h in why.highlights] for hit, why in found if hit.ordinal == 1)
    assert words.count("lighthouse") == 2


@pytest.mark.parametrize("query", WORDS)
def test_the_words_of_the_query_are_highlighted_in_every_script(
    world: World, retriever: Retriever, reader: Reader, query: str
) -> None:
    reader.commit(world, TEXTS)
    _, found = search(retriever, reader, query)
    ((hit, why),) = (pair for pair in found if pair[0].ordinal == WORDS.index(query))
    shown = {i for highlight in why.highlights for i in range(highlight.start, highlight.end)}
    first, last = hit.text.index(query), hit.text.rindex(query)
    assert shown >= {*range(first, first + len(query)), *range(last, last + len(query))}


def test_what_is_not_stored_or_not_computed_is_none_with_the_reason(
    world: World, retriever: Retriever, reader: Reader
) -> None:
    reader.commit(world, TEXTS, outputs=Outputs(sparse=False, colbert="off"))
    for _, why in search(retriever, reader, "tower")[1]:
        assert (why.terms, why.alignment, why.highlights) == (None, None, ())
        assert "sparse leg is not stored" in why.terms_missing
        assert "MaxSim was not computed" in why.alignment_missing


def test_without_rerank_the_terms_alone_are_explained(world: World, retriever: Retriever, reader: Reader) -> None:
    reader.commit(world, TEXTS)
    _, found = search(retriever, reader, "tower", rerank=False)
    assert all(why.alignment is None and why.terms is not None for _, why in found)
    shown = {(hit.ordinal, hit.text[one.start : one.end]) for hit, why in found for one in why.highlights}
    assert {ordinal for ordinal, word in shown if word == "tower"} == {0, 1}


def test_a_term_of_the_context_counts_and_has_no_place_in_the_text(
    world: World, retriever: Retriever, reader: Reader
) -> None:
    reader.commit(world, ["nothing"], context="tower")
    ((_, why),) = search(retriever, reader, "tower", rerank=False)[1]
    assert why.terms is not None
    assert [term.spans for term in why.terms if term.term == "tower"] == [()]
    assert why.highlights == ()


def test_vectors_are_of_the_generation_that_was_found_or_an_error_says_that_it_is_gone(
    world: World, retriever: Retriever, reader: Reader
) -> None:
    reader.commit(world, TEXTS)
    query = reader.queries.encode("tower")
    hits = retriever.search("default", "docs", query.legs, SearchRequest()).hits
    expected = explain(retriever, "default", reader.tokenizer, query, hits)
    reader.commit(world, ["another"], generation=2)
    try:
        assert explain(retriever, "default", reader.tokenizer, query, hits) == expected
    except StoreUnavailable:
        assert isinstance(retriever, type(world.memory))
    world.store.delete(world.layout.manifest("a", 1))
    with pytest.raises(StoreUnavailable, match="is gone since"):
        explain(retriever, "default", reader.tokenizer, query, hits)


def test_a_hit_out_of_the_index_is_explained_as_the_same_hit_of_exact_search(
    world: World, reader: Reader, tmp_path: Path
) -> None:
    reader.commit(world, TEXTS, context="Guide > 東京", parts=4)
    exact = ExactRetriever(world.store, world.prefix, threads=3)
    _, expected = search(exact, reader, "tower lighthouse 東京 กรุงเทพ?")
    with indexed(world, tmp_path / "index") as held:
        _, found = search(held, reader, "tower lighthouse 東京 กรุงเทพ?")
    assert len(found) == len(TEXTS)
    wanted = {hit.chunk_id: (hit, why) for hit, why in expected}
    for hit, why in found:
        want, because = wanted[hit.chunk_id]
        assert why == because
        assert why.terms
        assert (hit.text, hit.char_start, hit.page_start) == (want.text, want.char_start, want.page_start)
        for leg in ("dense", "sparse", "colbert"):
            mine, theirs = getattr(hit, leg), getattr(want, leg)
            # MaxSim in the index rounds to float16, which may change the places of two that score the same.
            assert mine == replace(theirs, score=pytest.approx(theirs.score, abs=2e-3), rank=mine.rank)
            tied = sum(abs(getattr(one, leg).score - theirs.score) < 4e-3 for one, _ in expected)
            assert (mine.rank is None) == (theirs.rank is None)
            assert mine.rank is None or abs(mine.rank - theirs.rank) < tied
