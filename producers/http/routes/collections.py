"""Collections: named sets of objects, each with one pipeline."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import Request
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StrictBool

from producers.http import collections as kept_collections
from producers.http.answers import Deleted, timestamp
from producers.http.buckets import buckets
from producers.http.caller import Caller, CallerOf
from producers.http.collections import KeptCollection, kept_of, make_collection
from producers.http.context import Context, ContextOf
from producers.http.extractors import (
    ExtractorRequest,
    VectorIndex,
    extractor_id,
    pipeline_of_all,
    running_model,
    vector_indexes,
)
from producers.http.naming import collection_id, collection_named
from producers.http.once import key_of
from producers.http.paging import Page, PageBody, PageQuery, PageRequest, cursor_from, cursor_to, page_of
from producers.http.route import router as make_router
from trivet.deleting.deletes import Deletes
from trivet.ledger.redis_holding import RedisHolding
from trivet.values import Collection

router = make_router("collections")
_EXAMPLE: dict[str, Any] = {
    "collection_name": "reports",
    "source": {"type": "bucket", "bucket_ids": ["bkt_0123456789"]},
    "feature_extractor": {
        "feature_extractor_name": "text_extractor",
        "version": "v1",
        "input_mappings": {"text": "content"},
        "parameters": {"embedding_model": "BAAI/bge-m3"},
    },
}


class SourceConfig(BaseModel):
    """Where a collection's objects come from. Without buckets it takes what is ingested into it directly."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["bucket", "direct"] = "bucket"
    bucket_ids: list[str] = Field(default_factory=list, max_length=100)
    bucket_id: str | None = Field(None, description="One bucket, as older clients send it.")


class CollectionRequest(BaseModel):
    """A new collection."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"example": _EXAMPLE})

    collection_name: str = Field(min_length=1, max_length=64, validation_alias=AliasChoices("collection_name", "name"))
    description: str | None = Field(None, max_length=2000)
    source: SourceConfig = Field(default_factory=SourceConfig)
    bucket_id: str | None = None
    feature_extractor: ExtractorRequest | None = None
    feature_extractors: list[ExtractorRequest] | None = Field(None, max_length=10)
    metadata: dict[str, Any] | None = None
    enabled: StrictBool = True

    def extractors(self) -> list[ExtractorRequest]:
        """Those that are asked for; without any, the text extractor as it is."""
        given = [self.feature_extractor] if self.feature_extractor else []
        return given + (self.feature_extractors or []) or [ExtractorRequest()]


class CollectionPatch(BaseModel):
    """What is to change."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"example": {"description": "Reports of all years"}})

    description: str | None = Field(None, max_length=2000)
    metadata: dict[str, Any] | None = None
    enabled: StrictBool | None = None
    feature_extractor: ExtractorRequest | None = None


class CloneRequest(CollectionPatch):
    """A new collection like another."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"example": {"collection_name": "reports-copy"}})

    collection_name: str = Field(min_length=1, max_length=64, validation_alias=AliasChoices("collection_name", "name"))
    source: SourceConfig | None = None


class ExtractorAnswer(BaseModel):
    """An extractor of a collection."""

    feature_extractor_name: str
    version: str
    feature_extractor_id: str
    parameters: dict[str, Any]
    params: dict[str, Any]
    input_mappings: dict[str, Any]
    field_passthrough: list[dict[str, Any]]
    model: str = Field(description="The model that runs here for what was asked.")
    requested_model: str


class CollectionAnswer(BaseModel):
    """A collection."""

    collection_id: str = Field(examples=["col_0123456789"])
    collection_name: str
    namespace: str
    description: str | None = None
    source: dict[str, Any]
    pipeline: dict[str, Any] = Field(description="As the library has it.")
    feature_extractor: ExtractorAnswer
    feature_extractors: list[ExtractorAnswer]
    vector_indexes: list[VectorIndex]
    metadata: dict[str, Any]
    enabled: StrictBool = True
    lifecycle_state: str = "active"
    created_at: str | None = None
    warnings: list[str] = Field(description="What is carried out otherwise than asked.")


class CloneAnswer(BaseModel):
    """The new collection."""

    collection: CollectionAnswer
    source_collection_id: str


@router.post("/collections", operation_id="create_collection", summary="Create a collection")
def create(context: ContextOf, who: CallerOf, request: Request, asked: CollectionRequest) -> CollectionAnswer:
    """`feature_extractor` as Mixpeek's API has it, or `feature_extractors`: a text extractor, and any alongside it."""
    given = [*asked.source.bucket_ids, *(one for one in (asked.source.bucket_id, asked.bucket_id) if one)]
    return _make(context, who, request, asked, given)


@router.get("/collections", operation_id="list_collections", summary="List collections")
def list_by_query(context: ContextOf, who: CallerOf, asked: PageQuery) -> Page[CollectionAnswer]:
    """By name."""
    return _page(context, who, asked)


@router.post("/collections/list", operation_id="list_collections_post", summary="List collections")
def list_by_body(context: ContextOf, who: CallerOf, asked: PageBody) -> Page[CollectionAnswer]:
    """The same, asked in a body."""
    return _page(context, who, asked)


@router.get("/collections/{collection_identifier}", operation_id="get_collection", summary="Get a collection")
def get(context: ContextOf, who: CallerOf, collection_identifier: str) -> CollectionAnswer:
    """By id or by name."""
    return _answer(context, who, collection_named(context, who.namespace, collection_identifier))


