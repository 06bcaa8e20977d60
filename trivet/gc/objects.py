"""Left-over generations, plans and raw bytes of one collection."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from trivet.commit import read_pointer
from trivet.errors import StoreDamaged
from trivet.faults import fault
from trivet.gc.report import Collecting
from trivet.gc.rules import Folder, Holdings, holdings, left_over
from trivet.stores.layout import Layout
from trivet.stores.values import read_value
from trivet.values import Manifest

log = structlog.get_logger(__name__)

#: Objects between two looks whether it is still this process' turn.
_OBJECTS = 500


def collect_objects(work: Collecting, layout: Layout) -> None:
    """Remove what `left_over` names of every object that no task is busy with."""
    for count, held in enumerate(holdings(layout, work.store.list(layout.objects()))):
        if work.stopping():
            return
        if count % _OBJECTS == 0:
            work.take_turn()
        if held.tidy:
            continue
        try:
            _collect(work, layout, held)
        except StoreDamaged as error:
            # What cannot be read decides nothing.
            log.warning("object.unreadable", object_id=held.object_id, error=error.message)


def _collect(work: Collecting, layout: Layout, held: Holdings) -> None:
    current = read_pointer(work.store, layout, held.object_id)
    if current is None and held.current:
        # It was listed, so what says that there is none does not decide what is visible.
        return
    folders = left_over(held, current, work.settings, work.now)
    if not folders:
        return
    place = (layout.namespace, layout.collection, held.object_id)
    if work.dry_run:
        if work.ledger.object_busy(*place):
            work.counts["busy"] += 1
        else:
            _count(work, folders)
        return
    work.take_turn()
    fault("gc.before_shut")
    if not work.ledger.shut_object(work.owner, *place):
        work.counts["busy"] += 1
        return
    try:
        fault("gc.after_shut")
        # A task that was active a moment ago may have moved the pointer since it was read; from now on none can.
        if read_pointer(work.store, layout, held.object_id) == current:
            for folder in folders:
                _remove(work, layout, folder)
                _count(work, [folder])
        else:
            work.counts["busy"] += 1
    finally:
        fault("gc.before_open")
        work.ledger.open_object(work.owner, *place)


def _remove(work: Collecting, layout: Layout, folder: Folder) -> None:
    """Remove all keys of a folder."""
    if folder.sealed is not None:
        # A rebuild would take the record of a generation that is gone for unfinished work.
        manifest = read_value(work.store, folder.keys[0].key, Manifest)
        if manifest is not None:
            work.keep_turn()
            work.store.delete(layout.staged_record(manifest[0].task_id))
    for stored in folder.keys:
        fault("gc.before_delete")
        # Before each key: of a process that was stopped, the object may have been opened and filled again meanwhile.
        work.keep_turn()
        work.store.delete(stored.key)


def _count(work: Collecting, folders: Sequence[Folder]) -> None:
    for folder in folders:
        work.counts[folder.kind] += 1
        work.counts["keys"] += len(folder.keys)
        work.counts["bytes"] += sum(stored.size for stored in folder.keys)
        log.info("garbage.folder", kind=folder.kind, s3_key=folder.keys[0].key, keys=len(folder.keys))
