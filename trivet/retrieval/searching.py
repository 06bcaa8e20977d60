"""Search by text: what the command line, the HTTP API and integrations call.

searcher = Searcher(settings)
found = searcher.search(client.collection("docs"), "Who elects the project leader?", SearchRequest(top_k=5))
for hit, why in zip(found.hits, searcher.explain(found)):
    print(hit.score, hit.text)
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from trivet.retrieval import Hit, Retriever, SearchRequest, SearchResult, open_retriever
from trivet.retrieval.explaining import Explanation, explain
from trivet.retrieval.many import search_many
from trivet.retrieval.query import EncodedQuery, QueryEncoder
from trivet.settings import Settings
from trivet.values import Collection, ModelIdentity, Pipeline


@dataclass(frozen=True, slots=True)
class Found:
    """What a search by text found, and for which queries."""

    collection: Collection
    queries: tuple[EncodedQuery, ...]
    #: That encoded the queries.
    model: ModelIdentity
    result: SearchResult

    @property
    def hits(self) -> tuple[Hit, ...]:
        """The hits, best first."""
        return self.result.hits

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user: what was cut, or left out."""
        return (*(note for query in self.queries for note in query.notes), *self.result.stats.notes)


class Searcher:
    """Searches any collection of a system. Thread-safe; make one per process and keep it.

    A collection's model is loaded when it is first searched, and stays loaded; each model remembers its last queries.
    """

    def __init__(self, settings: Settings, retriever: Retriever | None = None) -> None:
        """`retriever` is that of the settings if none is given."""
        self._settings = settings
        self.retriever = retriever or open_retriever(settings)
        self._encoders: dict[tuple[str, str], QueryEncoder] = {}
        self._lock = threading.Lock()

    def search(
        self,
        collection: Collection,
        queries: str | Sequence[str],
        request: SearchRequest | None = None,
        weights: Sequence[float] = (),
    ) -> Found:
        """Hits for a query, or for several that are fused (`trivet.retrieval.many`).

        Raises `InvalidRequest` for what cannot be searched for, `ModelUnavailable`, `ModelInvalid` and
        `MissingDependency` for a model that cannot be loaded, and the store's errors.
        """
        encoder = self.encoder(collection.pipeline)
        texts = [queries] if isinstance(queries, str) else queries
        encoded = tuple(encoder.encode(text) for text in texts)
        legs = [query.legs for query in encoded]
        result = search_many(
            self.retriever, collection.namespace, collection.name, legs, request or SearchRequest(), weights
        )
        return Found(collection, encoded, encoder.identity, result)

    def explain(self, found: Found) -> tuple[Explanation, ...]:
        """Why each hit was found, in their order; see `trivet.retrieval.explaining.explain`."""
        tokenizer = self.encoder(found.collection.pipeline).tokenizer
        whys: dict[str, Explanation] = {}
        for number, query in enumerate(found.queries):
            hits = [hit for hit in found.hits if hit.query == number]
            explained = explain(self.retriever, found.collection.namespace, tokenizer, query, hits)
            whys |= {why.chunk_id: why for why in explained}
        return tuple(whys[hit.chunk_id] for hit in found.hits)

    def encoder(self, pipeline: Pipeline) -> QueryEncoder:
        """The encoder of a pipeline's model, loaded once."""
        key = (pipeline.model_id, pipeline.revision)
        with self._lock:  # two threads must not load a model twice
            if key not in self._encoders:
                self._encoders[key] = QueryEncoder.load(
                    self._settings,
                    pipeline.model_id,
                    revision=pipeline.revision,
                    backend=self._settings.encoder_backend,
                )
            return self._encoders[key]
