"""Presigned uploads: the bytes go from the client to S3, past this API."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from producers.http.answers import Status, timestamp
from producers.http.blobs import uploaded
from producers.http.buckets import KeptBlob, KeptObject, KeptUpload, buckets, objects, uploads
from producers.http.caller import CallerOf
from producers.http.context import Context, ContextOf
from producers.http.once import new_id
from producers.http.route import router as make_router
from trivet.errors import InvalidRequest, SourceTooLarge
from trivet.ids import digest
from trivet.stores import Stored
from trivet.stores.layout import upload_key

router = make_router("uploads")
_EXAMPLE: dict[str, Any] = {"filename": "report.pdf", "content_type": "application/pdf"}


class UploadRequest(BaseModel):
    """An upload to come."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"example": _EXAMPLE})

    filename: str = Field(min_length=1, max_length=255)
    content_type: str = Field("application/octet-stream", max_length=100)
    file_size_bytes: StrictInt | None = Field(None, ge=1)
    presigned_url_expiration: StrictInt = Field(3600, ge=60, le=86400)
    metadata: dict[str, Any] | None = None
    create_object_on_confirm: StrictBool = True
    object_metadata: dict[str, Any] | None = None
    blob_property: str = Field("content", max_length=200)
    blob_type: str = Field("text", max_length=50)


class UploadAnswer(BaseModel):
    """An upload. PUT the bytes to `presigned_url`, then confirm it."""

    upload_id: str = Field(examples=["upl_0123456789abcdef"])
    bucket_id: str
    filename: str
    content_type: str
    file_size_bytes: StrictInt | None = None
    presigned_url: str | None = Field(None, description="For a PUT of the bytes.")
    presigned_url_expiration: StrictInt
    s3_key: str
    status: Status
    metadata: dict[str, Any]
    create_object_on_confirm: StrictBool
    blob_property: str
    blob_type: str
    created_at: str
    expires_at: str
    completed_at: str | None = None
    etag: str | None = None
    object_id: str | None = None
    message: str | None = None


