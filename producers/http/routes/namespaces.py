"""Namespaces: tenants. One that the command line or a client has used is there as well."""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from producers.http.answers import Deleted, timestamp
from producers.http.caller import Caller, CallerOf
from producers.http.context import Context, ContextOf
from producers.http.kept import Kept, Shelf
from producers.http.naming import NAMESPACE, ROOT, namespace_id, namespace_named
from producers.http.paging import Page, PageBody, PageQuery, PageRequest, cursor_to, number_from, page_of
from producers.http.route import router as make_router
from trivet.errors import Conflict, Forbidden
from trivet.ids import check_name
from trivet.resources.refusals import unknown_resource

router = make_router("namespaces")


class NamespaceRequest(BaseModel):
    """A new namespace."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"example": {"namespace_name": "acme"}})

    namespace_name: str = Field(min_length=1, max_length=64, validation_alias=AliasChoices("namespace_name", "name"))
    description: str | None = Field(None, max_length=2000)
    feature_extractors: list[Any] | None = Field(None, description="Every namespace has all extractors.")
    mode: str | None = Field(None, max_length=40)


class NamespaceAnswer(BaseModel):
    """A namespace."""

    object: str = "namespace"
    namespace_id: str = Field(examples=["ns_0123456789"])
    namespace_name: str = Field(examples=["acme"])
    description: str | None = None
    mode: str = "managed"
    namespace_ready: bool = True
    collection_count: int
    bucket_count: int
    created_at: str | None = None


class KeptNamespace(Kept):
    """As it is kept."""

    name: str
    description: str | None = None


@router.post("/namespaces", operation_id="create_namespace", summary="Create a namespace")
def create(context: ContextOf, who: CallerOf, asked: NamespaceRequest) -> NamespaceAnswer:
    """The name becomes part of keys in Redis and on S3: letters, digits, `.`, `_` and `-`."""
    if not who.everywhere:
        raise Forbidden("This API key is for one namespace.", hint="Only a key for all namespaces may create one.")
    name = check_name(asked.namespace_name, "Namespace")
    value = KeptNamespace(created_at=context.clock.now(), name=name, description=asked.description)
    kept, new = _shelf(context).make(namespace_id(name), value, name=name)
    if not new and kept.description != value.description:
        raise Conflict(f"Namespace {name!r} is there already.", hint="Use it, or another name.")
    return _answer(context, kept.name, kept)


@router.get("/namespaces", operation_id="list_namespaces", summary="List namespaces")
def list_by_query(context: ContextOf, who: CallerOf, asked: PageQuery) -> Page[NamespaceAnswer]:
    """The newest first; the server's own at the end."""
    return _page(context, who, asked)


@router.post("/namespaces/list", operation_id="list_namespaces_post", summary="List namespaces")
def list_by_body(context: ContextOf, who: CallerOf, asked: PageBody) -> Page[NamespaceAnswer]:
    """The same, asked in a body."""
    return _page(context, who, asked)


@router.get("/namespaces/{namespace_identifier}", operation_id="get_namespace", summary="Get a namespace")
def get(context: ContextOf, who: CallerOf, namespace_identifier: str) -> NamespaceAnswer:
    """By id or by name."""
    name = _named(context, who, namespace_identifier)
    found = _shelf(context).find(name)
    return _answer(context, name, found[1] if found else None)


@router.delete(
    "/namespaces/{namespace_identifier}",
    operation_id="delete_namespace",
    summary="Delete a namespace",
)
def delete(context: ContextOf, who: CallerOf, namespace_identifier: str) -> Deleted:
    """Only an empty one: delete its collections and buckets first."""
    name = _named(context, who, namespace_identifier)
    answer = _answer(context, name, None)
    if answer.collection_count or answer.bucket_count:
        raise Conflict(
            f"Namespace {name!r} has {answer.collection_count} collections and {answer.bucket_count} buckets.",
            hint="Delete those first.",
        )
    _shelf(context).delete(namespace_id(name))
    return Deleted()


def _named(context: Context, who: Caller, identifier: str) -> str:
    """Another namespace is unknown to a key for one. Raises `UnknownResource`."""
    if identifier in (who.namespace, namespace_id(who.namespace)):
        return who.namespace
    if not who.everywhere:
        raise unknown_resource(NAMESPACE, identifier)
    return namespace_named(context, identifier)


def _shelf(context: Context) -> Shelf[KeptNamespace]:
    return Shelf(context, ROOT, NAMESPACE, KeptNamespace)


def _page(context: Context, who: Caller, asked: PageRequest) -> Page[NamespaceAnswer]:
    if not who.everywhere:
        found_own = _shelf(context).find(who.namespace)
        results = [_answer(context, who.namespace, found_own[1] if found_own else None)]
        return page_of(results, asked.limit, total=1, next_cursor=None)
    shelf, own = _shelf(context), context.settings.namespace
    found, rest = shelf.page(number_from("namespaces", asked.cursor), asked.limit)
    results = [_answer(context, kept.name, kept) for _, kept in found]
    made_by_hand = shelf.find(own) is not None
    if rest is None and not made_by_hand:
        results.append(_answer(context, own, None))
    cursor = None if rest is None else cursor_to("namespaces", str(rest))
    return page_of(results, asked.limit, total=shelf.count() + (not made_by_hand), next_cursor=cursor)


def _answer(context: Context, name: str, kept: KeptNamespace | None) -> NamespaceAnswer:
    return NamespaceAnswer(
        namespace_id=namespace_id(name),
        namespace_name=name,
        description=kept.description if kept else None,
        collection_count=len(context.ledger.collections(name)),
        bucket_count=context.resources.count(name, "bucket"),
        created_at=timestamp(kept.created_at) if kept else None,
    )
