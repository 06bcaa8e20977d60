"""What is said where a resource is not there, or there already."""

from __future__ import annotations

from trivet.errors import AlreadyExists, UnknownResource


def already_exists(kind: str, name: str, other: str) -> AlreadyExists:
    """Another one of the kind has the name."""
    return AlreadyExists(f"A {kind} called {name[:80]!r} exists already: {other}.", hint="Use another name.")


def unknown_resource(kind: str, id_or_name: str) -> UnknownResource:
    """There is none of the kind with this id or name."""
    return UnknownResource(f"No {kind} has the id or name {id_or_name[:80]!r}.")
