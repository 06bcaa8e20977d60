"""What the book of keys says when it refuses: the same words, whichever keeps it."""

from __future__ import annotations

from trivet.errors import InvalidRequest, UnknownKey
from trivet.keys import MOST_KEYS


def unknown_key(key_id: str) -> UnknownKey:
    """There is no such key, or it is another namespace's."""
    # Somebody may have pasted the whole key.
    return UnknownKey(f"No API key is called {key_id[:19]!r}.", hint="List them with: trivet keys list")


def revoked(key_id: str) -> InvalidRequest:
    """A revoked key gets no new secret."""
    return InvalidRequest(f"API key {key_id} was revoked.", hint="Make another with: trivet keys create")


def too_many_keys(namespace: str) -> InvalidRequest:
    """A namespace has its most."""
    return InvalidRequest(
        f"Namespace {namespace!r} has {MOST_KEYS:,} API keys, and more are not kept.",
        hint="Revoke those that nobody uses: trivet keys revoke KEY",
    )
