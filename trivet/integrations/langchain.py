"""LangChain: a retriever over any collection, and a vector store whose texts are embedded by Trivet's own workers.

    store = TrivetVectorStore("notes")
    store.add_texts(["Bees dance.", "Ants smell."], metadatas=[{"kind": "insect"}] * 2)
    store.similarity_search("How do bees talk?", k=1, filter={"kind": "insect"})

    retriever = TrivetRetriever(collection="docs", k=5)
    retriever.invoke("Who elects the project leader?")

Both search with all three legs. Queries are encoded in this process, which needs `trivet[search,langchain]`, and the
settings of S3; texts go through the ledger to the workers.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from pydantic import ConfigDict, Field

from trivet.client import Trivet
from trivet.errors import InvalidRequest, MissingDependency
from trivet.integrations.common import (
    Filter,
    data_url,
    hit_metadata,
    is_object_id,
    request_for,
    updated,
    wait_for_texts,
)
from trivet.parts.reader import read_current
from trivet.retrieval import Fusion, Hit, Leg, SearchRequest
from trivet.stores import open_store
from trivet.stores.layout import Layout
from trivet.values import Chunking, Collection, Pipeline

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.vectorstores import VectorStore
    from langchain_core.vectorstores.utils import maximal_marginal_relevance
except ImportError as error:
    raise MissingDependency(
        f"The LangChain integration needs the package {error.name!r}.", hint="Run: pip install 'trivet[langchain]'."
    ) from None

if TYPE_CHECKING:
    from trivet.retrieval.searching import Found

_LAST = (1 << 31) - 1
_MAXSIM = Fusion(weights={Leg.COLBERT: 1.0}, normalization="none")
_DENSE = Fusion(weights={Leg.DENSE: 1.0}, normalization="none")


class TrivetRetriever(BaseRetriever):
    """Chunks of a collection, best first, as LangChain documents.

    A document's `page_content` is the chunk's text, its `id` the chunk's, and its `metadata` those of
    `trivet.integrations.common.hit_metadata`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    #: Name of the collection.
    collection: str
    #: Documents to return.
    k: int = 4
    #: All else that a search can be told; its `top_k` is `k`.
    request: SearchRequest = SearchRequest()
    #: None: as the environment says.
    trivet: Trivet = Field(default_factory=Trivet, exclude=True)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002 - the framework's signature
        k: int | None = None,
        filter: Filter | None = None,  # noqa: A002 - the framework's name
    ) -> list[Document]:
        request = request_for(self.request, self.k if k is None else k, filter)
        return [_document(hit) for hit in self.trivet.search(self.collection, query, request).hits]


