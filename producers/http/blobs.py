"""What an object holds: URL, data URI, base64, inline text or an upload; and the source that workers fetch for it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Any
from urllib.parse import quote, urlsplit

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from producers.http.context import Context
from trivet.errors import InvalidRequest, NotInStore, SourceRefused, SourceTooLarge
from trivet.fetch.upload import upload_url
from trivet.gc.sent import LOOSE
from trivet.ids import is_data_url
from trivet.stores.layout import upload_key

#: What is inline and not larger goes along in the request itself; the rest lies on S3 until it is fetched.
_INLINE_BYTES = 48 << 10
#: Mixpeek's blob types, and what is said to a worker about bytes that come without a type of their own.
_MEDIA_TYPES = {
    "text": "text/plain",
    "string": "text/plain",
    "pdf": "application/pdf",
    "json": "application/json",
}
_URL = re.compile(r"(?i)((https?|s3)://|(file|upload):)\S+")
_SCHEMES_REFUSED = ("file", "upload")
_EXAMPLE: dict[str, Any] = {"property": "content", "type": "text", "data": "https://example.com/report.pdf"}


class Blob(BaseModel):
    """One piece of content. `data` is a URL, a data: URI, text, `{url}`, or `{base64, mime_type}`."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"example": _EXAMPLE})

    property: str = Field("content", min_length=1, max_length=200)
    type: str = Field("text", max_length=50)
    data: str | dict[str, Any] | None = None
    url: str | None = Field(None, max_length=1_000_000)
    upload_id: str | None = Field(None, max_length=100)
    media_type: str | None = Field(
        None, max_length=100, validation_alias=AliasChoices("media_type", "mime_type", "content_type")
    )

    @model_validator(mode="after")
    def _one_content(self) -> Blob:
        given = [name for name in ("data", "url", "upload_id") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a blob has one of data, url and upload_id, and this one has {' and '.join(given) or 'none'}"
            )
        return self


class Source(BaseModel):
    """What a worker fetches."""

    model_config = ConfigDict(frozen=True)

    url: str
    media_type: str | None = None
    #: Bytes, where they are known before a fetch.
    size: int = 0


def source_of(context: Context, namespace: str, blob: Blob, upload: str) -> Source:
    """The source of one blob. Content that came along and is large is put on S3, as the upload of this name, if any.

    Raises `InvalidRequest`, `SourceRefused`, `SourceTooLarge`, and the store's errors.
    """
    stated = blob.media_type or None
    if blob.upload_id is not None:
        raise InvalidRequest("An upload is named where none can be.", hint="Name it in a blob of a bucket's object.")
    data: Any = blob.url if blob.url is not None else blob.data
    if isinstance(data, dict):
        stated = stated or _media_type(data, blob.property)
        if isinstance(data.get("url"), str):
            return checked_url(data["url"], stated)
        encoded = data.get("base64")
        if not isinstance(encoded, str):
            raise InvalidRequest(
                f"The data of blob {blob.property!r} have neither url nor base64.",
                hint="Give one of them, as a string.",
            )
        kind = stated or _MEDIA_TYPES.get(blob.type)
        return held(context, namespace, upload, _decoded(encoded, blob.property), kind)
    if blob.url is not None or is_data_url(data) or _named(data.strip()):
        if is_data_url(data) and len(data) > 4 * _INLINE_BYTES:
            return _large_data_url(context, namespace, upload, data, stated)
        return checked_url(data.strip(), stated)
    return held(context, namespace, upload, data.encode(), stated or _MEDIA_TYPES.get(blob.type, "text/plain"))


def _media_type(data: dict[str, Any], where: str) -> str | None:
    given = data.get("mime_type") or data.get("content_type")
    if given and not isinstance(given, str):
        raise InvalidRequest(f"The media type of blob {where!r} is no text.", hint='Give one such as "text/plain".')
    return given or None


def checked_url(url: str, media_type: str | None = None) -> Source:
    """A URL that a request may name: files and uploads are not for it."""
    try:
        # As a fetch reads it: blanks and control characters before and within a scheme count for nothing there.
        scheme = urlsplit(url.strip()).scheme.lower()
    except ValueError:
        raise InvalidRequest("The source URL cannot be read.", hint="Give a full URL.") from None
    if scheme in _SCHEMES_REFUSED:
        raise SourceRefused(
            f"{scheme}: URLs cannot be named in a request.",
            hint="Send the content itself, or use an upload.",
        )
    return Source(url=url, media_type=media_type or None)


def held(context: Context, namespace: str, upload: str, body: bytes, media_type: str | None) -> Source:
    """Bytes that came along: small ones in the URL itself, others on S3."""
    if not body:
        raise InvalidRequest("The content is empty.", hint="Send at least one character.")
    limit = context.settings.source_max_bytes
    if len(body) > limit:
        raise SourceTooLarge(f"The content has {len(body)} bytes.", hint=f"At most {limit} are allowed.")
    if len(body) <= _INLINE_BYTES:
        kind = media_type or "application/octet-stream"
        if kind.startswith("text/") and "charset" not in kind:
            kind += ";charset=utf-8"
        packed = base64.b64encode(body).decode()
        return Source(url=f"data:{quote(kind, safe='/;=+.-')};base64,{packed}", media_type=media_type, size=len(body))
    # Content that belongs to no object of a bucket is named by itself: sent again, it is the same source.
    upload = upload or f"{LOOSE}/{hashlib.sha256(body).hexdigest()}"
    context.store.put(upload_key(context.settings, namespace, upload), body)
    return Source(url=upload_url(namespace, upload), media_type=media_type, size=len(body))


def uploaded(context: Context, namespace: str, upload: str, media_type: str | None) -> Source:
    """Bytes that were uploaded before. Raises `InvalidRequest` where they have not arrived, `SourceTooLarge`."""
    try:
        size = context.store.head(upload_key(context.settings, namespace, upload)).size
    except NotInStore:
        raise InvalidRequest(
            f"Nothing has been uploaded as {upload!r} yet.", hint="Send the bytes to its presigned URL first."
        ) from None
    if size > context.settings.source_max_bytes:
        raise SourceTooLarge(
            f"The upload has {size} bytes.", hint=f"At most {context.settings.source_max_bytes} are allowed."
        )
    return Source(url=upload_url(namespace, upload), media_type=media_type, size=size)


def _named(data: str) -> bool:
    """Whether a text is a URL as a whole."""
    return _URL.fullmatch(data) is not None


def _large_data_url(context: Context, namespace: str, upload: str, url: str, stated: str | None) -> Source:
    head, comma, data = url.partition(",")
    if not comma or not head.lower().rstrip().endswith(";base64"):
        return checked_url(url, stated)
    kind = head[len("data:") :].rsplit(";", 1)[0].strip()
    return held(context, namespace, upload, _decoded(data, "data"), stated or kind or None)


def _decoded(text: str, where: str) -> bytes:
    packed = "".join(text.split()).rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"The data of blob {where!r} are no base64.") from None
