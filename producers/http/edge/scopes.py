"""Which scope each route needs. One table, so that it can be read and tested whole; what is not in it needs `admin`."""

from __future__ import annotations

import re

from trivet.keys import Scope

#: (methods, pattern of the path as the route states it) → scope; the first that fits counts.
_RULES: tuple[tuple[str, str, Scope], ...] = (
    # What could show or change secrets, or who may do what.
    ("*", r"/v1/(keys|hooks|audit-log)(/.*)?", Scope.ADMIN),
    ("*", r"/v1/organizations/webhooks(/.*)?", Scope.ADMIN),
    ("POST PUT PATCH DELETE", r"/v1/namespaces(/(?!list$).*)?", Scope.ADMIN),
    # POSTs that only look.
    ("POST", r"/v1/(.*/)?list", Scope.READ),
    ("POST", r"/v1/retrievers/(.*/)?execute", Scope.SEARCH),
    ("POST", r"/v1/collections/\{[a-z_]+\}/search", Scope.SEARCH),
    ("GET HEAD", r"/v1/.*", Scope.READ),
    # Sources in.
    ("POST", r"/v1/collections/\{[a-z_]+\}/(ingest|trigger)(/.*)?", Scope.INGEST),
    ("POST PUT PATCH", r"/v1/buckets/\{[a-z_]+\}/(objects|uploads|batches)(/.*)?", Scope.INGEST),
    ("POST", r"/v1/tasks/\{[a-z_]+\}/(cancel|retry)", Scope.INGEST),
    ("DELETE", r"/v1/tasks/\{[a-z_]+\}", Scope.INGEST),
    ("DELETE", r"/v1/buckets/\{[a-z_]+\}/(uploads|batches)/.*", Scope.INGEST),
    # Objects and chunks out.
    ("DELETE", r"/v1/(buckets|collections)/\{[a-z_]+\}/objects/.*", Scope.DELETE),
    ("DELETE POST", r"/v1/collections/\{[a-z_]+\}/documents/.*", Scope.DELETE),
    # What others work with.
    ("POST PUT PATCH DELETE", r"/v1/(buckets|collections|retrievers)(/.*)?", Scope.MANAGE),
)
_COMPILED = tuple((frozenset(methods.split()), re.compile(path), scope) for methods, path, scope in _RULES)


def rule_for(method: str, path: str) -> Scope | None:
    """The scope that the table gives; None where it says nothing."""
    for methods, pattern, scope in _COMPILED:
        if (method in methods or "*" in methods) and pattern.fullmatch(path):
            return scope
    return None


def scope_for(method: str, path: str) -> Scope:
    """The scope that a request needs, by the path as its route states it."""
    return rule_for(method, path) or Scope.ADMIN
