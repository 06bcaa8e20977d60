"""Buckets: where objects lie that collections take in."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import Request
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from producers.http.answers import Deleted, Status, timestamp
from producers.http.buckets import KeptBucket, buckets, objects, uploads
from producers.http.caller import Caller, CallerOf
from producers.http.context import Context, ContextOf
from producers.http.once import new_id
from producers.http.paging import Page, PageBody, PageQuery, PageRequest, cursor_to, number_from, page_of
from producers.http.route import router as make_router

router = make_router("buckets")

_SCHEMA: dict[str, Any] = {"properties": {"content": {"type": "text"}}}
FieldType = Literal[
    "string",
    "number",
    "integer",
    "float",
    "boolean",
    "object",
    "array",
    "date",
    "datetime",
    "text",
    "image",
    "audio",
    "video",
    "pdf",
    "excel",
    "document",
    "spreadsheet",
    "presentation",
    "json",
]


class SchemaField(BaseModel):
    """One property of the bucket's objects."""

    model_config = ConfigDict(extra="allow")

    type: FieldType


class BucketSchema(BaseModel):
    """What the bucket's objects have."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"example": _SCHEMA})

    properties: dict[str, SchemaField] = Field(default_factory=dict)


class BucketRequest(BaseModel):
    """A new bucket."""

    model_config = ConfigDict(
        extra="ignore", json_schema_extra={"example": {"bucket_name": "reports", "bucket_schema": _SCHEMA}}
    )

    bucket_name: str = Field(min_length=1, max_length=100, validation_alias=AliasChoices("bucket_name", "name"))
    description: str | None = Field(None, max_length=2000)
    bucket_schema: BucketSchema = Field(
        default_factory=BucketSchema, validation_alias=AliasChoices("bucket_schema", "schema")
    )
    metadata: dict[str, Any] = Field(default_factory=dict)


class BucketAnswer(BaseModel):
    """A bucket."""

    bucket_id: str = Field(examples=["bkt_0123456789"])
    bucket_name: str
    description: str | None = None
    bucket_schema: BucketSchema
    metadata: dict[str, Any]
    object_count: int
    total_size_bytes: int = Field(
        description="Of content that came along or was uploaded; what URLs name is not known."
    )
    status: Status = Status.ACTIVE
    created_at: str


@router.post("/buckets", operation_id="create_bucket", summary="Create a bucket")
def create(context: ContextOf, who: CallerOf, request: Request, asked: BucketRequest) -> BucketAnswer:
    """A bucket's name is its own within the namespace."""
    value = KeptBucket(
        created_at=context.clock.now(),
        bucket_name=asked.bucket_name,
        description=asked.description,
        bucket_schema=asked.bucket_schema.model_dump(mode="json"),
        metadata=asked.metadata,
    )
    bucket_id = new_id(request, "bkt", 10)
    kept, _ = buckets(context, who.namespace).make(bucket_id, value, name=asked.bucket_name)
    return _answer(context, who, bucket_id, kept)


@router.get("/buckets", operation_id="list_buckets", summary="List buckets")
def list_by_query(context: ContextOf, who: CallerOf, asked: PageQuery) -> Page[BucketAnswer]:
    """The newest first."""
    return _page(context, who, asked)


@router.post("/buckets/list", operation_id="list_buckets_post", summary="List buckets")
def list_by_body(context: ContextOf, who: CallerOf, asked: PageBody) -> Page[BucketAnswer]:
    """The same, asked in a body."""
    return _page(context, who, asked)


@router.get("/buckets/{bucket_identifier}", operation_id="get_bucket", summary="Get a bucket")
def get(context: ContextOf, who: CallerOf, bucket_identifier: str) -> BucketAnswer:
    """By id or by name."""
    return _answer(context, who, *buckets(context, who.namespace).get(bucket_identifier))


@router.delete("/buckets/{bucket_identifier}", operation_id="delete_bucket", summary="Delete a bucket")
def delete(context: ContextOf, who: CallerOf, bucket_identifier: str) -> Deleted:
    """With its objects. What collections have taken in from it stays there until it is deleted there."""
    bucket_id, _ = buckets(context, who.namespace).get(bucket_identifier)
    objects(context, who.namespace, bucket_id).drop()
    uploads(context, who.namespace, bucket_id).drop()
    buckets(context, who.namespace).delete(bucket_id)
    return Deleted()


def _page(context: Context, who: Caller, asked: PageRequest) -> Page[BucketAnswer]:
    shelf = buckets(context, who.namespace)
    found, rest = shelf.page(number_from("buckets", asked.cursor), asked.limit)
    results = [_answer(context, who, bucket_id, kept) for bucket_id, kept in found]
    cursor = None if rest is None else cursor_to("buckets", str(rest))
    return page_of(results, asked.limit, total=shelf.count(), next_cursor=cursor)


def _answer(context: Context, who: Caller, bucket_id: str, kept: KeptBucket) -> BucketAnswer:
    shelf = objects(context, who.namespace, bucket_id)
    sizes = context.resources.links(who.namespace, bucket_id)
    return BucketAnswer(
        bucket_id=bucket_id,
        bucket_name=kept.bucket_name,
        description=kept.description,
        bucket_schema=BucketSchema.model_validate(kept.bucket_schema),
        metadata=kept.metadata,
        object_count=shelf.count(),
        total_size_bytes=sum(int(size) for size in sizes.values()),
        created_at=timestamp(kept.created_at),
    )
