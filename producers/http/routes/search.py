"""Search as the library has it: all that `trivet.retrieval.SearchRequest` can ask for, and why a hit was found."""

from __future__ import annotations

from typing import Any, Self

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from producers.http.caller import CallerOf
from producers.http.context import ContextOf
from producers.http.naming import collection_id, collection_named
from producers.http.route import router as make_router
from producers.http.searching import check_vectors, loadable
from trivet.retrieval import SearchRequest

router: APIRouter = make_router("search")
_EXAMPLE: dict[str, Any] = {
    "queries": ["What may this domain be used for?"],
    "top_k": 3,
    "filters": {"languages": ["en"]},
    "neighbours": 1,
    "explain": True,
}


class SearchBody(SearchRequest):
    """What to search for, and how: the fields of the Python client's `SearchRequest` beside the queries."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"example": _EXAMPLE})

    queries: tuple[str, ...] = Field(min_length=1, max_length=16, description="Several are fused by rank.")
    weights: tuple[float, ...] = Field((), max_length=16, description="Of the queries; none: all alike.")
    explain: StrictBool = Field(False, description="Say of each hit which terms and tokens matched.")

    @model_validator(mode="after")
    def _vectors(self) -> Self:
        if self.return_vectors or self.explain:
            check_vectors(self)
        return self


class SearchAnswer(BaseModel):
    """Hits, best first."""

    collection_id: str
    model: str = Field(description="The model that encoded the queries.")
    hits: list[dict[str, Any]] = Field(
        description="Fields are those of `trivet.retrieval.Hit`, and `explanation` where it was asked for."
    )
    ranked: int = Field(description="Hits of the whole ranking that this page was cut from; groups, where there are.")
    stats: dict[str, Any] = Field(description="What was looked at, and the seconds of each step.")
    notes: list[str] = Field(description="Sentences: what was left out or cut.")


@router.post("/collections/{collection_identifier}/search", operation_id="search", summary="Search a collection")
def search(context: ContextOf, who: CallerOf, collection_identifier: str, asked: SearchBody) -> SearchAnswer:
    """With thresholds, groups, neighbours, sections and explanations; `/v1/retrievers` knows Mixpeek's stages."""
    from trivet.retrieval.as_json import found_json

    collection = collection_named(context, who.namespace, collection_identifier)
    own = {name: getattr(asked, name) for name in asked.model_fields_set & SearchRequest.model_fields.keys()}
    with loadable(collection):
        found = context.searcher.search(collection, asked.queries, SearchRequest(**own), asked.weights)
    whys = context.searcher.explain(found) if asked.explain else None
    return SearchAnswer(
        collection_id=collection_id(who.namespace, collection.name), **found_json(found, whys, colbert=False)
    )
