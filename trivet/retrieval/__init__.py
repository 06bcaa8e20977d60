"""Retrieval: the seam, its values, and its registry.

A retriever scores a query's three legs against the committed chunks of one collection, fuses them and reranks by
MaxSim. `exact` reads the Parquet parts themselves, `memory` is its twin, `index` asks the process that owns the index;
all pass `tests/contract/test_retrievers.py`. Scores are those of `trivet.retrieval.scores`, fusion is
`trivet.retrieval.fusion`, what a filter lets through `trivet.retrieval.filters`, which part of a ranking is returned
`trivet.retrieval.paging`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from trivet.errors import InvalidRequest
from trivet.retrieval.conditions import Condition, Expression, Group, Op
from trivet.retrieval.requests import DEFAULT_WEIGHTS, Filters, Fusion, Leg, Pages, SearchRequest
from trivet.retrieval.results import Hit, LegScore, Passage, SearchResult, SearchStats, Section, StoredVectors
from trivet.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "DEFAULT_WEIGHTS",
    "RETRIEVERS",
    "Condition",
    "Expression",
    "Filters",
    "Fusion",
    "Group",
    "Hit",
    "Leg",
    "LegScore",
    "Op",
    "Pages",
    "Passage",
    "QueryLegs",
    "Retriever",
    "SearchRequest",
    "SearchResult",
    "SearchStats",
    "Section",
    "StoredVectors",
    "open_retriever",
]


@dataclass(frozen=True, slots=True)
class QueryLegs:
    """A query, encoded once."""

    #: `ModelIdentity.encoder_key` of the model that encoded it: only parts of the same model can be compared.
    encoder_key: str
    #: [d] float32, L2-normalised.
    dense: NDArray[np.float32]
    #: [terms] uint32, ascending, no id twice; [terms] float32 weights > 0.
    sparse_ids: NDArray[np.uint32]
    sparse_weights: NDArray[np.float32]
    #: [tokens - 1, d] float32, L2-normalised per token; [0, 0] where the model was run without this leg.
    colbert: NDArray[np.float32]


class Retriever(Protocol):
    """Search over the visible generations of one collection."""

    def search(self, namespace: str, collection: str, query: QueryLegs, request: SearchRequest) -> SearchResult:
        """The best chunks. A collection without committed objects gives no hits.

        Ends with `trivet.retrieval.paging.page` and `trivet.retrieval.extras.with_extras`. Raises `InvalidRequest`
        (unknown fusion method, a query of other dimensions), and the store's errors.
        """
        ...

    def vectors(self, namespace: str, hits: Sequence[Hit]) -> tuple[StoredVectors, ...]:
        """The vectors of hits that `search` gave, in their order; what `trivet.retrieval.explaining` asks for.

        Reads the very generation that was found. Raises `StoreUnavailable` where that is gone since, `StoreDamaged`
        where it does not hold the chunk, and the store's errors.
        """
        ...

    def passages(
        self, namespace: str, collection: str, object_id: str, generation: int, first: int, last: int
    ) -> tuple[Passage, ...]:
        """Chunks `first` to `last` (ordinals, both included) of one generation, in order; those that there are.

        Raises `StoreUnavailable` where the generation is gone, and the store's errors.
        """
        ...


#: Name → module:class, imported only when it is asked for.
RETRIEVERS = {
    "exact": "trivet.retrieval.exact:ExactRetriever",
    "index": "trivet.retrieval.remote:RemoteRetriever",
    "auto": "trivet.retrieval.remote:AutoRetriever",
}


def open_retriever(settings: Settings, name: str = "") -> Retriever:
    """The retriever of this name, else of the settings': over their store and the index of their state folder.

    `auto` asks the index and, where it does not answer or is still being filled, reads the parts. Raises
    `MissingDependency` without pyarrow.
    """
    name = name or settings.retriever
    if name not in RETRIEVERS:
        raise InvalidRequest(f"No retriever is called {name!r}.", hint=f"Choose one of {', '.join(RETRIEVERS)}.")
    module, kind = RETRIEVERS[name].split(":")
    retriever: Retriever = getattr(import_module(module), kind).open(settings)
    return retriever
