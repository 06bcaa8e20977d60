"""API keys: the book that keeps them, and its seam. `trivet.keys.service.Keys` is what users work with."""

from __future__ import annotations

from typing import Protocol

from trivet.keys.values import EVERY_NAMESPACE, ApiKey, KeyHash, KeyLimits, NewKey, Scope

#: Keys of one namespace that are kept, the revoked ones among them.
MOST_KEYS = 1000
#: How long a revoked key is still listed.
REVOKED_DAYS = 30


class KeyBook(Protocol):
    """The keys. Every method raises `LedgerUnavailable` and bears being applied twice."""

    def add(self, key: NewKey) -> ApiKey:
        """Keep a key; an id that is there already stays as it is. Raises `InvalidRequest` where there are too many."""

    def key(self, key_id: str) -> ApiKey:
        """One key as it stands, whatever its state. Raises `UnknownKey`."""

    def keys(self, namespace: str) -> list[ApiKey]:
        """Those of a namespace, or of `EVERY_NAMESPACE`, the oldest first."""

    def rotate(self, key_id: str, new: str, overlap_seconds: float) -> ApiKey:
        """Make a hash the current one; those before it are good for the overlap.

        Raises `UnknownKey`, and `InvalidRequest` for a key that was revoked.
        """

    def revoke(self, key_id: str) -> bool:
        """End it now; it stays listed for `REVOKED_DAYS`. False where it was revoked. Raises `UnknownKey`."""

    def used(self, key_id: str) -> None:
        """Note that it was used now. Not an error where there is none."""

    def close(self) -> None: ...


__all__ = [
    "EVERY_NAMESPACE",
    "MOST_KEYS",
    "REVOKED_DAYS",
    "ApiKey",
    "KeyBook",
    "KeyHash",
    "KeyLimits",
    "NewKey",
    "Scope",
]
