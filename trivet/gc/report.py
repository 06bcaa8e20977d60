"""What one round of garbage collection works with, and what it says at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from trivet.clock import Clock
from trivet.ledger.redis import RedisLedger
from trivet.ledger.redis_turns import not_our_turn
from trivet.rebuild.marks import check_still
from trivet.settings import Settings
from trivet.stores import ObjectStore


@dataclass(frozen=True, slots=True)
class GcReport:
    """What was removed; in a dry run, what would be."""

    dry_run: bool = False
    #: Folders `g/N/` that a newer generation has replaced.
    replaced: int = 0
    #: Folders `g/N/` that never became visible.
    abandoned: int = 0
    #: Folders `plan/…/` that neither the visible generation nor a task uses.
    plans: int = 0
    #: Fetched bytes of other content than the visible generation's.
    raw: int = 0
    #: Records of staged tasks that have ended, and intents of tasks that have.
    staged: int = 0
    intents: int = 0
    #: Content that was sent to an API and that nothing needs any more.
    sent: int = 0
    #: Multipart uploads that nobody completed. A dry run does not look for them.
    uploads: int = 0
    #: Keys and bytes of all these but the uploads.
    keys: int = 0
    bytes: int = 0
    #: Objects that were left alone because a task of them is active.
    busy: int = 0


@dataclass(frozen=True, slots=True)
class Collecting:
    """One round."""

    settings: Settings
    ledger: RedisLedger
    store: ObjectStore
    clock: Clock
    dry_run: bool
    stopping: Callable[[], bool]
    #: Who has the turn: one process at a time removes.
    owner: str
    #: Of the ledger, as the round began.
    mark: str
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def now(self) -> float:
        """Unix seconds."""
        return self.clock.now()

    def take_turn(self) -> None:
        """Raise `TransientError` where another process has it. One that has lapsed begins anew: nothing is shut yet.

        Raises `WrongLedger` where the ledger is not the one that the round began with: an empty one gives its turn to
        anybody, and says that nobody needs anything. One that is wiped later has forgotten the turn (`keep_turn`).
        """
        if self.dry_run:
            return
        if not self.ledger.take_turn("gc_turn", self.owner):
            raise not_our_turn()
        check_still(self.ledger, self.mark)

    def keep_turn(self) -> None:
        """Raise `TransientError` where the turn is no longer this process', since it was silent for long."""
        if not self.dry_run:
            self.ledger.keep_turn("gc_turn", self.owner)

    def report(self) -> GcReport:
        """What has been done so far."""
        return GcReport(dry_run=self.dry_run, **self.counts)
