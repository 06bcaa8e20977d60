"""What the book of endpoints says when it refuses: the same words, whichever keeps it."""

from __future__ import annotations

from trivet.errors import UnknownEndpoint


def unknown_endpoint(endpoint_id: str) -> UnknownEndpoint:
    """There is no such endpoint, or it is another namespace's."""
    return UnknownEndpoint(f"No endpoint is called {endpoint_id[:80]!r}.", hint="List them with: trivet endpoints list")
