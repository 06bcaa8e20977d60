"""Retriever stages in Mixpeek's shapes, as values: what is read of each, and what is passed over.

Fields are those of the published SDK (mixpeek 1.3.783, MIT). What only says how fast or how long something may run is
passed over; what would change the result and is not there in Trivet is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from trivet.errors import InvalidRequest
from trivet.values import Frozen

#: The stages that there are, by `stage_id`.
STAGE_IDS = ("feature_search", "attribute_filter", "rerank", "maxsim_rerank")
#: Of any stage: says nothing about the result.
_PASSED_OVER = frozenset(
    {
        "auto_preprocess",
        "batch_size",
        "cache_behavior",
        "cache_ttl_seconds",
        "degrade_retry",
        "document_field",
        "field_hints",
        "hard_timeout_ms",
        "interactive",
        "max_concurrent_batches",
        "max_document_chars",
        "on_empty",
        "optional",
        "relevance_criteria",
        "score_field",
    }
)


class _Stage(Frozen):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _given(cls, given: Any) -> Any:
        # The generated client writes its defaults, absent ones as null or as the text "null".
        if not isinstance(given, Mapping):
            return given
        return {
            name: value
            for name, value in given.items()
            if value is not None and value != "null" and name not in _PASSED_OVER
        }


class StageQuery(_Stage):
    """The text of one search, after templates were filled in."""

    input_mode: Literal["text"] = "text"
    value: str = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _text(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {"value": given}
        if isinstance(given, Mapping) and "text" in given and given.get("value") is None:
            return {**{name: value for name, value in given.items() if name != "text"}, "value": given["text"]}
        return given


class Search(_Stage):
    """One search of `feature_search`."""

    feature_uri: str = Field(min_length=1)
    query: StageQuery
    top_k: int = Field(100, ge=1, le=5000)
    min_score: float | None = None
    weight: float = Field(1.0, gt=0)
    lexical: Literal[False] = False
    collection_identifiers: tuple[str, ...] = ()


class GroupBy(_Stage):
    """Groups of `feature_search`; by object alone."""

    field: Literal["object_id", "source_object_id", "root_object_id"]
    max_per_group: int = Field(1, ge=1, le=100)
    limit: int = Field(25, ge=1, le=500)
    output_mode: Literal["first", "all", "flatten"] = "all"


class FeatureSearch(_Stage):
    """Candidates: one or several searches, fused."""

    stage_id: Literal["feature_search"]
    searches: tuple[Search, ...] = Field(min_length=1, max_length=10)
    final_top_k: int = Field(25, ge=1, le=1000)
    fusion: Literal["rrf", "dbsf", "weighted", "max"] = "rrf"
    group_by: GroupBy | None = None
    collection_identifiers: tuple[str, ...] = ()


class AttributeFilter(_Stage):
    """One condition, or a tree of them; `trivet.retrieval.stage_filters` reads it."""

    stage_id: Literal["attribute_filter"]
    field: str = ""
    operator: str = "eq"
    value: Any = None
    conditions: dict[str, Any] | None = None
    case_insensitive: Literal[False] = False


class Rerank(_Stage):
    """The candidates again, by MaxSim fused with what found them."""

    stage_id: Literal["rerank"]
    query: StageQuery | None = None
    #: A reranker that Trivet has none of is refused, never replaced.
    inference_name: str = ""
    feature_uri: str = ""
    top_k: int | None = Field(None, ge=1, le=1000)
    max_candidates: int | None = Field(None, ge=1, le=1000)


class MaxsimRerank(_Stage):
    """The candidates again, by MaxSim alone."""

    stage_id: Literal["maxsim_rerank"]
    feature_uri: str = Field(min_length=1)
    query: StageQuery | None = None
    top_n: int | None = Field(None, ge=1, le=1000)
    match_on: Literal["document_id"] = "document_id"
    missing: Literal["bottom", "drop"] = "bottom"


Stage: TypeAlias = FeatureSearch | AttributeFilter | Rerank | MaxsimRerank
_STAGES: TypeAdapter[Stage] = TypeAdapter(Annotated[Stage, Field(discriminator="stage_id")])


def read_stage(number: int, stage: Mapping[str, Any]) -> Stage:
    """One stage, its templates filled in; `number` counts from 1. Raises `InvalidRequest` in one sentence."""
    config = stage.get("config") or {} if isinstance(stage, Mapping) else None
    if not isinstance(config, Mapping):
        raise InvalidRequest(f"Stage {number} is no stage.", hint="Write {stage_name, config: {stage_id, parameters}}.")
    stage_id = config.get("stage_id") or stage.get("stage_id") or stage.get("type") or stage.get("stage_name")
    if stage_id not in STAGE_IDS:
        raise InvalidRequest(
            f"Stage {number} is a {str(stage_id)[:60]!r}, which there is not.", hint=f"Use {', '.join(STAGE_IDS)}."
        )
    parameters = config.get("parameters") or stage.get("parameters")
    if parameters is None:
        outer = {"config", "stage_id", "type", "stage_name", "stage_type", "description"}
        parameters = {name: value for name, value in stage.items() if name not in outer}
    if not isinstance(parameters, Mapping):
        raise InvalidRequest(f"Stage {number} ({stage_id}): its parameters are no object.")
    try:
        return _STAGES.validate_python({**parameters, "stage_id": stage_id})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != stage_id)
        what = "there is no such parameter" if first["type"] == "extra_forbidden" else first["msg"].rstrip(".").lower()
        raise InvalidRequest(f"Stage {number} ({stage_id}): {where or 'parameters'}: {what}.") from None
