"""Retrievers: search pipelines that are kept, and their execution."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StrictBool, StrictInt

from producers.http.answers import Deleted, timestamp
from producers.http.caller import Caller, CallerOf
from producers.http.context import Context, ContextOf
from producers.http.naming import collection_id, collection_named
from producers.http.once import new_id
from producers.http.paging import Page, PageBody, PageQuery, PageRequest, cursor_to, number_from, page_of
from producers.http.route import router as make_router
from producers.http.searching import ExecuteAnswer, KeptRetriever, check_stages, execute, shelf
from trivet.errors import InvalidRequest

router = make_router("retrievers")
_STAGES: list[dict[str, Any]] = [
    {
        "stage_name": "search",
        "config": {
            "stage_id": "feature_search",
            "parameters": {
                "searches": [
                    {
                        "feature_uri": "mixpeek://text_extractor@v1",
                        "query": {"input_mode": "text", "value": "{{INPUT.query}}"},
                        "top_k": 100,
                    }
                ],
                "final_top_k": 10,
            },
        },
    }
]
_EXAMPLE: dict[str, Any] = {
    "retriever_name": "reports-search",
    "stages": _STAGES,
    "collection_identifiers": ["reports"],
    "input_schema": {"query": {"type": "text"}},
}
_AD_HOC: dict[str, Any] = {
    "stages": _STAGES,
    "collection_identifiers": ["reports"],
    "inputs": {"query": "leader"},
}


class RetrieverRequest(BaseModel):
    """A new retriever."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"example": _EXAMPLE})

    retriever_name: str = Field(min_length=1, max_length=200, validation_alias=AliasChoices("retriever_name", "name"))
    description: str | None = Field(None, max_length=2000)
    stages: list[dict[str, Any]] = Field(min_length=1, max_length=20)
    collection_identifiers: list[str] = Field(
        default_factory=list,
        max_length=20,
        validation_alias=AliasChoices("collection_identifiers", "collection_ids"),
        description="Ids or names; all of the namespace where none are named.",
    )
    input_schema: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    tags: list[str] | None = Field(None, max_length=50)


class RetrieverPatch(BaseModel):
    """What is to change."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"example": {"description": "Of all reports"}})

    description: str | None = Field(None, max_length=2000)
    stages: list[dict[str, Any]] | None = Field(None, min_length=1, max_length=20)
    collection_identifiers: list[str] | None = Field(None, max_length=20)
    input_schema: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


class RetrieverAnswer(BaseModel):
    """A retriever."""

    retriever_id: str = Field(examples=["ret_0123456789ab"])
    retriever_name: str
    description: str | None = None
    stages: list[dict[str, Any]]
    collection_identifiers: list[str]
    collection_ids: list[str]
    input_schema: dict[str, Any]
    metadata: dict[str, Any]
    tags: list[str]
    version: int = 1
    fusion: str | None = None
    created_at: str


class PageAsked(BaseModel):
    """Which page of the ranking."""

    model_config = ConfigDict(extra="ignore")

    method: str | None = None
    page_number: StrictInt = Field(1, ge=1, le=1000, validation_alias=AliasChoices("page_number", "page"))
    page_size: StrictInt | None = Field(None, ge=1, le=1000, validation_alias=AliasChoices("page_size", "limit"))


class ExecuteRequest(BaseModel):
    """What to search for."""

    model_config = ConfigDict(
        extra="ignore", json_schema_extra={"example": {"inputs": {"query": "Who elects the leader?"}}}
    )

    inputs: dict[str, Any] = Field(default_factory=dict)
    filters: dict[str, Any] | None = None
    pagination: PageAsked | None = None
    limit: StrictInt | None = Field(None, ge=1, le=1000)
    return_vectors: StrictBool = False

    def page(self) -> tuple[int | None, int]:
        """Size and number."""
        asked = self.pagination or PageAsked()
        size = asked.page_size or self.limit
        if size is None and asked.page_number > 1:
            raise InvalidRequest("pagination has a page_number without a page_size.")
        return size, asked.page_number


class AdHocRequest(ExecuteRequest):
    """A pipeline that is not kept, and what to search for."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"example": _AD_HOC})

    stages: list[dict[str, Any]] = Field(min_length=1, max_length=20)
    collection_identifiers: list[str] = Field(
        default_factory=list,
        max_length=20,
        validation_alias=AliasChoices("collection_identifiers", "collection_ids"),
    )


@router.post("/retrievers", operation_id="create_retriever", summary="Create a retriever")
def create(context: ContextOf, who: CallerOf, request: Request, asked: RetrieverRequest) -> RetrieverAnswer:
    """Its stages are read now, so that one that could never run is refused."""
    check_stages(asked.stages, asked.input_schema or {})
    for each in asked.collection_identifiers:
        collection_named(context, who.namespace, each)
    value = KeptRetriever(
        created_at=context.clock.now(),
        retriever_name=asked.retriever_name,
        description=asked.description,
        stages=tuple(asked.stages),
        collection_identifiers=tuple(asked.collection_identifiers),
        input_schema=asked.input_schema or {},
        metadata=asked.metadata or {},
        tags=tuple(asked.tags or ()),
    )
    retriever_id = new_id(request, "ret", 12)
    kept, _ = shelf(context, who.namespace).make(retriever_id, value, name=asked.retriever_name)
    return _answer(context, who, retriever_id, kept)


