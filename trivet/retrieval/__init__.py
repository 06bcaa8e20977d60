"""Retrieval: the seam, its values, and its registry.

A retriever scores a query's three legs against the committed chunks of one collection, fuses them and reranks by
MaxSim. `exact` reads the Parquet parts themselves, `memory` is its twin; both pass
`tests/contract/test_retrievers.py`. Scores are those of `trivet.retrieval.scores`, fusion is `trivet.retrieval.fusion`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from pydantic import Field, field_validator, model_validator

from trivet.errors import InvalidRequest
from trivet.settings import Settings
from trivet.values import Frozen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Leg(StrEnum):
    """One of the three representations of a text."""

    DENSE = "dense"
    SPARSE = "sparse"
    COLBERT = "colbert"


# ---------------------------------------------------------------- what is asked


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


#: Measured: docs/decisions/default-fusion.md.
DEFAULT_WEIGHTS: Mapping[Leg, float] = {Leg.DENSE: 1.0, Leg.SPARSE: 0.3, Leg.COLBERT: 4.0}


class Fusion(Frozen):
    """How the legs become one score; see `trivet.retrieval.fusion` for the formulas."""

    #: Name in `trivet.retrieval.fusion.METHODS`: rrf, weighted, dbsf or max.
    method: str = "weighted"
    #: Weight per leg; 0 leaves the leg out (its scores are still shown). A leg not named has weight 0.
    weights: dict[Leg, float] = Field(default_factory=lambda: dict(DEFAULT_WEIGHTS))
    #: RRF's constant.
    k: float = Field(60.0, gt=0)
    #: How `weighted` makes the legs' scores comparable.
    normalization: Literal["minmax", "theoretical", "zscore", "none"] = "zscore"

    @field_validator("weights")
    @classmethod
    def _weights(cls, value: dict[Leg, float]) -> dict[Leg, float]:
        if any(not 0 <= weight < float("inf") for weight in value.values()) or not any(value.values()):
            raise ValueError("weights must be finite, not negative, and not all zero")
        return value

    def weight(self, leg: Leg) -> float:
        """The leg's weight."""
        return self.weights.get(leg, 0.0)


class Filters(Frozen):
    """Which chunks may be found; all conditions must hold."""

    #: None means every object.
    object_ids: tuple[str, ...] | None = None
    #: Empty means every language; chunks of unknown language match none.
    languages: tuple[str, ...] = ()
    #: Equality per key with the metadata of the object's ingest request.
    metadata: dict[str, Any] = Field(default_factory=dict)
    #: Chunks that lie on this page, at least in part.
    page: int | None = Field(None, ge=1)


class SearchRequest(Frozen):
    """What to find and how to rank it."""

    top_k: int = Field(10, ge=1, le=1000)
    #: Best chunks that the dense and the sparse leg each bring in.
    candidates: int = Field(100, ge=1, le=10_000)
    #: Score the best candidates by MaxSim too, and fuse again with all three legs.
    rerank: bool = True
    #: Candidates that MaxSim is computed for; each may cost a read of up to 8 MiB.
    rerank_candidates: int = Field(64, ge=1, le=1000)
    fusion: Fusion = Fusion()
    filters: Filters = Filters()

    @model_validator(mode="after")
    def _legs(self) -> Self:
        if not (self.fusion.weight(Leg.DENSE) or self.fusion.weight(Leg.SPARSE)):
            raise ValueError("dense and sparse bring in the candidates: at least one of them needs a weight above zero")
        return self


# ---------------------------------------------------------------- what is found


@dataclass(frozen=True, slots=True)
class LegScore:
    """A leg's own score (see `trivet.retrieval.scores`), and the rank among this leg's candidates.

    `rank` counts from 1; None where the leg did not bring the chunk in, yet its score is known.
    """

    score: float
    rank: int | None


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found."""

    chunk_id: str
    object_id: str
    collection: str
    generation: int
    ordinal: int
    text: str
    #: Heading path as it was embedded before the text, or empty.
    context: str
    heading_path: tuple[str, ...]
    page_start: int | None
    page_end: int | None
    #: `[char_start, char_end)` in the parsed document, in Unicode code points.
    char_start: int
    char_end: int
    language: str | None
    token_count: int
    #: Redacted.
    source_url: str
    metadata: dict[str, Any]
    #: The fused score: it orders the hits of one search, and means nothing between searches.
    score: float
    #: None where the leg has no score: not stored, or not among those that were reranked.
    dense: LegScore | None
    sparse: LegScore | None
    colbert: LegScore | None


@dataclass(frozen=True, slots=True)
class SearchStats:
    """What a search looked at. What it left out is here, never silent."""

    #: Visible objects in the collection (or of those asked for), and how many of them were scored.
    objects: int = 0
    objects_searched: int = 0
    #: Left out: embedded by another model than the query.
    objects_other_model: int = 0
    parts: int = 0
    row_groups: int = 0
    rows: int = 0
    #: Rows that the filters excluded.
    rows_filtered: int = 0
    rows_reranked: int = 0
    bytes_read: int = 0
    #: Seconds per step, in order: list, scan, rerank, load.
    seconds: Mapping[str, float] = field(default_factory=dict)
    #: Sentences for the user.
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, best first; equal scores are in order of chunk id."""

    hits: tuple[Hit, ...]
    stats: SearchStats


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """What a hit's sparse and ColBERT scores were computed from, as it is stored."""

    #: [terms] uint32 token ids, ascending, and [terms] float32 weights > 0; None where the leg is not stored.
    sparse: tuple[NDArray[np.uint32], NDArray[np.float32]] | None
    #: [vectors, d] float16, or float32 where int8 is stored; None where the hit has no ColBERT score.
    colbert: NDArray[np.float16] | NDArray[np.float32] | None
    #: Tokens that were pooled into one ColBERT vector; 1 where vector i is that of token i + 1.
    colbert_pooling: int


class Retriever(Protocol):
    """Search over the visible generations of one collection."""

    def search(self, namespace: str, collection: str, query: QueryLegs, request: SearchRequest) -> SearchResult:
        """The best chunks. A collection without committed objects gives no hits.

        Raises `InvalidRequest` (unknown fusion method, a query of other dimensions), and the store's errors.
        """
        ...

    def vectors(self, namespace: str, hits: Sequence[Hit]) -> tuple[StoredVectors, ...]:
        """The vectors of hits that `search` gave, in their order; what `trivet.retrieval.explaining` asks for.

        Reads the very generation that was found. Raises `StoreUnavailable` where that is gone since, `StoreDamaged`
        where it does not hold the chunk, and the store's errors.
        """
        ...


#: Name → module:class, imported only when it is asked for.
RETRIEVERS = {"exact": "trivet.retrieval.exact:ExactRetriever"}


def open_retriever(settings: Settings, name: str = "exact") -> Retriever:
    """The retriever of this name over the store that the settings name; `MissingDependency` without pyarrow."""
    if name not in RETRIEVERS:
        raise InvalidRequest(f"No retriever is called {name!r}.", hint=f"Choose one of {', '.join(RETRIEVERS)}.")
    module, kind = RETRIEVERS[name].split(":")
    retriever: Retriever = getattr(import_module(module), kind).open(settings)
    return retriever
