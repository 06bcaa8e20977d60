"""Objects of a bucket."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request, UploadFile
from pydantic import BaseModel, ConfigDict, Field

from producers.http.answers import Deleted, Status, timestamp
from producers.http.blobs import held
from producers.http.buckets import KeptBlob, KeptObject, buckets, objects
from producers.http.caller import Caller, CallerOf
from producers.http.context import Context, ContextOf
from producers.http.making import ObjectRequest, make_object
from producers.http.once import new_id
from producers.http.paging import Page, PageBody, PageQuery, PageRequest, cursor_to, number_from, page_of
from producers.http.route import router as make_router
from trivet.errors import InvalidRequest, SourceTooLarge, TrivetError
from trivet.ids import digest, redact_url
from trivet.resources.refusals import unknown_resource

router = make_router("objects")
_DIGITS = 20
_MOST_AT_ONCE = 1000
_BLOCK = 1 << 20


class BlobAnswer(BaseModel):
    """One blob. Of a URL neither query nor user name is shown, and of inline content only the type."""

    property: str
    type: str
    url: str = Field(examples=["https://example.com/report.pdf"])
    size_bytes: int | None = None


class ObjectAnswer(BaseModel):
    """An object."""

    model_config = ConfigDict(extra="allow")

    object_id: str = Field(examples=["obj_0123456789abcdef0123"])
    bucket_id: str
    blobs: list[BlobAnswer]
    metadata: dict[str, Any]
    key_prefix: str | None = None
    status: Status = Status.PENDING
    created_at: str


class ObjectsRequest(BaseModel):
    """Several new objects."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"objects": [{"blobs": [{"property": "content", "type": "text", "data": "Some text."}]}]}
        }
    )

    objects: list[ObjectRequest] = Field(min_length=1, max_length=_MOST_AT_ONCE)


class ObjectsAnswer(BaseModel):
    """What became of each."""

    succeeded: list[dict[str, Any]]
    failed: list[dict[str, Any]]
    total_requested: int
    succeeded_count: int
    failed_count: int


@router.post("/buckets/{bucket_identifier}/objects", operation_id="create_object", summary="Put an object in a bucket")
def create(
    context: ContextOf, who: CallerOf, request: Request, bucket_identifier: str, asked: ObjectRequest
) -> ObjectAnswer:
    """Nothing is ingested before a collection is triggered or a batch submitted."""
    bucket_id, _ = buckets(context, who.namespace).get(bucket_identifier)
    object_id = _new_id(request, who, bucket_id, asked)
    kept, _ = make_object(context, who.namespace, bucket_id, object_id, asked)
    return _answer(bucket_id, object_id, kept)


@router.post(
    "/buckets/{bucket_identifier}/objects/batch",
    operation_id="create_objects",
    summary="Put several objects in a bucket",
)
def create_several(
    context: ContextOf, who: CallerOf, request: Request, bucket_identifier: str, asked: ObjectsRequest
) -> ObjectsAnswer:
    """Each by itself: one that is refused keeps none of the others from it."""
    bucket_id, _ = buckets(context, who.namespace).get(bucket_identifier)
    succeeded: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for index, one in enumerate(asked.objects):
        object_id = _new_id(request, who, bucket_id, one, str(index))
        try:
            make_object(context, who.namespace, bucket_id, object_id, one)
        except TrivetError as error:
            if error.transient:
                raise
            failed.append({"object_index": index, "error": str(error), "error_type": error.code})
        else:
            succeeded.append(
                {"object_index": index, "object_id": object_id, "bucket_id": bucket_id, "status": Status.PENDING}
            )
    return ObjectsAnswer(
        succeeded=succeeded,
        failed=failed,
        total_requested=len(asked.objects),
        succeeded_count=len(succeeded),
        failed_count=len(failed),
    )