@router.get("/retrievers", operation_id="list_retrievers", summary="List retrievers")
def list_by_query(context: ContextOf, who: CallerOf, asked: PageQuery) -> Page[RetrieverAnswer]:
    """The newest first."""
    return _page(context, who, asked)


@router.post("/retrievers/list", operation_id="list_retrievers_post", summary="List retrievers")
def list_by_body(context: ContextOf, who: CallerOf, asked: PageBody) -> Page[RetrieverAnswer]:
    """The same, asked in a body."""
    return _page(context, who, asked)


@router.post("/retrievers/execute", operation_id="execute_adhoc", summary="Search without a retriever")
def execute_adhoc(context: ContextOf, who: CallerOf, asked: AdHocRequest) -> ExecuteAnswer:
    """Stages in either of Mixpeek's shapes."""
    retriever = KeptRetriever(
        created_at=0,
        retriever_name="",
        stages=tuple(asked.stages),
        collection_identifiers=tuple(asked.collection_identifiers),
    )
    return _execute(context, who, "", retriever, asked)


@router.post("/retrievers/{retriever_id}/execute", operation_id="execute_retriever", summary="Search")
def execute_kept(
    context: ContextOf, who: CallerOf, retriever_id: str, asked: ExecuteRequest | None = None
) -> ExecuteAnswer:
    """Documents, best first."""
    found, retriever = shelf(context, who.namespace).get(retriever_id)
    return _execute(context, who, found, retriever, asked or ExecuteRequest())


@router.get("/retrievers/{retriever_id}", operation_id="get_retriever", summary="Get a retriever")
def get(context: ContextOf, who: CallerOf, retriever_id: str) -> RetrieverAnswer:
    """By id or by name."""
    return _answer(context, who, *shelf(context, who.namespace).get(retriever_id))


@router.patch("/retrievers/{retriever_id}", operation_id="update_retriever", summary="Change a retriever")
def update(context: ContextOf, who: CallerOf, retriever_id: str, asked: RetrieverPatch) -> RetrieverAnswer:
    """What is not named stays."""
    found, kept = shelf(context, who.namespace).get(retriever_id)
    changes = asked.model_dump(exclude_none=True)
    check_stages(changes.get("stages", list(kept.stages)), changes.get("input_schema", kept.input_schema))
    for each in asked.collection_identifiers or ():
        collection_named(context, who.namespace, each)
    changed = shelf(context, who.namespace).change(
        found, lambda value: KeptRetriever.model_validate({**value.model_dump(), **changes})
    )
    return _answer(context, who, found, changed)


@router.delete("/retrievers/{retriever_id}", operation_id="delete_retriever", summary="Delete a retriever")
def delete(context: ContextOf, who: CallerOf, retriever_id: str) -> Deleted:
    """Its collections stay."""
    found, _ = shelf(context, who.namespace).get(retriever_id)
    shelf(context, who.namespace).delete(found)
    return Deleted()


def _execute(
    context: Context, who: Caller, retriever_id: str, retriever: KeptRetriever, asked: ExecuteRequest
) -> ExecuteAnswer:
    size, page = asked.page()
    return execute(
        context,
        who.namespace,
        retriever,
        asked.inputs,
        retriever_id=retriever_id,
        filters=asked.filters,
        size=size,
        page=page,
        return_vectors=asked.return_vectors,
    )


def _page(context: Context, who: Caller, asked: PageRequest) -> Page[RetrieverAnswer]:
    found, rest = shelf(context, who.namespace).page(number_from("retrievers", asked.cursor), asked.limit)
    results = [_answer(context, who, retriever_id, kept) for retriever_id, kept in found]
    cursor = None if rest is None else cursor_to("retrievers", str(rest))
    return page_of(results, asked.limit, total=shelf(context, who.namespace).count(), next_cursor=cursor)


def _answer(context: Context, who: Caller, retriever_id: str, kept: KeptRetriever) -> RetrieverAnswer:
    stages = []
    for stage in kept.stages:
        config = stage.get("config") or {}
        # The SDK's generated class wants the parameters a second time, beside the config.
        stages.append({"stage_name": "stage", **stage, "config": config, "parameters": config.get("parameters") or {}})
    ids = {one.name: collection_id(who.namespace, one.name) for one in context.ledger.collections(who.namespace)}
    return RetrieverAnswer(
        retriever_id=retriever_id,
        retriever_name=kept.retriever_name,
        description=kept.description,
        stages=stages,
        collection_identifiers=list(kept.collection_identifiers),
        collection_ids=[ids.get(each, each) for each in kept.collection_identifiers],
        input_schema=kept.input_schema,
        metadata=kept.metadata,
        tags=list(kept.tags),
        created_at=timestamp(kept.created_at),
    )
