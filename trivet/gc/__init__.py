"""Garbage collection: removes from S3 what no reader, no task and no rebuild can need any more.

Every rule is in `trivet.gc.rules`. Nothing is removed before the ledger has answered and shown that it is the one that
belongs to this bucket (`trivet.rebuild.marks`). Of an object nothing is removed while a task of it is active or waits,
and while something is removed, none can start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import structlog

from trivet.broker import celery_ringer, make_app
from trivet.clock import Clock, SystemClock
from trivet.deleting.purge import run_purges
from trivet.errors import StoreDamaged, TrivetError
from trivet.gc.objects import collect_objects
from trivet.gc.records import collect_records, forget_ended
from trivet.gc.report import Collecting, GcReport
from trivet.gc.sent import collect_sent
from trivet.ledger.redis import RedisLedger
from trivet.rebuild.marks import check_mark
from trivet.rebuild.records import layouts, put_collection
from trivet.settings import Settings
from trivet.stages.context import worker_name
from trivet.stores import ObjectStore, open_store
from trivet.stores.layout import Layout, top
from trivet.stores.values import read_value
from trivet.values import Collection

__all__ = ["GcReport", "collect", "collect_forever"]

_T = TypeVar("_T")

log = structlog.get_logger(__name__)

#: How often ended tasks are forgotten and purges are run, beside the rounds.
_TICK_SECONDS = 2.0
#: How long a tick may wait before it looks whether the process should stop.
_NAP_SECONDS = 0.25


def collect(
    settings: Settings,
    *,
    ledger: RedisLedger | None = None,
    store: ObjectStore | None = None,
    clock: Clock | None = None,
    dry_run: bool = False,
    stopping: Callable[[], bool] = lambda: False,
) -> GcReport:
    """One round over all collections; with `dry_run` it only counts.

    Raises `WrongLedger` where the ledger was wiped or belongs to another bucket, `LedgerUnavailable`,
    `StoreUnavailable` and `StoreForbidden`; what raises one has removed nothing that is needed.
    """
    ledger, store = ledger or _ledger(settings), store or open_store(settings)
    mark = check_mark(settings, ledger, store)
    work = Collecting(settings, ledger, store, clock or SystemClock(), dry_run, stopping, worker_name(), mark)
    if dry_run:
        _round(work)
    else:
        work.take_turn()
        try:
            ledger.open_what_was_shut(work.owner)
            _round(work)
        finally:
            ledger.end_turn("gc_turn", work.owner)
    report = work.report()
    log.info("garbage.collected", dry_run=dry_run, **{name: n for name, n in work.counts.items() if n})
    return report


def _ledger(settings: Settings) -> RedisLedger:
    """One that rings: an object that is opened again may have a task that starts."""
    return RedisLedger(settings, celery_ringer(make_app(settings)))


def _round(work: Collecting) -> None:
    for layout in layouts(work.settings, work.store):
        if work.stopping():
            return
        work.take_turn()
        if not work.dry_run:
            _refresh(work, layout)
        collect_records(work, layout)
        collect_objects(work, layout)
    collect_sent(work)
    if not work.dry_run:
        old = work.now - work.settings.gc_grace_hours * 3600
        work.counts["uploads"] += work.store.abort_uploads(top(work.settings), old)


def _refresh(work: Collecting, layout: Layout) -> None:
    """What a rebuild will know of the collection is what the ledger has now."""
    key = layout.collection_record()
    held = work.ledger.get_collection(layout.namespace, layout.collection)
    try:
        found = read_value(work.store, key, Collection)
    except StoreDamaged as error:
        log.warning("record.damaged", s3_key=key, reason=error.message)
        if held is not None:
            put_collection(work.store, layout, work.ledger)
        return
    if held is not None and (found is None or found[0] != held):
        put_collection(work.store, layout, work.ledger)
    elif held is None and found is not None and found[1].modified <= work.now - work.settings.gc_grace_hours * 3600:
        # It was removed, and a rebuild must not bring it back; asked of the ledger that the round began with.
        work.keep_turn()
        work.store.delete(key)


def collect_forever(settings: Settings, stopping: Callable[[], bool]) -> None:
    """The role gc: a round at once and every `settings.gc_seconds`, and what cannot wait every few seconds.

    Whatever is unreachable is waited for, and what fails holds nothing else up.
    """
    ledger, store, clock = _ledger(settings), open_store(settings), SystemClock()
    due, me = clock.monotonic(), worker_name()
    since: int | None = None
    while not stopping():
        if clock.monotonic() >= due:
            done = _tried(lambda: collect(settings, ledger=ledger, store=store, clock=clock, stopping=stopping))
            # What a round could not do, the next one will: an outage is no reason to knock all the time.
            pause = settings.gc_seconds if done is not None else min(settings.gc_seconds, 60.0)
            due = clock.monotonic() + pause
        since = _tried(lambda: forget_ended(settings, ledger, store, since)) or since  # noqa: B023 - done within the turn
        _tried(lambda: _open_left(ledger, me))
        _tried(lambda: run_purges(settings, ledger, store, clock=clock))
        _nap(clock, stopping)


def _tried(step: Callable[[], _T]) -> _T | None:
    try:
        return step()
    except TrivetError as error:
        log.warning("collecting.failed", code=error.code, error=str(error))
        return None


def _open_left(ledger: RedisLedger, me: str) -> None:
    """An object that a killed process keeps shut is opened once its turn is over."""
    if ledger.take_turn("gc_turn", me):
        ledger.open_what_was_shut(me)
        ledger.end_turn("gc_turn", me)


def _nap(clock: Clock, stopping: Callable[[], bool]) -> None:
    until = clock.monotonic() + _TICK_SECONDS
    while not stopping() and clock.monotonic() < until:
        clock.sleep(_NAP_SECONDS)
