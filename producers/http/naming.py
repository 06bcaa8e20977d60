"""Ids of namespaces and collections: functions of their names, so that those made elsewhere have one as well."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from trivet.errors import InvalidRequest
from trivet.ids import check_name, digest
from trivet.ledger.refusals import unknown_collection
from trivet.resources.refusals import unknown_resource
from trivet.values import Collection

if TYPE_CHECKING:
    from producers.http.context import Context

#: The namespace under which namespaces themselves are kept; no name begins with an underscore.
ROOT = "_"
NAMESPACE = "namespace"


@lru_cache(maxsize=4096)
def namespace_id(name: str) -> str:
    """`ns_` and 10 hex digits."""
    return "ns_" + digest(["namespace", name], 10)


@lru_cache(maxsize=65536)
def collection_id(namespace: str, name: str) -> str:
    """`col_` and 10 hex digits."""
    return "col_" + digest(["collection", namespace, name], 10)


def namespace_named(context: Context, id_or_name: str) -> str:
    """The name of a namespace that is there: made by a request, the settings' own, or one that has collections.

    Raises `UnknownResource`.
    """
    own = context.settings.namespace
    if id_or_name in (own, namespace_id(own)):
        return own
    found = context.resources.get(ROOT, NAMESPACE, id_or_name)
    if found is not None:
        return found.name
    try:
        name = check_name(id_or_name, "Namespace")
    except InvalidRequest:
        raise unknown_resource(NAMESPACE, id_or_name) from None
    if context.ledger.collections(name):
        return name
    raise unknown_resource(NAMESPACE, id_or_name)


def collection_named(context: Context, namespace: str, id_or_name: str) -> Collection:
    """A collection by id or by name. Raises `UnknownCollection`."""
    found = context.ledger.get_collection(namespace, id_or_name)
    if found is None and id_or_name.startswith("col_"):
        named = (
            one for one in context.ledger.collections(namespace) if collection_id(namespace, one.name) == id_or_name
        )
        found = next(named, None)
    if found is None:
        raise unknown_collection(namespace, id_or_name)
    return found