@router.patch("/collections/{collection_identifier}", operation_id="update_collection", summary="Change a collection")
def update(context: ContextOf, who: CallerOf, collection_identifier: str, asked: CollectionPatch) -> CollectionAnswer:
    """Another model is refused once there are objects; another chunking counts for tasks from now on."""
    collection = collection_named(context, who.namespace, collection_identifier)
    changes: dict[str, Any] = asked.model_dump(exclude={"feature_extractor"}, exclude_none=True)
    if asked.feature_extractor is not None:
        wanted, notes = pipeline_of_all([asked.feature_extractor])
        keeps = "also" not in asked.feature_extractor.asked()
        collection = kept_collections.change_pipeline(
            context, collection, lambda was: wanted.model_copy(update={"also": was.also}) if keeps else wanted
        )
        beside = [ExtractorRequest(name=name) for name in collection.pipeline.also]
        changes |= {"extractors": (asked.feature_extractor, *beside), "notes": notes}
    kept_collections.keep(context, collection, changes)
    return _answer(context, who, collection)


@router.post(
    "/collections/{collection_identifier}/clone", operation_id="clone_collection", summary="Make a collection like it"
)
def clone(
    context: ContextOf, who: CallerOf, request: Request, collection_identifier: str, asked: CloneRequest
) -> CloneAnswer:
    """Its pipeline and sources under another name, without its objects: trigger it to have them taken in."""
    source = collection_named(context, who.namespace, collection_identifier)
    kept = kept_of(context, who.namespace, source)
    like = CollectionRequest(
        collection_name=asked.collection_name,
        description=asked.description or kept.description,
        feature_extractor=asked.feature_extractor,
        feature_extractors=list(kept.extractors[1:] if asked.feature_extractor else kept.extractors),
        metadata=asked.metadata or kept.metadata,
    )
    given = asked.source.bucket_ids if asked.source else list(kept.bucket_ids)
    made = _make(context, who, request, like, given)
    return CloneAnswer(collection=made, source_collection_id=collection_id(who.namespace, source.name))


@router.delete("/collections/{collection_identifier}", operation_id="delete_collection", summary="Delete a collection")
def delete(context: ContextOf, who: CallerOf, collection_identifier: str) -> Deleted:
    """Every object is hidden by a task of its own; their bytes go with the retention, or by a purge."""
    collection = collection_named(context, who.namespace, collection_identifier)
    deletes = Deletes(context.settings, context.ledger, who.namespace, context.store, RedisHolding(context.settings))
    done = deletes.delete_collection(collection.name, confirm=True)
    kept_collections.shelf(context, who.namespace).delete(collection_id(who.namespace, collection.name))
    return Deleted(task_ids=list(done.task_ids))


def _make(
    context: Context, who: Caller, request: Request, asked: CollectionRequest, bucket_ids: list[str]
) -> CollectionAnswer:
    extractors = asked.extractors()
    pipeline, notes = pipeline_of_all(extractors)
    found = [buckets(context, who.namespace).get(each)[0] for each in dict.fromkeys(bucket_ids)]
    value = KeptCollection(
        created_at=context.clock.now(),
        name=asked.collection_name,
        description=asked.description,
        bucket_ids=tuple(found),
        extractors=tuple(extractors),
        metadata=asked.metadata or {},
        enabled=asked.enabled,
        notes=notes,
    )
    made = make_collection(context, who.namespace, value, pipeline, again=bool(key_of(request)))
    return _answer(context, who, made)


def _page(context: Context, who: Caller, asked: PageRequest) -> Page[CollectionAnswer]:
    after = cursor_from("collections", asked.cursor)
    every = context.ledger.collections(who.namespace)
    rest = [collection for collection in every if collection.name > after]
    found = rest[: asked.limit]
    cursor = cursor_to("collections", found[-1].name) if len(rest) > len(found) else None
    return page_of([_answer(context, who, one) for one in found], asked.limit, total=len(every), next_cursor=cursor)


def _answer(context: Context, who: Caller, collection: Collection) -> CollectionAnswer:
    kept = kept_of(context, who.namespace, collection)
    model, _ = running_model(context.settings, collection.pipeline)
    extractors = [
        ExtractorAnswer(
            feature_extractor_name=one.name,
            version=one.version,
            feature_extractor_id=extractor_id(one),
            parameters={"extractor_type": "text_extractor", **one.asked()},
            params={**one.asked(), "model_id": collection.pipeline.model_id},
            input_mappings=one.input_mappings or {},
            field_passthrough=[
                {"source_path": each} if isinstance(each, str) else dict(each) for each in one.field_passthrough or []
            ],
            model=model,
            requested_model=collection.pipeline.model_id,
        )
        for one in kept.extractors
    ]
    return CollectionAnswer(
        collection_id=collection_id(who.namespace, collection.name),
        collection_name=collection.name,
        namespace=who.namespace,
        description=kept.description,
        pipeline=collection.pipeline.model_dump(mode="json"),
        source={"type": "bucket", "bucket_ids": list(kept.bucket_ids) or None},
        feature_extractor=extractors[0],
        feature_extractors=extractors,
        vector_indexes=vector_indexes(context.settings, collection.pipeline),
        metadata=kept.metadata,
        enabled=kept.enabled,
        created_at=timestamp(kept.created_at) if kept.created_at else None,
        warnings=list(kept.notes),
    )
