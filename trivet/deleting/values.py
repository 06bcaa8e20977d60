"""What a batch of deletes has become: tasks, or something that waits for a confirmation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trivet.values import Frozen

What = Literal["prefix", "collection", "missing"]


class HeldDelete(Frozen):
    """A batch that waits for a confirmation."""

    id: str
    namespace: str
    collection: str
    what: What
    #: Of `prefix`: the URL.
    prefix: str = ""
    #: Objects that it would delete, and that are visible in all.
    count: int
    visible: int
    #: Ids of some.
    sample: tuple[str, ...]
    reason: str
    #: Unix seconds.
    created: float

    def asks_as(self, other: HeldDelete) -> bool:
        """Whether both are answers to the same request, at different times."""
        return (self.collection, self.what, self.prefix) == (other.collection, other.what, other.prefix)


@dataclass(frozen=True, slots=True)
class Deleted:
    """The tasks of a batch."""

    task_ids: tuple[str, ...] = ()
    #: Objects of a confirmed batch that have been ingested anew since it was held: they stay.
    renewed: tuple[str, ...] = ()