@router.post(
    "/buckets/{bucket_identifier}/objects/upload",
    operation_id="upload_object",
    summary="Put a file in a bucket (multipart/form-data)",
)
def upload(
    context: ContextOf,
    who: CallerOf,
    request: Request,
    bucket_identifier: str,
    file: UploadFile,
    property: Annotated[str, Query(min_length=1, max_length=200)] = "content",  # noqa: A002 - Mixpeek's word
    type: Annotated[str, Query(max_length=50)] = "text",  # noqa: A002 - Mixpeek's word
) -> ObjectAnswer:
    """One file becomes an object with one blob. Larger ones go faster to a presigned URL."""
    bucket_id, _ = buckets(context, who.namespace).get(bucket_identifier)
    object_id = new_id(request, "obj", _DIGITS)
    body = _read(file, context.settings.source_max_bytes)
    stated = (file.content_type or "").partition(";")[0].strip().lower()
    kind = stated if stated != "application/octet-stream" else ""
    source = held(context, who.namespace, f"{bucket_id}/{object_id}/0", body, kind or None)
    metadata = {"filename": file.filename} if file.filename else {}
    blob = KeptBlob(property=property, type=type, **source.model_dump())
    value = KeptObject(created_at=context.clock.now(), blobs=(blob,), metadata=metadata)
    kept, new = objects(context, who.namespace, bucket_id).make(object_id, value)
    if new:
        context.resources.link(who.namespace, bucket_id, {object_id: str(len(body))})
    return _answer(bucket_id, object_id, kept)


@router.get("/buckets/{bucket_identifier}/objects", operation_id="list_objects", summary="List objects of a bucket")
def list_by_query(context: ContextOf, who: CallerOf, bucket_identifier: str, asked: PageQuery) -> Page[ObjectAnswer]:
    """The newest first."""
    return _page(context, who, bucket_identifier, asked)


@router.post(
    "/buckets/{bucket_identifier}/objects/list",
    operation_id="list_objects_post",
    summary="List objects of a bucket",
)
def list_by_body(context: ContextOf, who: CallerOf, bucket_identifier: str, asked: PageBody) -> Page[ObjectAnswer]:
    """The same, asked in a body."""
    return _page(context, who, bucket_identifier, asked)


@router.get("/buckets/{bucket_identifier}/objects/{object_id}", operation_id="get_object", summary="Get an object")
def get(context: ContextOf, who: CallerOf, bucket_identifier: str, object_id: str) -> ObjectAnswer:
    """By id."""
    bucket_id, _ = buckets(context, who.namespace).get(bucket_identifier)
    return _answer(bucket_id, *objects(context, who.namespace, bucket_id).get(object_id))


@router.delete(
    "/buckets/{bucket_identifier}/objects/{object_id}",
    operation_id="delete_object",
    summary="Take an object out of a bucket",
)
def delete(context: ContextOf, who: CallerOf, bucket_identifier: str, object_id: str) -> Deleted:
    """What collections have taken in of it stays there until it is deleted there."""
    bucket_id, _ = buckets(context, who.namespace).get(bucket_identifier)
    if not objects(context, who.namespace, bucket_id).delete(object_id):
        raise unknown_resource("object", object_id)
    context.resources.link(who.namespace, bucket_id, {object_id: "0"})
    return Deleted()


def _new_id(request: Request, who: Caller, bucket_id: str, asked: ObjectRequest, index: str = "") -> str:
    if asked.idempotency_key:
        return "obj_" + digest([who.namespace, bucket_id, asked.idempotency_key], _DIGITS)
    return new_id(request, "obj", _DIGITS, index)


def _read(file: UploadFile, limit: int) -> bytes:
    body = bytearray()
    while block := file.file.read(_BLOCK):
        body += block
        if len(body) > limit:
            raise SourceTooLarge(f"The file has more than {limit} bytes.")
    if not body:
        raise InvalidRequest("The file is empty.", hint="Send it as the form's field `file`.")
    return bytes(body)


def _page(context: Context, who: Caller, bucket_identifier: str, asked: PageRequest) -> Page[ObjectAnswer]:
    bucket_id, _ = buckets(context, who.namespace).get(bucket_identifier)
    shelf = objects(context, who.namespace, bucket_id)
    found, rest = shelf.page(number_from(shelf.kind, asked.cursor), asked.limit)
    results = [_answer(bucket_id, object_id, kept) for object_id, kept in found]
    cursor = None if rest is None else cursor_to(shelf.kind, str(rest))
    return page_of(results, asked.limit, total=shelf.count(), next_cursor=cursor)


def _answer(bucket_id: str, object_id: str, kept: KeptObject) -> ObjectAnswer:
    own = set(ObjectAnswer.model_fields)
    blobs = [
        BlobAnswer(property=blob.property, type=blob.type, url=redact_url(blob.url), size_bytes=blob.size or None)
        for blob in kept.blobs
    ]
    return ObjectAnswer(
        object_id=object_id,
        bucket_id=bucket_id,
        blobs=blobs,
        metadata=kept.metadata,
        key_prefix=kept.key_prefix,
        created_at=timestamp(kept.created_at),
        **{name: value for name, value in kept.fields.items() if name not in own},
    )