class ConfirmRequest(BaseModel):
    """That the bytes are there."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"example": {}})

    etag: str | None = Field(None, max_length=200, description="As the PUT answered; another is refused.")
    file_size_bytes: StrictInt | None = Field(None, ge=1, description="Bytes that were sent; another size is refused.")


@router.post("/buckets/{bucket_identifier}/uploads", operation_id="create_upload", summary="Begin a presigned upload")
def create(
    context: ContextOf, who: CallerOf, request: Request, bucket_identifier: str, asked: UploadRequest
) -> UploadAnswer:
    """The answer has a URL that takes the bytes until it expires."""
    bucket_id, _ = buckets(context, who.namespace).get(bucket_identifier)
    limit = context.settings.source_max_bytes
    if asked.file_size_bytes and asked.file_size_bytes > limit:
        raise SourceTooLarge(f"The file has {asked.file_size_bytes} bytes.", hint=f"At most {limit} are allowed.")
    now = context.clock.now()
    value = KeptUpload(
        created_at=now,
        expires_at=now + asked.presigned_url_expiration,
        bucket_id=bucket_id,
        filename=asked.filename,
        content_type=asked.content_type,
        file_size_bytes=asked.file_size_bytes,
        metadata=asked.metadata or {},
        create_object_on_confirm=asked.create_object_on_confirm,
        object_metadata=asked.object_metadata or {},
        blob_property=asked.blob_property,
        blob_type=asked.blob_type,
    )
    upload_id = new_id(request, "upl", 16)
    kept, _ = uploads(context, who.namespace, bucket_id).make(upload_id, value)
    seconds = max(1, int(kept.expires_at - now))
    url = context.store.upload_url(_key(context, who.namespace, kept, upload_id), seconds=seconds)
    return _answer(context, who.namespace, upload_id, kept, presigned_url=url)


@router.get(
    "/buckets/{bucket_identifier}/uploads/{upload_id}", operation_id="get_upload", summary="Get a presigned upload"
)
def get(context: ContextOf, who: CallerOf, bucket_identifier: str, upload_id: str) -> UploadAnswer:
    """Without its URL, which is shown once."""
    bucket_id, _ = buckets(context, who.namespace).get(bucket_identifier)
    return _answer(context, who.namespace, *uploads(context, who.namespace, bucket_id).get(upload_id))


@router.post(
    "/buckets/{bucket_identifier}/uploads/{upload_id}/confirm",
    operation_id="confirm_upload",
    summary="Say that the bytes are there",
)
def confirm(
    context: ContextOf,
    who: CallerOf,
    bucket_identifier: str,
    upload_id: str,
    asked: ConfirmRequest | None = None,
) -> UploadAnswer:
    """They are looked for on S3, and become an object of the bucket. Confirmed again, it answers the same."""
    bucket_id, _ = buckets(context, who.namespace).get(bucket_identifier)
    shelf = uploads(context, who.namespace, bucket_id)
    _, kept = shelf.get(upload_id)
    source = uploaded(context, who.namespace, f"{bucket_id}/{upload_id}", kept.content_type)
    etag = _checked(context.store.head(_key(context, who.namespace, kept, upload_id)), asked or ConfirmRequest())
    if kept.completed_at is not None:
        # Its object may have been deleted since, and stays so.
        return _answer(context, who.namespace, upload_id, kept)
    object_id = None
    if kept.create_object_on_confirm:
        # A function of the upload: whoever confirms it twice makes one object.
        object_id = "obj_" + digest([who.namespace, bucket_id, upload_id], 20)
        blob = KeptBlob(property=kept.blob_property, type=kept.blob_type, **source.model_dump())
        metadata = {"filename": kept.filename, **kept.object_metadata}
        value = KeptObject(created_at=context.clock.now(), blobs=(blob,), metadata=metadata)
        objects(context, who.namespace, bucket_id).make(object_id, value)
        context.resources.link(who.namespace, bucket_id, {object_id: str(source.size)})
    done = {
        "completed_at": context.clock.now(),
        "file_size_bytes": source.size,
        "object_id": object_id,
        "etag": etag,
    }
    changed = shelf.change(upload_id, lambda value: value.model_copy(update=done))
    return _answer(context, who.namespace, upload_id, changed)


def _checked(there: Stored, asked: ConfirmRequest) -> str:
    """The ETag of what is there. Raises `InvalidRequest` where the client has sent something else."""
    if asked.file_size_bytes not in (None, there.size):
        raise InvalidRequest(
            f"The upload has {there.size} bytes, and {asked.file_size_bytes} were sent.", hint="Send it again."
        )
    stated = (asked.etag or "").strip().removeprefix("W/").strip('"')
    if stated and stated.lower() != there.etag.lower():
        raise InvalidRequest(
            f"The upload has the ETag {there.etag!r}, and not {stated[:80]!r}.",
            hint="Send it again, or leave etag out.",
        )
    return there.etag


def _key(context: Context, namespace: str, kept: KeptUpload, upload_id: str) -> str:
    return upload_key(context.settings, namespace, f"{kept.bucket_id}/{upload_id}")


def _answer(
    context: Context, namespace: str, upload_id: str, kept: KeptUpload, *, presigned_url: str | None = None
) -> UploadAnswer:
    return UploadAnswer(
        upload_id=upload_id,
        presigned_url=presigned_url,
        presigned_url_expiration=int(kept.expires_at - kept.created_at),
        s3_key=_key(context, namespace, kept, upload_id),
        status=Status.COMPLETED if kept.completed_at else Status.PENDING,
        created_at=timestamp(kept.created_at),
        expires_at=timestamp(kept.expires_at),
        completed_at=timestamp(kept.completed_at) if kept.completed_at else None,
        **kept.model_dump(
            include={
                "bucket_id",
                "filename",
                "content_type",
                "file_size_bytes",
                "metadata",
                "create_object_on_confirm",
                "blob_property",
                "blob_type",
                "etag",
                "object_id",
            }
        ),
    )
