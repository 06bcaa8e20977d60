"""What the HTTP API keeps beside tasks: buckets, objects, batches, retrievers, and answers under idempotency keys.

The seam, and its registry. A resource is a JSON document with an id and, where its kind has names, a name that no other
of its kind and namespace has. `redis` is the real one (one script per change, in `lua/`), `memory` its twin; both pass
`tests/contract/test_resources.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from trivet.settings import Settings


@dataclass(frozen=True, slots=True)
class Resource:
    """One document as it stands."""

    namespace: str
    kind: str
    id: str
    #: Empty where its kind has no names.
    name: str
    #: JSON.
    body: str
    #: 1 when it is made, one more with every change.
    version: int
    #: Grows from resource to resource of all kinds: their order, and where a page goes on.
    number: int
    #: Whether the `create` that gave it has made it.
    new: bool = field(default=False, compare=False)


class Outcome(StrEnum):
    """What `reserve` found under an idempotency key."""

    OURS = "ours"  # nothing was there: do it, then `answer` or `release`
    BUSY = "busy"  # another request with it is on its way
    CONFLICT = "conflict"  # it stands for another request
    ANSWERED = "answered"


@dataclass(frozen=True, slots=True)
class Reserved:
    """The outcome, with the answer where there is one."""

    outcome: Outcome
    answer: str = ""


class Resources(Protocol):
    """Thread-safe. Every method raises `LedgerUnavailable`."""

    def close(self) -> None:
        """Close the connections."""
        ...

    def create(self, namespace: str, kind: str, resource_id: str, body: str, *, name: str = "") -> Resource:
        """Write a new one. Where the id is there already, that one comes back as it is.

        Raises `AlreadyExists` for a name that another one has.
        """
        ...

    def get(self, namespace: str, kind: str, id_or_name: str) -> Resource | None: ...

    def replace(self, resource: Resource, body: str) -> Resource | None:
        """Change the body; None where it has changed or gone since `resource` was read."""
        ...

    def delete(self, namespace: str, kind: str, resource_id: str) -> bool:
        """Forget it, with its links. False where it was not there."""
        ...

    def drop(self, namespace: str, kind: str) -> None:
        """Forget all of a kind, with their links."""
        ...

    def page(self, namespace: str, kind: str, *, after: int = 0, limit: int = 100) -> list[Resource]:
        """The oldest first, those after a number."""
        ...

    def page_back(self, namespace: str, kind: str, *, before: int | None = None, limit: int = 100) -> list[Resource]:
        """The newest first, those before a number."""
        ...

    def count(self, namespace: str, kind: str) -> int: ...

    def link(self, namespace: str, resource_id: str, links: Mapping[str, str]) -> None:
        """Note name → value pairs with a resource; a name that is there gets the new value."""
        ...

    def links(self, namespace: str, resource_id: str) -> dict[str, str]: ...

    def unlink(self, namespace: str, resource_id: str) -> None:
        """Forget all links of a resource."""
        ...

    def reserve(self, namespace: str, key: str, fingerprint: str, *, seconds: float) -> Reserved:
        """Take an idempotency key for a request. What was not answered or released is free again after `seconds`."""
        ...

    def seed(self, namespace: str, key: str, *, seconds: float) -> str:
        """A random text, the same for whoever asks under this key within `seconds` of the first."""
        ...

    def renew(self, namespace: str, key: str, fingerprint: str, *, seconds: float) -> None:
        """Hold a key that was reserved for so long from now on. One that another request has by now stays with that."""
        ...

    def answer(self, namespace: str, key: str, fingerprint: str, answer: str, *, seconds: float) -> None:
        """Keep the answer under the key for so long."""
        ...

    def release(self, namespace: str, key: str, fingerprint: str) -> None:
        """Free a key that was reserved and not answered."""
        ...


def open_resources(settings: Settings) -> Resources:
    """Those in the Redis that the settings name."""
    from trivet.resources.redis import RedisResources

    return RedisResources(settings)
