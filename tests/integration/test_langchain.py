"""LangChain's own standard tests, on real workers; and what its users do beside them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests.retrievers import RetrieversIntegrationTests
from langchain_tests.integration_tests.vectorstores import VectorStoreIntegrationTests

from tests.support.fleet import Fleet, fleet
from tests.support.supervised import wait_until
from tests.support.web import Server, answer
from trivet.client import Trivet
from trivet.errors import InvalidRequest, TrivetError
from trivet.integrations.langchain import TrivetRetriever, TrivetVectorStore
from trivet.retrieval import Condition, SearchRequest
from trivet.retrieval.remote import reachable
from trivet.settings import Settings
from trivet.supervisor.workers import environment
from trivet.values import Outputs, Pipeline

DOCS = Path(__file__).parents[2] / "docs"
NOTES = """# Bees

Bees dance to tell one another where flowers are.

# Ants

Ants follow a trail of scent.

# Whales

Whales sing for hours under water.
"""


@pytest.fixture(scope="module")
def source() -> Iterator[Server]:
    server = Server({"/notes.md": answer(NOTES.encode(), Content_Type="text/markdown")})
    yield server
    server.close()


@pytest.fixture(scope="module")
def live(settings_for: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory, source: Server) -> Settings:
    return settings_for(
        tmp_path_factory.mktemp("langchain"),
        "langchain",
        model_aliases={"BAAI/bge-m3": "fake"},
        allow_addresses=(source.place,),
        retry_base_seconds=0.02,
        # What was waited for is to be found on a busy machine too, whose index needs more than a second.
        index_fresh_seconds=30,
    )


@pytest.fixture(scope="module")
def _workers(live: Settings) -> Iterator[Fleet]:
    with fleet(live) as made:
        made.start_all(concurrency=1)
        made.start("search", "--roles", "search")
        yield made


@pytest.fixture(scope="module")
def client(live: Settings, _workers: Fleet) -> Trivet:
    """Whose searches the index answers, as where `trivet up` runs."""
    wait_until(lambda: reachable(live), "the search process answers", 120)
    return Trivet(settings=live)


@pytest.fixture
def store(client: Trivet) -> TrivetVectorStore:
    """Over a collection that nothing else uses."""
    return TrivetVectorStore(f"c{uuid.uuid4().hex[:12]}", trivet=client)


@pytest.fixture(scope="module")
def notes(client: Trivet, source: Server) -> str:
    """Name of a collection with an object of several chunks, under headings, and two texts."""
    client.create_collection("notes", exist_ok=True)
    whole = client.ingest(source.url("/notes.md"), collection="notes", object_id="notes", metadata={"kind": "page"})
    assert whole.wait(timeout=60).state == "completed"
    added = TrivetVectorStore("notes", trivet=client)
    added.add_texts(["Birds sing in the morning.", "Stones are silent."], [{"kind": "text"}, {"kind": "stone"}])
    return "notes"


class TestStandardVectorStore(VectorStoreIntegrationTests):
    """The framework's suite, sync and async."""

    @pytest.fixture
    def vectorstore(self, store: TrivetVectorStore) -> VectorStore:
        return store


class TestStandardRetriever(RetrieversIntegrationTests):
    """The framework's suite, sync and async."""

    client: Trivet
    collection: str

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _filled(cls, client: Trivet, notes: str) -> None:
        cls.client, cls.collection = client, notes

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return TrivetRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"trivet": self.client, "collection": self.collection}

    @property
    def retriever_query_example(self) -> str:
        return "who sings?"


def test_a_text_that_failed_is_named(store: TrivetVectorStore) -> None:
    with pytest.raises(TrivetError, match="1 of 2 texts were not stored; empty: "):
        store.add_texts(["something", " "], ids=["full", "empty"])
    assert [found.id for found in store.get_by_ids(["full", "empty"])] == ["full"]


def test_what_the_workers_do_not_do_in_time_is_a_time_out(client: Trivet) -> None:
    store = TrivetVectorStore(f"c{uuid.uuid4().hex[:12]}", trivet=client, timeout=0)
    with pytest.raises(TimeoutError, match="is still"):
        store.add_texts(["something"])


def test_of_one_id_twice_the_last_text_stays(store: TrivetVectorStore) -> None:
    store.add_texts(["first", "second"], ids=["one", "one"])
    assert [found.page_content for found in store.get_by_ids(["one"])] == ["second"]


def test_wrong_arguments_are_refused_in_one_sentence(store: TrivetVectorStore) -> None:
    with pytest.raises(InvalidRequest, match="2 texts have 1 metadata"):
        store.add_texts(["a", "b"], [{}])
    with pytest.raises(InvalidRequest, match="is not valid"):
        store.add_texts(["a"], ids=["no / id"])
    with pytest.raises(InvalidRequest, match=r"half a character, '\\ud800', at 4"):
        store.add_texts(["text\ud800"])
    with pytest.raises(InvalidRequest, match="No ids were given"):
        store.delete()
    with pytest.raises(InvalidRequest, match="no argument 'namespace'"):
        store.similarity_search("a", namespace="b")
    with pytest.raises(InvalidRequest, match="embedded by its own model"):
        TrivetVectorStore.from_texts(["a"], DeterministicFakeEmbedding(size=6), collection="never")
    with pytest.raises(InvalidRequest, match="cannot be searched for"):
        store.similarity_search("a", k=0)
    assert store.get_by_ids(["no / id"]) == []
    assert store.delete(["no / id"])


