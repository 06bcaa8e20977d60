"""Documents, which is what the API calls chunks: read from the committed Parquet, or found by a search."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from producers.http.context import Context
from producers.http.naming import collection_id
from trivet.errors import InvalidRequest
from trivet.extractors import by_extractor
from trivet.ids import check_object_id
from trivet.parts.reader import read_current, row_groups
from trivet.resources.refusals import unknown_resource
from trivet.stores.layout import Layout
from trivet.values import Collection, Manifest

if TYPE_CHECKING:
    from trivet.retrieval import Filters, Hit

_ID = re.compile(r"(doc_[0-9a-f]{24})\.(.+)")
_COLUMNS = (
    "chunk_id",
    "ordinal",
    "text",
    "heading_path",
    "page_start",
    "page_end",
    "char_start",
    "char_end",
    "language",
    "token_count",
    "metadata",
)


class DocumentAnswer(BaseModel):
    """A document: one chunk of an object."""

    model_config = ConfigDict(extra="allow")

    document_id: str = Field(examples=["doc_0123456789abcdef01234567.obj_0123456789abcdef01234567"])
    collection_id: str
    object_id: str
    root_object_id: str
    text: str
    chunk_index: int
    total_chunks: int | None = None
    heading_path: list[str]
    page_start: int | None = None
    page_end: int | None = None
    char_start: int
    char_end: int
    language: str | None = None
    token_count: int
    source_url: str = Field(description="Without its query.")
    metadata: dict[str, Any]
    features: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="What extractors alongside the embedding said; not of a search's documents."
    )
    model: str | None = Field(None, description="The model that embedded it.")
    generation: int
    committed_at: str
    score: float | None = Field(None, description="Of a search: it orders the documents of one answer.")


def document_id(chunk_id: str, object_id: str) -> str:
    """A chunk's id with its object's: so that it is found without a search."""
    return f"{chunk_id}.{object_id}"


def object_of(identifier: str) -> tuple[str, str]:
    """(chunk id, object id). Raises `UnknownResource` for what is no document's id."""
    found = _ID.fullmatch(identifier)
    try:
        if found:
            return found[1], check_object_id(found[2])
    except InvalidRequest:
        pass
    raise unknown_resource("document", identifier)


def of_manifest(
    context: Context,
    collection: Collection,
    manifest: Manifest,
    *,
    after: int = -1,
    filters: Filters | None = None,
    vectors: bool = False,
) -> Iterator[DocumentAnswer]:
    """An object's documents in order, those after an ordinal."""
    from trivet.retrieval.filters import row_matches

    columns = [*_COLUMNS, *(["dense"] if vectors else [])]
    passed = 0
    for part in sorted(manifest.parts, key=lambda part: part.shard):
        passed += part.rows
        if passed <= after + 1:
            # Ordinals count through the parts from 0.
            continue
        for group in row_groups(context.store, manifest.object_id, part, columns=columns):
            keep = row_matches(group, filters) if filters else None
            dense = group.dense if vectors else None
            for index, row in enumerate(group.table.select(_COLUMNS).to_pylist()):
                if row["ordinal"] <= after or (keep is not None and not keep[index]):
                    continue
                found = _of_row(collection, manifest, part.passport, row)
                if dense is not None:
                    found = found.model_copy(update={"dense": dense[index].tolist()})
                yield found


def one(context: Context, collection: Collection, identifier: str) -> DocumentAnswer:
    """One document as it is visible now. Raises `UnknownResource`."""
    chunk_id, object_id = object_of(identifier)
    layout = Layout.of(context.settings, collection.namespace, collection.name)
    manifest = read_current(context.store, layout, object_id)
    if manifest is not None:
        wanted = document_id(chunk_id, object_id)
        for found in of_manifest(context, collection, manifest):
            if found.document_id == wanted:
                return found
    raise unknown_resource("document", identifier)


def of_hit(collection: Collection, hit: Hit, model: str) -> DocumentAnswer:
    """A hit of a search; `model` encoded it, as it did the query."""
    found = DocumentAnswer(
        document_id=document_id(hit.chunk_id, hit.object_id),
        collection_id=collection_id(collection.namespace, collection.name),
        object_id=hit.object_id,
        root_object_id=hit.object_id,
        text=hit.text,
        chunk_index=hit.ordinal,
        heading_path=list(hit.heading_path),
        page_start=hit.page_start,
        page_end=hit.page_end,
        char_start=hit.char_start,
        char_end=hit.char_end,
        language=hit.language,
        token_count=hit.token_count,
        source_url=hit.source_url,
        metadata=hit.metadata,
        model=model,
        generation=hit.generation,
        committed_at=hit.committed_at,
        score=hit.score,
    )
    legs = {"dense": hit.dense, "sparse": hit.sparse, "colbert": hit.colbert}
    more: dict[str, Any] = {
        "leg_scores": {
            name: {"score": leg.score, "rank": leg.rank, "share": hit.shares.get(name)}
            for name, leg in legs.items()
            if leg is not None
        }
    }
    if hit.vectors is not None and hit.vectors.dense is not None:
        more["dense"] = hit.vectors.dense.tolist()
    return found.model_copy(update=more)


def _of_row(collection: Collection, manifest: Manifest, passport: str, row: dict[str, Any]) -> DocumentAnswer:
    made_by = [one for one in manifest.passports if one.digest == passport] or list(manifest.passports)
    return DocumentAnswer(
        document_id=document_id(row["chunk_id"], manifest.object_id),
        collection_id=collection_id(collection.namespace, collection.name),
        object_id=manifest.object_id,
        root_object_id=manifest.object_id,
        text=row["text"],
        chunk_index=row["ordinal"],
        total_chunks=manifest.receipt.chunks,
        heading_path=row["heading_path"],
        source_url=manifest.source_url,
        metadata=manifest.metadata,
        features=by_extractor(row["metadata"]),
        model=made_by[0].model if made_by else None,
        generation=manifest.generation,
        committed_at=manifest.created_at,
        **{name: row[name] for name in ("page_start", "page_end", "char_start", "char_end", "language", "token_count")},
    )
