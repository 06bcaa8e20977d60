"""Who asks, and for which namespace. A dependency of every route but health and the list of extractors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from producers.http.context import context_of
from producers.http.naming import namespace_named

NAMESPACE_HEADER = "X-Namespace"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is. Everything that a route reads or writes lies in `namespace`."""

    namespace: str
    #: Id of the API key; empty where none is asked for.
    key_id: str = ""
    #: Empty: everything.
    scopes: frozenset[str] = frozenset()


def caller(request: Request) -> Caller:
    """The caller of a request: worked out once, then kept on the request.

    The namespace is the one that the header names, by id or by name, else the settings' own. Raises
    `UnknownResource` where there is no such namespace.
    """
    found: Caller | None = getattr(request.state, "caller", None)
    if found is None:
        context = context_of(request)
        asked = request.headers.get(NAMESPACE_HEADER, "").strip()
        namespace = namespace_named(context, asked) if asked else context.settings.namespace
        found = request.state.caller = Caller(namespace)
    return found


CallerOf = Annotated[Caller, Depends(caller)]
