"""Records of tasks that have ended, and intents that came to nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from trivet.errors import StoreDamaged
from trivet.faults import fault
from trivet.gc.report import Collecting
from trivet.ledger.redis import RedisLedger
from trivet.ledger.redis_restoring import EndedTask
from trivet.rebuild.records import StagedRecord
from trivet.settings import Settings
from trivet.stores import ObjectStore, Stored
from trivet.stores.layout import Layout
from trivet.stores.values import read_value
from trivet.values import Manifest, TaskState

_PAGE = 500
#: What has ended is forgotten so long after, so that none of the same millisecond is missed.
_MARGIN_MS = 50
_VISIBLE = (TaskState.COMPLETED, TaskState.DELETED)


def collect_records(work: Collecting, layout: Layout) -> None:
    """Both kinds, in full. The ledger may have lost a task that it does not know: its record grows old first."""
    keyed = work.now - work.settings.idempotency_hours * 3600
    unknown = work.now - max(work.settings.task_retention_days * 86400, work.settings.gc_grace_hours * 3600)
    for one in _recorded(work, layout.staged_records()):
        modified, state = one.stored.modified, one.state
        if state is None:
            gone = modified <= unknown or (modified <= keyed and _committed(work, layout, one.stored))
        else:
            # While its idempotency key holds, a rebuild must find it.
            gone = state.terminal and (state not in _VISIBLE or modified <= keyed)
        if gone:
            _remove(work, one, "staged")
    for one in _recorded(work, layout.intents()):
        if one.stored.modified <= unknown if one.state is None else one.state.terminal:
            _remove(work, one, "intents")


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A record, and the state of its task: None for one that the ledger does not know."""

    stored: Stored
    task_id: str
    state: TaskState | None


def _recorded(work: Collecting, prefix: str) -> Iterator[_Recorded]:
    listed = (stored for stored in work.store.list(prefix) if stored.key.endswith(".json"))
    while page := list(islice(listed, _PAGE)):
        if work.stopping():
            return
        work.take_turn()
        ids = [stored.key.removeprefix(prefix).removesuffix(".json") for stored in page]
        states = work.ledger.states(ids)
        yield from (_Recorded(stored, name, states.get(name)) for stored, name in zip(page, ids, strict=True))


def _committed(work: Collecting, layout: Layout, stored: Stored) -> bool:
    try:
        found = read_value(work.store, stored.key, StagedRecord)
        if found is None:
            return False
        key = layout.manifest(found[0].object_id, found[0].generation)
        manifest = read_value(work.store, key, Manifest)
    except StoreDamaged:
        return False
    return manifest is not None and manifest[0].task_id == found[0].task_id


def _remove(work: Collecting, one: _Recorded, kind: str) -> None:
    if not work.dry_run:
        fault("gc.before_record")
        work.take_turn()
        # It may have been retried since the page was read, and have a new record under the same name.
        if work.ledger.states([one.task_id]).get(one.task_id) != one.state:
            return
        # A ledger that was wiped knows none of them.
        work.keep_turn()
        work.store.delete(one.stored.key)
    work.counts[kind] += 1
    work.counts["keys"] += 1
    work.counts["bytes"] += one.stored.size


def forget_ended(settings: Settings, ledger: RedisLedger, store: ObjectStore, since: int | None) -> int:
    """Remove the records of what has ended since then (ms by the ledger's clock), and say until when that was.

    A cancelled or failed task must not come back with a rebuild, and an intent holds secrets: neither waits for the
    next round. One that completed keeps its record while it has an idempotency key.
    """
    until = ledger.now_ms() - _MARGIN_MS
    if since is None:
        return until

    def forget(task: EndedTask) -> None:
        layout = Layout.of(settings, task.namespace, task.collection)
        fault("gc.before_forget")
        # It may have been retried since the page was read.
        if not ledger.ended([task.task_id]):
            return
        store.delete(layout.intent(task.task_id))
        if task.state not in _VISIBLE or not task.keyed:
            store.delete(layout.staged_record(task.task_id))

    with ThreadPoolExecutor(settings.io_threads, "forget") as pool:
        ended = ledger.ended_between(since, until)
        while page := list(islice(ended, _PAGE)):
            list(pool.map(forget, page))
    return until
