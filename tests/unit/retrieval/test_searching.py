"""One searcher for every client: a model is loaded once, and hits are explained by the query that found them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.unit.retrieval.readable import Reader
from tests.unit.retrieval.world import World
from trivet.errors import InvalidRequest, ModelUnavailable
from trivet.retrieval import SearchRequest
from trivet.retrieval.query import QueryEncoder
from trivet.retrieval.searching import Searcher
from trivet.settings import Settings
from trivet.values import Collection, Pipeline

DOCS = Collection(namespace="default", name="docs", pipeline=Pipeline(model_id="read"))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Model ids in the order in which they were loaded; all of them are the reader's model."""
    loaded: list[str] = []
    queries = Reader().queries

    def load(_settings: Settings, model_id: str, *, revision: str, backend: str) -> QueryEncoder:
        loaded.append(model_id)
        return queries

    monkeypatch.setattr(QueryEncoder, "load", load)
    return loaded


@pytest.fixture
def searcher(loads: list[str]) -> Searcher:
    world, reader = World(), Reader()
    reader.commit(world, ["the tower", "a lighthouse", "tower and lighthouse", "nothing"])
    return Searcher(Settings(), world.memory)


def test_a_model_is_loaded_once_however_many_threads_search(searcher: Searcher, loads: list[str]) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: searcher.search(DOCS, "tower"), range(16)))
    assert loads == ["read"]
    assert {tuple(hit.chunk_id for hit in one.hits) for one in found} == {tuple(hit.chunk_id for hit in found[0].hits)}
    searcher.search(DOCS.model_copy(update={"pipeline": Pipeline(model_id="other")}), "tower")
    assert loads == ["read", "other"]


def test_what_was_found_names_the_queries_and_the_model(searcher: Searcher) -> None:
    longest = searcher.encoder(DOCS.pipeline).identity.max_tokens
    found = searcher.search(DOCS, "tower " * longest, SearchRequest(top_k=1))
    assert [query.text for query in found.queries] == [("tower " * longest).strip()]
    assert found.model.encoder_key == found.queries[0].legs.encoder_key
    assert any("was cut to" in note for note in found.notes)


def test_each_hit_of_several_queries_is_explained_by_its_own(searcher: Searcher) -> None:
    found = searcher.search(DOCS, ["tower", "lighthouse"], SearchRequest(top_k=4))
    whys = searcher.explain(found)
    assert [why.chunk_id for why in whys] == [hit.chunk_id for hit in found.hits]
    assert {hit.query for hit in found.hits} == {0, 1}
    for hit, why in zip(found.hits, whys, strict=True):
        assert hit.sparse is not None
        assert why.terms is not None
        assert sum(term.contribution for term in why.terms) == pytest.approx(hit.sparse.score, abs=1e-5)


def test_an_empty_query_among_several_is_refused(searcher: Searcher) -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        searcher.search(DOCS, ["tower", " "])
    with pytest.raises(InvalidRequest, match="0 queries"):
        searcher.search(DOCS, [])


def test_a_model_that_cannot_be_had_is_named() -> None:
    searcher = Searcher(Settings(model_hub=False), World().memory)
    with pytest.raises(ModelUnavailable, match="no-such-model"):
        searcher.search(DOCS.model_copy(update={"pipeline": Pipeline(model_id="no-such-model")}), "tower")