def test_the_frameworks_own_indexing_adds_changes_and_removes(store: TrivetVectorStore) -> None:
    records = InMemoryRecordManager("records")
    records.create_schema()

    def run(*texts: str) -> Any:
        documents = [Document(page_content=text, metadata={"source": text[0]}) for text in texts]
        how: dict[str, Any] = {"cleanup": "full", "source_id_key": "source", "key_encoder": "sha256", "batch_size": 2}
        return index(documents, records, store, **how)

    assert run("a bee", "b ant", "c fly")["num_added"] == 3
    assert run("a bee", "b ant!") == {"num_added": 1, "num_updated": 0, "num_skipped": 1, "num_deleted": 2}
    assert {found.page_content for found in store.similarity_search("ant", k=9)} == {"a bee", "b ant!"}


def test_a_text_of_several_chunks_is_one_document_by_its_id(client: Trivet, store: TrivetVectorStore) -> None:
    sentences = [f"Sentence number {i} of a text that no model takes whole." for i in range(600)]
    store.add_texts([" ".join(sentences)], [{"kind": "long"}], ids=["long"])
    found = store.similarity_search("Sentence number 7 of a text", k=3)
    assert {document.id for document in found} == {"long"}
    assert len({document.page_content for document in found}) == 3
    (whole,) = store.get_by_ids(["long"])
    assert whole.metadata == {"kind": "long"}
    assert whole.page_content.split() == " ".join(sentences).split()


def test_filters_are_on_metadata(client: Trivet, notes: str) -> None:
    store = TrivetVectorStore(notes, trivet=client)
    assert [found.metadata for found in store.similarity_search("sing", filter={"kind": "stone"})] == [
        {"kind": "stone"}
    ]
    wide = Condition(key="kind", op="in", value=["stone", "text"])
    assert len(store.similarity_search("sing", k=9, filter=wide)) == 2
    both = SearchRequest.model_validate({"filters": {"metadata": {"kind": "text"}}})
    assert TrivetVectorStore(notes, trivet=client, request=both).similarity_search("x", filter={"kind": "stone"}) == []


def test_relevance_scores_lie_between_0_and_1_and_order_the_documents(client: Trivet, store: TrivetVectorStore) -> None:
    without = Pipeline(outputs=Outputs(colbert="off"))
    dense = TrivetVectorStore(f"c{uuid.uuid4().hex[:12]}", trivet=client, pipeline=without)
    for each in (store, dense):
        each.add_texts(["Birds sing in the morning.", "Stones are silent.", "Whales sing for hours under water."])
        found = each.similarity_search_with_relevance_scores("Birds sing in the morning.", k=3)
        scores = [score for _, score in found]
        assert found[0][0].page_content == "Birds sing in the morning."
        assert scores[0] == pytest.approx(1, abs=1e-3)
        assert scores == sorted(scores, reverse=True)
        assert each.similarity_search_with_relevance_scores("quux", k=9, score_threshold=0.99) == []


def test_marginal_relevance_prefers_what_is_unlike(store: TrivetVectorStore) -> None:
    assert store.max_marginal_relevance_search("anything") == []
    store.add_texts(["birds sing", "birds sing!", "stones are silent"], ids=["a", "b", "c"])
    found = store.max_marginal_relevance_search("birds sing", k=2, fetch_k=3, lambda_mult=0.1)
    assert {document.id for document in found} == {"a", "c"}
    retriever = store.as_retriever(search_type="mmr", search_kwargs={"k": 1})
    assert [document.id for document in retriever.invoke("birds sing")] == ["a"]


def test_the_retriever_tells_where_a_chunk_stands(client: Trivet, notes: str) -> None:
    request = SearchRequest(neighbours=1, section_tokens=200)
    retriever = TrivetRetriever(trivet=client, collection=notes, k=2, request=request)
    found = retriever.invoke("Whales sing for hours under water.", filter={"kind": "page"})
    (document,) = found[:1]
    assert isinstance(document, Document)
    assert document.metadata["source"].endswith("/notes.md")
    assert document.metadata["kind"] == "page"
    known = document.metadata["trivet"]
    assert (known["object_id"], known["collection"], document.id) == ("notes", "notes", known["chunk_id"])
    assert known["section"] == document.page_content or document.page_content in known["section"]
    assert set(known["legs"]) == {"dense", "sparse", "colbert"}


@pytest.mark.parametrize("page", ["langchain.md", "searching.md"])
def test_the_documented_patterns_run(
    page: str, live: Settings, client: Trivet, notes: str, source: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Block by block, in one namespace each page; what the page says that a line gives is asserted in it."""
    for name, value in environment(live, {}).items():
        monkeypatch.setenv(name, value)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
    assert blocks
    names: dict[str, Any] = {"__name__": page}
    for block in blocks:
        exec(compile(block.replace("https://example.com/notes.md", source.url("/notes.md")), page, "exec"), names)
