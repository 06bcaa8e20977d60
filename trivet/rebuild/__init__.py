"""Rebuild: a lost ledger is written back from S3: collections, what is committed, what is staged, what is accepted.

Only what is missing is added, so it may run on a live ledger, twice, or be killed anywhere and run again. One thread
talks to the ledger, others read ahead on S3; never more than a window of records is in memory.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import structlog

from trivet.broker import celery_ringer, make_app
from trivet.clock import Clock, SystemClock
from trivet.errors import StoreDamaged
from trivet.faults import fault
from trivet.ledger import Restored
from trivet.ledger.redis import RedisLedger
from trivet.rebuild.marks import adopt_mark
from trivet.rebuild.recollect import Found, Lost, Recollection
from trivet.rebuild.records import layouts
from trivet.settings import Settings
from trivet.stores import ObjectStore, open_store
from trivet.stores.layout import Layout
from trivet.stores.values import read_value
from trivet.values import Collection

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
_R = TypeVar("_R")

#: Records that are read ahead, and that are looked up in the ledger at once.
_WINDOW = 64
#: Damaged records that the report names; more are only counted.
_NAMED = 100

#: Every fault hook of a rebuild.
FAULTS = (
    "rebuild.before_collection",
    "rebuild.after_collection",
    "rebuild.before_restore",
    "rebuild.after_restore",
    "rebuild.before_mark",
    "mark.before_ledger",
)


@dataclass(frozen=True, slots=True)
class Damaged:
    """A record that could not be used."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What one rebuild wrote back. Tasks that the ledger knew already are only counted in `known`."""

    collections: int = 0
    completed: int = 0
    deleted: int = 0
    #: To be embedded; nothing is fetched again.
    staged: int = 0
    #: Accepted alone, or staged with a plan that is gone: from the beginning.
    accepted: int = 0
    #: Ended at once, in favour of a later task of their object.
    superseded: int = 0
    known: int = 0
    #: Committed so long ago that the ledger would have let them go.
    retired: int = 0
    #: Wait for a task that commits just now: run the rebuild again.
    busy: int = 0
    damaged: int = 0
    #: The first of them.
    reasons: tuple[Damaged, ...] = ()


def rebuild(
    settings: Settings,
    *,
    ledger: RedisLedger | None = None,
    store: ObjectStore | None = None,
    clock: Clock | None = None,
) -> RebuildReport:
    """Write back all that S3 remembers and the ledger does not know. Raises `LedgerUnavailable`, `StoreUnavailable`."""
    # Without a ringer the doorbells of what is restored would count as rung, and be missed for half a minute.
    ledger = ledger or RedisLedger(settings, celery_ringer(make_app(settings)))
    run = _Rebuild(settings, ledger, store or open_store(settings), clock or SystemClock())
    with ThreadPoolExecutor(settings.io_threads, "rebuild") as pool:
        for layout in layouts(settings, run.store):
            run.collection(layout, pool)
    report = run.report()
    fault("rebuild.before_mark")
    if not report.busy:
        # From here on garbage collection trusts this ledger.
        adopt_mark(settings, run.ledger, run.store)
    log.info("ledger.rebuilt", **{name: n for name, n in run.counts.items() if n})
    return report


class _Rebuild:
    def __init__(self, settings: Settings, ledger: RedisLedger, store: ObjectStore, clock: Clock) -> None:
        self.settings = settings
        self.ledger = ledger
        self.store = store
        self.counts: Counter[str] = Counter()
        self._reasons: list[Damaged] = []
        self._recollect = Recollection(store, clock.now() - settings.task_retention_days * 86400)

    def report(self) -> RebuildReport:
        """What has been done so far."""
        return RebuildReport(**self.counts, reasons=tuple(self._reasons))

    def collection(self, layout: Layout, pool: ThreadPoolExecutor) -> None:
        """One collection and its tasks."""
        self._put_collection(layout)
        recollect = self._recollect
        objects = (layout.object_of(found.key) or "" for found in self.store.list(layout.objects(), delimiter="/"))
        self._restore_all(_ahead(pool, lambda one: recollect.committed(layout, one), filter(None, objects)))
        staged = self._unknown(layout.staged_records())
        self._restore_all(_ahead(pool, lambda task_id: recollect.staged(layout, task_id), staged))
        intents = self._unknown(layout.intents())
        self._restore_all(_ahead(pool, lambda task_id: recollect.intent(layout, task_id), intents))

    def _put_collection(self, layout: Layout) -> None:
        try:
            found = read_value(self.store, layout.collection_record(), Collection)
        except StoreDamaged as error:
            self._lost(Lost(layout.collection_record(), error.message))
            return
        if found is not None:
            fault("rebuild.before_collection")
            self.counts["collections"] += self.ledger.put_collection(found[0], replace=False)
            fault("rebuild.after_collection")

    def _unknown(self, prefix: str) -> Iterator[str]:
        """Ids of the records under the prefix whose tasks the ledger does not know, oldest first where ids say so."""
        names = (found.key.removeprefix(prefix) for found in self.store.list(prefix))
        ids = (name.removesuffix(".json") for name in names if name.endswith(".json"))
        while batch := list(islice(ids, _WINDOW)):
            known = self.ledger.known(batch)
            self.counts["known"] += len(known)
            yield from (task_id for task_id in batch if task_id not in known)

    def _restore_all(self, found: Iterable[Found]) -> None:
        for one in found:
            if isinstance(one, Lost):
                self._lost(one)
            elif isinstance(one, str):
                self.counts[one] += 1
            elif one is not None:
                self._restore(one)

    def _restore(self, restored: Restored) -> None:
        task = restored.task
        fault("rebuild.before_restore")
        outcome = self.ledger.bring_back(restored, self.settings.idempotency_hours * 3600)
        fault("rebuild.after_restore")
        if outcome == "unknown_collection":
            reason = f"Collection {task.collection!r} is not remembered: create it, and run the rebuild again."
            self._lost(Lost(task.task_id, reason))
        elif outcome == "restored":
            self.counts[restored.ended or ("staged" if restored.spec else "accepted")] += 1
        else:
            self.counts[outcome] += 1

    def _lost(self, lost: Lost) -> None:
        self.counts["damaged"] += 1
        log.warning("record.damaged", s3_key=lost.key, reason=lost.reason)
        if len(self._reasons) < _NAMED:
            self._reasons.append(Damaged(lost.key, lost.reason))


def _ahead(pool: ThreadPoolExecutor, read: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[_R]:
    """`map`, in order, with at most a window of results waiting."""
    waiting: deque[Future[_R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(read, item))
            if len(waiting) >= _WINDOW:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for left in waiting:
            left.cancel()
