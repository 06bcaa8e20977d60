"""Left-over generations, plans and raw bytes of one collection."""

from __future__ import annotations

import structlog

from trivet.commit import read_pointer
from trivet.errors import StoreDamaged
from trivet.faults import fault
from trivet.gc.report import Collecting
from trivet.gc.rules import Folder, Holdings, holdings, left_over
from trivet.records import read_record
from trivet.stores.layout import Layout
from trivet.values import Current, Manifest

log = structlog.get_logger(__name__)

#: Keys that are removed before the object is looked at again.
_BETWEEN_LOOKS = 20


def collect_objects(work: Collecting, layout: Layout) -> None:
    """Remove what `left_over` names of every object that no task is busy with."""
    for held in holdings(layout, work.store.list(layout.objects())):
        if work.stopping():
            return
        if held.tidy:
            continue
        try:
            _collect(work, layout, held)
        except StoreDamaged as error:
            # What cannot be read decides nothing.
            log.warning("object.unreadable", object_id=held.object_id, error=error.message)


def _collect(work: Collecting, layout: Layout, held: Holdings) -> None:
    current = read_pointer(work.store, layout, held.object_id)
    folders = left_over(held, current, work.settings, work.now)
    if not folders:
        return
    if not _untouched(work, layout, held.object_id, current):
        work.counts["busy"] += 1
        return
    for folder in folders:
        if not work.dry_run and not _remove(work, layout, held.object_id, current, folder):
            work.counts["busy"] += 1
            return
        work.counts[folder.kind] += 1
        work.counts["keys"] += len(folder.keys)
        work.counts["bytes"] += sum(stored.size for stored in folder.keys)
        log.info("garbage.folder", kind=folder.kind, key=folder.keys[0].key, keys=len(folder.keys), dry=work.dry_run)


def _untouched(work: Collecting, layout: Layout, object_id: str, current: Current | None) -> bool:
    """No task of the object is active or waits, and readers see what they saw. The ledger is asked first: a task that
    was active then may have moved the pointer since, and one that starts later keeps clear of what lies there."""
    if work.ledger.object_busy(layout.namespace, layout.collection, object_id):
        return False
    fault("gc.after_ledger")
    return read_pointer(work.store, layout, object_id) == current


def _remove(work: Collecting, layout: Layout, object_id: str, current: Current | None, folder: Folder) -> bool:
    """Remove all keys of a folder; False where the object came to life meanwhile."""
    if folder.sealed is not None and folder.kind in ("replaced", "abandoned"):
        # A rebuild would take the record of a generation that is gone for unfinished work.
        manifest = read_record(work.store, folder.keys[0].key, Manifest)
        if manifest is not None:
            work.store.delete(layout.staged_record(manifest[0].task_id))
    for count, stored in enumerate(folder.keys):
        fault("gc.before_look")
        if count % _BETWEEN_LOOKS == 0 and not _untouched(work, layout, object_id, current):
            return False
        fault("gc.before_delete")
        work.store.delete(stored.key)
    return True
