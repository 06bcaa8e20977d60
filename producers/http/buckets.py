"""Buckets and their objects, as they are kept."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from producers.http.blobs import Source
from producers.http.context import Context
from producers.http.kept import Kept, Shelf


class KeptBucket(Kept):
    """A bucket."""

    bucket_name: str
    description: str | None = None
    bucket_schema: dict[str, Any]
    metadata: dict[str, Any] = Field(default_factory=dict)


class KeptBlob(Source):
    """One blob of an object, and the source that workers fetch for it."""

    property: str
    type: str


class KeptObject(Kept):
    """An object."""

    blobs: tuple[KeptBlob, ...]
    metadata: dict[str, Any] = Field(default_factory=dict)
    key_prefix: str | None = None
    #: Fields of the bucket's schema that are no blobs.
    fields: dict[str, Any] = Field(default_factory=dict)

    def blob_for(self, property_: str) -> KeptBlob | None:
        """The blob of this property; where none is named, the one called text or content, else the first."""
        if property_:
            return next((blob for blob in self.blobs if blob.property == property_), None)
        named = (blob for name in ("text", "content") for blob in self.blobs if blob.property == name)
        return next(named, None) or (self.blobs[0] if self.blobs else None)


class KeptUpload(Kept):
    """An upload to a presigned URL."""

    bucket_id: str
    filename: str
    content_type: str
    expires_at: float
    file_size_bytes: int | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    create_object_on_confirm: bool = True
    object_metadata: dict[str, Any] = Field(default_factory=dict)
    blob_property: str = "content"
    blob_type: str = "text"
    completed_at: float | None = None
    object_id: str | None = None
    etag: str | None = None


def buckets(context: Context, namespace: str) -> Shelf[KeptBucket]:
    """The buckets of a namespace."""
    return Shelf(context, namespace, "bucket", KeptBucket)


def objects(context: Context, namespace: str, bucket_id: str) -> Shelf[KeptObject]:
    """The objects of a bucket."""
    return Shelf(context, namespace, "object", KeptObject, within=bucket_id)


def uploads(context: Context, namespace: str, bucket_id: str) -> Shelf[KeptUpload]:
    """The uploads of a bucket."""
    return Shelf(context, namespace, "upload", KeptUpload, within=bucket_id)
