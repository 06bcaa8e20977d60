"""Who asks, and for which namespace. A dependency of every route but health and the list of extractors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from producers.http.context import Context, context_of
from producers.http.edge import access
from producers.http.edge.scopes import scope_for
from producers.http.naming import NAMESPACE, namespace_named
from trivet.errors import TooManyRequests
from trivet.keys import EVERY_NAMESPACE, ApiKey, Scope
from trivet.resources.refusals import unknown_resource

NAMESPACE_HEADER = "X-Namespace"

#: For the OpenAPI file alone; `access` reads the header.
_BEARER = HTTPBearer(auto_error=False, scheme_name="apiKey", description="An API key: `sk_…`.")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is. Everything that a route reads or writes lies in `namespace`."""

    namespace: str
    #: Id of the API key; empty where none is asked for.
    key_id: str = ""
    #: Empty: everything.
    scopes: frozenset[str] = frozenset()
    #: Sources that it may ingest per UTC day; 0: any number.
    sources_per_day: int = 0
    #: Whether every namespace is open to it, and not this one alone.
    everywhere: bool = True

    def may(self, scope: Scope) -> bool:
        """Whether it has the scope: for what a route asks for in some cases alone."""
        return not self.scopes or scope in self.scopes or Scope.ADMIN in self.scopes


def caller(request: Request) -> Caller:
    """The caller of a request: worked out once, then kept on the request.

    The namespace is the one that the header names, by id or by name, else the key's own, else the settings'. Raises
    `Unauthenticated`; `UnknownResource` where there is no such namespace, or it is not the key's: the two are not told
    apart; `Forbidden` where the key lacks the route's scope; and `TooManyRequests`.
    """
    found: Caller | None = getattr(request.state, "caller", None)
    if found is None:
        context = context_of(request)
        key = None
        if access.keys_are_asked_for(context.settings):
            key = access.authenticated(context.edge, request)
            rate = request.state.rate = access.admit(context.edge, key)
            if not rate.allowed:
                raise TooManyRequests("This API key sends more requests than it may.", retry_after=rate.retry_after)
        else:
            access.check_open(context.settings, request)
        found = request.state.caller = _caller(context, key, request.headers.get(NAMESPACE_HEADER, "").strip())
        if key is not None:
            access.check_scope(key, scope_for(request.method, request.scope["route"].path))
    return found


def _caller(context: Context, key: ApiKey | None, asked: str) -> Caller:
    own = context.settings.namespace if key is None or key.namespace == EVERY_NAMESPACE else key.namespace
    # A key's own namespace may be one that nothing was put into yet.
    namespace = own if asked in ("", own) else namespace_named(context, asked)
    if key is None:
        return Caller(namespace)
    if not key.reaches(namespace):
        raise unknown_resource(NAMESPACE, asked)
    per_day = key.limits.sources_per_day
    return Caller(
        namespace,
        key.key_id,
        frozenset(key.scopes),
        context.settings.sources_per_day if per_day is None else per_day,
        key.namespace == EVERY_NAMESPACE,
    )


async def known_caller(
    request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)] = None
) -> Caller:
    """The caller, worked out before by `Guarded`: a dependency that waits for nothing needs no thread."""
    found: Caller = request.state.caller
    return found


CallerOf = Annotated[Caller, Depends(known_caller)]
