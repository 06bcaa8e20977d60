"""Objects of a bucket, from what a request says of them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from producers.http.blobs import Blob, Source, source_of, uploaded
from producers.http.buckets import KeptBlob, KeptObject, objects, uploads
from producers.http.context import Context
from trivet.errors import InvalidRequest

_EXAMPLE: dict[str, Any] = {
    "blobs": [{"property": "content", "type": "pdf", "data": "https://example.com/report.pdf"}],
    "metadata": {"year": 2026},
}


class ObjectRequest(BaseModel):
    """A new object. Fields beside these are fields of the bucket's schema, and become metadata."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"example": _EXAMPLE})

    blobs: list[Blob] = Field(default_factory=list, max_length=100)
    blob: Blob | None = Field(None, description="One blob, as older clients send it.")
    metadata: dict[str, Any] = Field(default_factory=dict)
    key_prefix: str | None = Field(None, max_length=500)
    idempotency_key: str | None = Field(None, max_length=255)
    skip_duplicates: StrictBool = Field(False, description="Has no effect: unchanged content is skipped in any case.")


def make_object(
    context: Context, namespace: str, bucket_id: str, object_id: str, asked: ObjectRequest
) -> tuple[KeptObject, bool]:
    """Keep an object; where the id is there already, that one and False.

    Raises `InvalidRequest`, `SourceRefused`, `SourceTooLarge`, `UnknownResource`, and the store's errors.
    """
    given = asked.blobs or ([asked.blob] if asked.blob else [])
    fields = dict(asked.model_extra or {})
    if not given:
        raise InvalidRequest(
            "The object has no blobs.", hint='Send {"blobs": [{"property": …, "type": …, "data": …}]}.'
        )
    kept = []
    for number, blob in enumerate(given):
        source = _source(context, namespace, bucket_id, f"{bucket_id}/{object_id}/{number}", blob)
        kept.append(KeptBlob(property=blob.property, type=blob.type, **source.model_dump()))
    value = KeptObject(
        created_at=context.clock.now(),
        blobs=tuple(kept),
        metadata=asked.metadata,
        key_prefix=asked.key_prefix,
        fields=fields,
    )
    made, new = objects(context, namespace, bucket_id).make(object_id, value)
    if new and (size := sum(blob.size for blob in kept)):
        context.resources.link(namespace, bucket_id, {object_id: str(size)})
    return made, new


def _source(context: Context, namespace: str, bucket_id: str, name: str, blob: Blob) -> Source:
    if blob.upload_id is None:
        return source_of(context, namespace, blob, name)
    upload_id, kept = uploads(context, namespace, bucket_id).get(blob.upload_id)
    return uploaded(context, namespace, f"{bucket_id}/{upload_id}", blob.media_type or kept.content_type)
