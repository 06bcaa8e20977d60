"""What is asked of a retriever: fusion, filters, and which part of the ranking to return."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import AwareDatetime, Field, StrictBool, StrictFloat, StrictInt, field_validator, model_validator

from trivet.retrieval.conditions import Condition, Expression, Group, equalities
from trivet.values import Frozen


class Leg(StrEnum):
    """One of the three representations of a text."""

    DENSE = "dense"
    SPARSE = "sparse"
    COLBERT = "colbert"


#: Measured: docs/decisions/default-fusion.md.
DEFAULT_WEIGHTS: Mapping[Leg, float] = {Leg.DENSE: 1.0, Leg.SPARSE: 0.3, Leg.COLBERT: 4.0}


class Fusion(Frozen):
    """How the legs become one score; see `trivet.retrieval.fusion` for the formulas."""

    #: Name in `trivet.retrieval.fusion.METHODS`: rrf, weighted, dbsf or max.
    method: str = "weighted"
    #: Weight per leg; 0 leaves the leg out (its scores are still shown). A leg not named has weight 0.
    weights: dict[Leg, float] = Field(default_factory=lambda: dict(DEFAULT_WEIGHTS))
    #: RRF's constant.
    k: StrictFloat = Field(60.0, gt=0)
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

    @property
    def absolute(self) -> bool:
        """Whether a score means the same in every search.

        True of `weighted` with normalization none alone, whose score is a mean of the legs' own; every other score
        depends on what else was a candidate.
        """
        return self.method == "weighted" and self.normalization == "none"


class Pages(Frozen):
    """Pages `first` to `last`, both included; None leaves an end open."""

    first: StrictInt | None = Field(None, ge=1)
    last: StrictInt | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.first is None and self.last is None:
            raise ValueError("pages needs first or last")
        if self.first is not None and self.last is not None and self.first > self.last:
            raise ValueError(f"pages ends with {self.last}, before its first, {self.first}")
        return self


class Filters(Frozen):
    """Which chunks may be found; all conditions must hold. `trivet.retrieval.filters` says it as code."""

    #: None means every object.
    object_ids: tuple[str, ...] | None = None
    #: Empty means every language; chunks of unknown language match none.
    languages: tuple[str, ...] = ()
    #: On the metadata of the object's ingest request. A dict is short for equality of each key.
    metadata: tuple[Expression, ...] = Field((), max_length=100)
    #: Chunks that lie on these pages, at least in part; chunks without pages match none. `page` is short for one page.
    pages: Pages | None = None
    #: Commit of the object's visible generation: at this time or later, and before this time.
    committed_from: AwareDatetime | None = None
    committed_before: AwareDatetime | None = None
    #: Chunks under these headings: their heading path begins with these titles, outermost first.
    heading: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _one_page(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or "page" not in given:
            return given
        if given.get("pages") is not None:
            raise ValueError("give page or pages, not both")
        rest = {name: value for name, value in given.items() if name != "page"}
        page = given["page"]
        return rest if page is None else {**rest, "pages": {"first": page, "last": page}}

    @field_validator("metadata", mode="before")
    @classmethod
    def _equalities(cls, given: Any) -> Any:
        if isinstance(given, Condition | Group):
            return (given,)
        return equalities(given) if isinstance(given, Mapping) else given

    @model_validator(mode="after")
    def _times(self) -> Self:
        if self.committed_from and self.committed_before and self.committed_from >= self.committed_before:
            raise ValueError("committed_from must lie before committed_before")
        return self


class SearchRequest(Frozen):
    """What to find, how to rank it, and which part of the ranking to return.

    Steps are switched off by weight and by `rerank`: a leg of weight 0 brings in no candidates and counts nothing.
    """

    #: Hits to return; with `group_size`, objects.
    top_k: StrictInt = Field(10, ge=1, le=1000)
    #: Hits (objects) of the ranking to pass over before the first that is returned; less than `window`, at which the
    #: last page ends, full or not.
    offset: StrictInt = Field(0, ge=0, le=10_000)
    #: Best chunks that the dense and the sparse leg each bring in.
    candidates: StrictInt = Field(100, ge=1, le=10_000)
    #: Score the best candidates by MaxSim too, and fuse again with all three legs.
    rerank: StrictBool = True
    #: Candidates that MaxSim is computed for; each may cost a read of up to 8 MiB.
    rerank_candidates: StrictInt = Field(64, ge=1, le=1000)
    fusion: Fusion = Fusion()
    #: Fusion after MaxSim; None: as before it. With colbert as its only weight MaxSim alone orders the candidates.
    rerank_fusion: Fusion | None = None
    filters: Filters = Filters()
    #: Least fused score of a hit; refused where the fusion's scores mean nothing between searches.
    min_score: StrictFloat | None = Field(None, allow_inf_nan=False)
    #: Least score that a hit must have in these legs: cosine for dense, MaxSim's mean cosine for colbert.
    min_leg_scores: dict[Leg, float] = Field(default_factory=dict)
    #: Group by object: the best so many chunks of each, objects in order of their best chunk. None: no groups.
    group_size: StrictInt | None = Field(None, ge=1, le=100)
    #: Chunks before and after each hit to return with it.
    neighbours: StrictInt = Field(0, ge=0, le=20)
    #: Return with each hit the section that it stands in, up to so many tokens around it. None: without.
    section_tokens: StrictInt | None = Field(None, ge=1, le=32_768)
    #: Return the stored vectors of each hit; ColBERT's of those that were reranked.
    return_vectors: StrictBool = False

    @property
    def reranks(self) -> bool:
        """Whether MaxSim is computed."""
        return self.rerank and self.final_fusion.weight(Leg.COLBERT) > 0

    @property
    def final_fusion(self) -> Fusion:
        """The fusion whose scores hits have."""
        return self.rerank_fusion or self.fusion

    @property
    def window(self) -> int:
        """Chunks of the ranking that pages can be cut from; the same for every page."""
        return max(self.rerank_candidates if self.reranks else self.candidates, self.top_k)

    @model_validator(mode="after")
    def _legs(self) -> Self:
        if not (self.fusion.weight(Leg.DENSE) or self.fusion.weight(Leg.SPARSE)):
            raise ValueError("dense and sparse bring in the candidates: at least one of them needs a weight above zero")
        if self.rerank_fusion and not (self.rerank and self.rerank_fusion.weight(Leg.COLBERT)):
            raise ValueError("rerank_fusion needs rerank, and a weight for colbert")
        return self

    @model_validator(mode="after")
    def _page(self) -> Self:
        if self.offset and self.offset >= self.window:
            depth = "rerank_candidates" if self.reranks else "candidates"
            raise ValueError(
                f"offset {self.offset} lies beyond the {self.window} candidates that are ranked; give a larger "
                f"{depth}, the same one for every page"
            )
        return self

    @model_validator(mode="after")
    def _thresholds(self) -> Self:
        if self.min_score is not None and not self.final_fusion.absolute:
            raise ValueError(
                f"min_score means nothing here: {_name(self.final_fusion)} scores depend on the other candidates; use "
                "min_leg_scores, such as dense=0.5, or fusion weighted with normalization none"
            )
        if Leg.COLBERT in self.min_leg_scores and not self.reranks:
            raise ValueError("min_leg_scores names colbert, which has no score without rerank")
        return self


def _name(fusion: Fusion) -> str:
    return f"{fusion.method} ({fusion.normalization})" if fusion.method == "weighted" else fusion.method
