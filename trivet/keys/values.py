"""What an API key is, and may do."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field, StrictInt

from trivet.values import Frozen

#: In place of a namespace: all of them, those that are still to come among them.
EVERY_NAMESPACE = "*"


class Scope(StrEnum):
    """What a key may do; `admin` holds all the others."""

    #: List and get: collections, objects, documents, tasks, usage.
    READ = "read"
    #: Execute retrievers.
    SEARCH = "search"
    #: Send sources in, trigger, submit, cancel and retry.
    INGEST = "ingest"
    #: Delete objects and documents.
    DELETE = "delete"
    #: Create, change and delete what others work with: buckets, collections, retrievers.
    MANAGE = "manage"
    #: Keys, hooks, endpoints, namespaces, the audit log.
    ADMIN = "admin"


class KeyLimits(Frozen):
    """A key's own limits; None: those of the settings."""

    requests_per_minute: StrictInt | None = Field(None, ge=1, le=10_000_000)
    burst: StrictInt | None = Field(None, ge=1, le=10_000_000)
    #: 0: any number.
    sources_per_day: StrictInt | None = Field(None, ge=0)


class KeyHash(Frozen):
    """What is kept of a secret; one that was replaced is good until it expires."""

    #: Hex digits, as `trivet.keys.secrets.hashed` gives them.
    value: str
    #: Seconds since the epoch; None for the current one.
    expires_at: float | None = None


class NewKey(Frozen):
    """What the creation of a key states."""

    #: `sk_` and 16 hex digits: the visible beginning of the key.
    key_id: str
    #: A namespace, or `EVERY_NAMESPACE`.
    namespace: str
    name: str = ""
    scopes: tuple[Scope, ...]
    limits: KeyLimits = KeyLimits()
    #: Seconds since the epoch; None: never.
    expires_at: float | None = None
    #: The current one first.
    hashes: tuple[KeyHash, ...]


class ApiKey(NewKey):
    """A key as it stands. Times are seconds since the epoch."""

    created_at: float
    revoked_at: float | None = None
    #: To the minute, about.
    last_used_at: float | None = None

    def allows(self, scope: Scope) -> bool:
        """Whether the key has the scope."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def reaches(self, namespace: str) -> bool:
        """Whether the key is for this namespace."""
        return self.namespace in (namespace, EVERY_NAMESPACE)

    def live_hashes(self, now: float) -> tuple[str, ...]:
        """Those that open, the current one first; none where the key is revoked or expired."""
        if self.revoked_at is not None or (self.expires_at is not None and self.expires_at <= now):
            return ()
        return tuple(each.value for each in self.hashes if each.expires_at is None or each.expires_at > now)

    def state(self, now: float) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "active" if self.live_hashes(now) else "expired"

    def public(self, now: float) -> dict[str, Any]:
        """JSON form without hashes."""
        shown = self.model_dump(mode="json", exclude={"hashes"})
        old = max((each.expires_at for each in self.hashes if each.expires_at is not None), default=None)
        return {**shown, "state": self.state(now), "old_secret_until": old if old is not None and old > now else None}
