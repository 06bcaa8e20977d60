"""Sources that go straight into a collection, without a bucket."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from producers.http.batching import Item
from producers.http.blobs import Blob, source_of
from producers.http.context import Context
from producers.http.extractors import ExtractorRequest
from trivet.accept import accept, parse_request
from trivet.errors import InvalidRequest, TrivetError
from trivet.ids import digest
from trivet.ledger import Accepted
from trivet.names import Lane
from trivet.values import Collection, IngestRequest

MOST_SOURCES = 10_000
_PAYLOAD: dict[str, Any] = {
    "source": {"url": "https://example.com/report.pdf"},
    "feature_extractors": [{"name": "text_embedding", "version": "v1", "params": {"model_id": "BAAI/bge-m3"}}],
}


class SourceRequest(BaseModel):
    """One source: a URL, or content that comes along as text, base64 or a data: URI."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"example": {"url": "https://example.com/report.pdf"}})

    url: str | None = Field(None, max_length=1_000_000)
    text: str | None = None
    data: str | dict[str, Any] | None = Field(None, description="As the data of a blob.")
    base64: str | None = None
    media_type: str | None = Field(
        None,
        max_length=100,
        validation_alias=AliasChoices("media_type", "mime_type"),
        description="Overrides the type that the source states.",
    )
    object_id: str | None = Field(None, description="The object's id; else made from the URL.", max_length=128)
    metadata: dict[str, Any] = Field(default_factory=dict, description="Copied to every document.")


class IngestBody(BaseModel):
    """One source, or many."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"example": _PAYLOAD})

    source: SourceRequest | None = None
    #: Each is looked at by itself, so that one that is wrong keeps none of the others from it.
    sources: list[Any] | None = Field(
        None, max_length=MOST_SOURCES, description="Each as `source`; what became of each is in the answer."
    )
    feature_extractors: list[ExtractorRequest] | None = Field(None, max_length=10)
    feature_extractor: ExtractorRequest | None = None
    object_id: str | None = Field(None, max_length=128)
    metadata: dict[str, Any] = Field(default_factory=dict, description="Of all sources.")
    lane: Lane | None = Field(None, description="interactive, normal or bulk; many sources are bulk.")

    def extractors(self) -> list[ExtractorRequest]:
        """Those that are named."""
        return self.feature_extractors or ([self.feature_extractor] if self.feature_extractor else [])


def take_in(context: Context, collection: Collection, body: IngestBody, source: SourceRequest, key: str) -> Accepted:
    """Take one source in. Raises what `accept` raises, `SourceRefused` and `SourceTooLarge`."""
    request = _request(context, collection, body, source, body.lane or Lane.NORMAL)
    request = request.model_copy(update={"idempotency_key": key or None})
    return accept(context.ledger, context.settings, request, encoder_wish=_wish(collection, body))


def _wish(collection: Collection, body: IngestBody) -> str:
    """A request that names its encoder is not done with another, whatever others change meanwhile."""
    return collection.pipeline.encoder_wish if body.extractors() else ""


def object_of(collection: Collection, request: IngestRequest) -> str:
    """The object that a request is of."""
    from trivet.ids import object_id_for

    return request.object_id or object_id_for(collection.namespace, collection.name, request.url)


def take_in_many(context: Context, collection: Collection, body: IngestBody, key: str) -> list[Item]:
    """Take many sources in, in order of the request. What is wrong with one is told with it.

    A transient error stops all; repeated with the same key, what was accepted is not accepted again.
    """
    wish = _wish(collection, body)

    def one(numbered: tuple[int, Any]) -> Item:
        number, given = numbered
        object_id = ""
        try:
            source = _parsed(given)
            request = _request(context, collection, body, source, body.lane or Lane.BULK)
            object_id = object_of(collection, request)
            own = f"many:{digest([key, number], 32)}" if key else None
            request = request.model_copy(update={"idempotency_key": own})
            accepted = accept(context.ledger, context.settings, request, encoder_wish=wish)
        except TrivetError as error:
            if error.transient:
                raise
            return Item(collection.name, object_id or f"source-{number}", "", f"{error.code}: {error}", number)
        return Item(collection.name, object_id, accepted.task_id, index=number)

    with ThreadPoolExecutor(context.settings.io_threads, "trivet-ingest") as pool:
        return list(pool.map(one, enumerate(body.sources or [])))


def _parsed(given: Any) -> SourceRequest:
    try:
        return SourceRequest.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "source"
        raise InvalidRequest(f"{where}: {first['msg'].lower()}.") from None


def _request(
    context: Context, collection: Collection, body: IngestBody, source: SourceRequest, lane: Lane
) -> IngestRequest:
    data: str | dict[str, Any] | None = source.data if source.text is None else source.text
    if source.base64 is not None:
        data = {"base64": source.base64, "mime_type": source.media_type or ""}
    if (source.url is None) == (data is None):
        raise InvalidRequest("A source has either a url, or content as text, base64 or data.")
    blob = Blob(type="text", url=source.url, data=data, media_type=source.media_type)
    found = source_of(context, collection.namespace, blob, "")
    return parse_request(
        {
            "url": found.url,
            "collection": collection.name,
            "namespace": collection.namespace,
            "object_id": source.object_id or body.object_id,
            "lane": lane,
            "metadata": {**body.metadata, **source.metadata},
            "media_type": found.media_type,
        }
    )
