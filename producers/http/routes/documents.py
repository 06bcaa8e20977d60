"""Documents: the chunks of a collection's objects."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, StrictBool

from producers.http import documents
from producers.http.answers import Deleted
from producers.http.caller import Caller, CallerOf
from producers.http.context import Context, ContextOf
from producers.http.documents import DocumentAnswer
from producers.http.naming import collection_named
from producers.http.paging import Page, PageQuery, PageRequest, QueryOfPost, cursor_from, cursor_to, page_of
from producers.http.route import router as make_router
from trivet.deleting.deletes import delete_object
from trivet.errors import Conflict, InvalidRequest
from trivet.ids import check_object_id
from trivet.parts.reader import read_current
from trivet.stores.layout import Layout

router = make_router("documents")
_EXAMPLE: dict[str, Any] = {
    "limit": 100,
    "filters": {"AND": [{"field": "metadata.year", "operator": "eq", "value": 2026}]},
}


class DocumentsRequest(PageRequest):
    """Which documents."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"example": _EXAMPLE})

    object_id: str | None = Field(None, max_length=128)
    filters: dict[str, Any] | None = Field(None, description="As those of retrievers.")
    return_vectors: StrictBool = Field(False, description="With the dense vector of each.")


@router.get("/collections/{collection_identifier}/documents", operation_id="list_documents", summary="List documents")
def list_by_query(
    context: ContextOf, who: CallerOf, collection_identifier: str, asked: PageQuery, object_id: str | None = None
) -> Page[DocumentAnswer]:
    """By object, and within it in order."""
    return _page(context, who, collection_identifier, DocumentsRequest(**asked.model_dump(), object_id=object_id))


@router.post(
    "/collections/{collection_identifier}/documents/list",
    operation_id="list_documents_post",
    summary="List documents",
)
def list_by_body(
    context: ContextOf,
    who: CallerOf,
    collection_identifier: str,
    query: QueryOfPost,
    asked: DocumentsRequest | None = None,
) -> Page[DocumentAnswer]:
    """The same, asked in a body, with filters."""
    return _page(context, who, collection_identifier, query.over(asked or DocumentsRequest()))


@router.get(
    "/collections/{collection_identifier}/documents/{document_id}",
    operation_id="get_document",
    summary="Get a document",
)
def get(context: ContextOf, who: CallerOf, collection_identifier: str, document_id: str) -> DocumentAnswer:
    """As it is visible now."""
    return documents.one(context, collection_named(context, who.namespace, collection_identifier), document_id)


@router.delete(
    "/collections/{collection_identifier}/documents/{document_id}",
    operation_id="delete_document",
    summary="Delete a document's object",
)
def delete(
    context: ContextOf, who: CallerOf, collection_identifier: str, document_id: str, whole_object: bool = False
) -> Deleted:
    """Objects are deleted, never a piece of one: of an object with several documents only with `whole_object=true`."""
    collection = collection_named(context, who.namespace, collection_identifier)
    found = documents.one(context, collection, document_id)
    if found.total_chunks != 1 and not whole_object:
        raise Conflict(
            f"The document is one of {found.total_chunks} of object {found.object_id}.",
            hint="Delete the object with all of them: repeat it with ?whole_object=true.",
        )
    return _deleted(context, who, collection.name, found.object_id)


@router.delete(
    "/collections/{collection_identifier}/objects/{object_id}",
    operation_id="delete_object_documents",
    summary="Delete all documents of an object",
)
def delete_by_object(context: ContextOf, who: CallerOf, collection_identifier: str, object_id: str) -> Deleted:
    """A task hides it, as soon as no other task of the object is active."""
    collection = collection_named(context, who.namespace, collection_identifier)
    return _deleted(context, who, collection.name, check_object_id(object_id))


def _deleted(context: Context, who: Caller, collection: str, object_id: str) -> Deleted:
    accepted = delete_object(
        context.ledger, context.settings, who.namespace, collection, object_id, store=context.store
    )
    return Deleted(task_ids=[accepted.task_id])


def _page(context: Context, who: Caller, identifier: str, asked: DocumentsRequest) -> Page[DocumentAnswer]:
    from trivet.retrieval.filters import object_matches
    from trivet.retrieval.stage_filters import read_filters
    from trivet.retrieval.visible import listed_objects

    collection = collection_named(context, who.namespace, identifier)
    trees: list[dict[str, Any]] = [asked.filters] if asked.filters else []
    if asked.object_id:
        trees.append({"field": "object_id", "operator": "eq", "value": check_object_id(asked.object_id)})
    filters = read_filters(trees)
    first, after = _place(cursor_from("documents", asked.cursor))
    layout = Layout.of(context.settings, collection.namespace, collection.name)
    if filters.object_ids is None:
        objects = sorted(one for one in listed_objects(context.store, layout) if one >= first)
    else:
        objects = sorted({check_object_id(one) for one in filters.object_ids if one >= first})
    found: list[DocumentAnswer] = []
    for object_id in objects:
        manifest = read_current(context.store, layout, object_id)
        if manifest is None or not object_matches(manifest, filters):
            continue
        begin = after if object_id == first else -1
        for each in documents.of_manifest(
            context, collection, manifest, after=begin, filters=filters, vectors=asked.return_vectors
        ):
            found.append(each)
            if len(found) > asked.limit:
                last = found[asked.limit - 1]
                cursor = cursor_to("documents", f"{last.object_id}/{last.chunk_index}")
                return page_of(found[: asked.limit], asked.limit, next_cursor=cursor)
    return page_of(found, asked.limit)


def _place(where: str) -> tuple[str, int]:
    """The object and ordinal that a cursor names."""
    object_id, _, ordinal = where.partition("/")
    if where and not ordinal.isdecimal():
        raise InvalidRequest("The cursor is not one of this list.", hint="Leave it out for the first page.")
    return object_id, int(ordinal) if ordinal else -1
