"""What the book of endpoints says when it refuses: the same words, whichever keeps it."""

from __future__ import annotations

from trivet.errors import InvalidRequest, UnknownEndpoint


def unknown_endpoint(endpoint_id: str) -> UnknownEndpoint:
    """There is no such endpoint, or it is another namespace's."""
    return UnknownEndpoint(f"No endpoint is called {endpoint_id[:80]!r}.", hint="List them with: trivet endpoints list")


def too_many_waiting(endpoint_id: str) -> InvalidRequest:
    """A replay must not put more in line than an endpoint may have waiting."""
    return InvalidRequest(
        f"Endpoint {endpoint_id} has 100,000 events waiting already.",
        hint="Replay the rest when it has taken them.",
    )