class TrivetVectorStore(VectorStore):
    """A collection as a vector store: `add_texts` ingests and waits, until what it added can be found.

    A text is an object, its id the object's; it is one chunk where the model takes it whole, else several, which then
    share the id. Documents have the metadata that were added with them and nothing else; `TrivetRetriever` tells more.
    Surrounding white space of a text is not kept.
    """

    def __init__(
        self,
        collection: str,
        *,
        trivet: Trivet | None = None,
        pipeline: Pipeline | None = None,
        request: SearchRequest | None = None,
        timeout: float = 300.0,
    ) -> None:
        """`collection` is created where there is none, with `pipeline`, or one that does not split texts.

        `request` is how to search; `timeout` the seconds that added and deleted texts are waited for.
        """
        self._trivet = trivet or Trivet()
        self._request = request or SearchRequest()
        self._timeout = timeout
        whole = Pipeline(chunking=Chunking(split_by="none"))
        self._collection: Collection = self._trivet.create_collection(
            collection, pipeline=pipeline or whole, exist_ok=True
        )

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """A store with these texts; `kwargs` are those of the constructor. Trivet embeds: `embedding` must be None."""
        if embedding is not None:
            raise InvalidRequest(
                "A Trivet collection is embedded by its own model, not by LangChain's embeddings.",
                hint="Give embedding=None, and the model as pipeline=Pipeline(model_id=…).",
            )
        store = cls(**kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    # ------------------------------------------------------------ writing

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Ingest texts and wait until searches find them; a text of a known id takes the place of that one.

        Returns their ids, new ones where none are given. At most `batch_size` texts are on their way at once; None sets
        no bound. Raises `InvalidRequest` for what cannot be ingested, `TrivetError` where a text failed, which says
        why, and `TimeoutError` where a batch takes too long.
        """
        _no_more(kwargs)
        given = list(texts)
        metadatas = metadatas or [{} for _ in given]
        named = [one or uuid.uuid4().hex for one in ids or [None] * len(given)]
        if not len(given) == len(metadatas) == len(named):
            raise InvalidRequest(f"{len(given)} texts have {len(metadatas)} metadata and {len(named)} ids.")
        rows = list(zip(given, metadatas, named, strict=True))
        size = max(len(rows) if batch_size is None else batch_size, 1)
        for first in range(0, len(rows), size):
            tasks = [
                self._trivet.ingest(data_url(text), collection=self._collection.name, object_id=one, metadata=metadata)
                for text, metadata, one in rows[first : first + size]
            ]
            wait_for_texts(self._trivet, tasks, self._timeout)
        return named

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Hide the texts of these ids, and wait until they cannot be found; unknown ids are passed over.

        All at once is another verb: a forgotten argument must not empty a collection.
        """
        _no_more(kwargs)
        if ids is None:
            raise InvalidRequest("No ids were given.", hint="To delete a whole collection: Trivet().deletes().")
        wait_for_texts(
            self._trivet,
            [self._trivet.delete(one, collection=self._collection.name) for one in ids if is_object_id(one)],
            self._timeout,
        )
        return True

    # ------------------------------------------------------------ reading

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The texts of these ids, in their order; unknown ones are passed over.

        One that is several chunks has an empty line between them.
        """
        settings = self._trivet.settings
        store, layout = open_store(settings), Layout.of(settings, self._collection.namespace, self._collection.name)
        retriever, found = self._trivet.searcher().retriever, []
        for one in filter(is_object_id, ids):
            manifest = read_current(store, layout, one)
            if manifest is None:
                continue
            passages = retriever.passages(
                self._collection.namespace, self._collection.name, one, manifest.generation, 0, _LAST
            )
            text = "\n\n".join(passage.text for passage in passages)
            found.append(Document(id=one, page_content=text, metadata=dict(manifest.metadata)))
        return found

    def similarity_search(
        self,
        query: str,
        k: int = 4,
        filter: Filter | None = None,  # noqa: A002 - the framework's name
        **kwargs: Any,
    ) -> list[Document]:
        """The k best documents."""
        return [document for document, _ in self.similarity_search_with_score(query, k, filter, **kwargs)]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        filter: Filter | None = None,  # noqa: A002 - the framework's name
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """The k best documents with their fused score, which orders them and means nothing between searches."""
        _no_more(kwargs)
        return self._pairs(self._found(query, request_for(self._request, k, filter)))

    def _similarity_search_with_relevance_scores(
        self,
        query: str,
        k: int = 4,
        filter: Filter | None = None,  # noqa: A002 - the framework's name
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """Ordered by a score that means the same in every search: MaxSim's mean cosine, or dense's, from 0 to 1."""
        _no_more(kwargs)
        request = request_for(self._request, k, filter)
        if self._collection.pipeline.outputs.colbert == "off":
            request = updated(request, rerank=False, rerank_fusion=None, fusion=_DENSE)
        else:
            request = updated(request, rerank=True, rerank_fusion=_MAXSIM)
        return [(document, min(max(score, 0.0), 1.0)) for document, score in self._pairs(self._found(query, request))]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,  # noqa: A002 - the framework's name
        **kwargs: Any,
    ) -> list[Document]:
        """k of the `fetch_k` best that are like the query and unlike one another, by their dense vectors."""
        _no_more(kwargs)
        request = updated(request_for(self._request, fetch_k, filter), return_vectors=True)
        found = self._found(query, request)
        vectors = [hit.vectors.dense for hit in found.hits if hit.vectors and hit.vectors.dense is not None]
        if len(vectors) < len(found.hits):
            raise InvalidRequest("The collection stores no dense vectors, which this search compares.")
        if not vectors:
            return []
        asked = found.queries[0].legs.dense[: len(vectors[0])]
        chosen = maximal_marginal_relevance(
            asked, [vector.tolist() for vector in vectors], lambda_mult=lambda_mult, k=k
        )
        return [self._plain(found.hits[i]) for i in chosen]

    def _found(self, query: str, request: SearchRequest) -> Found:
        return self._trivet.searcher().search(self._collection, query, request)

    def _pairs(self, found: Found) -> list[tuple[Document, float]]:
        return [(self._plain(hit), hit.score) for hit in found.hits]

    def _plain(self, hit: Hit) -> Document:
        return Document(id=hit.object_id, page_content=hit.text, metadata=dict(hit.metadata))


def _document(hit: Hit) -> Document:
    return Document(id=hit.chunk_id, page_content=hit.text, metadata=hit_metadata(hit))


def _no_more(kwargs: Mapping[str, Any]) -> None:
    if kwargs:
        raise InvalidRequest(f"There is no argument {next(iter(kwargs))!r}.")
