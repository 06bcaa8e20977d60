"""What was sent to an API and lies on the store, once neither a bucket's object nor a task can need it any more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from urllib.parse import unquote, urlsplit

from trivet.errors import InvalidRequest, NotInStore
from trivet.faults import fault
from trivet.fetch.upload import SCHEME
from trivet.gc.report import Collecting
from trivet.ids import check_name
from trivet.resources import Resources, open_resources
from trivet.stores import Stored
from trivet.stores.layout import top, uploads

#: Folder of content that belongs to no object of a bucket. It is named by its hash: what comes again is written anew.
LOOSE = "-"
#: Keys of a listing, or tasks, between two looks whether it is still this process' turn.
_LOOKED = 500
#: Keys that are held against all tasks of their namespace at once.
_BATCH = 10_000


def collect_sent(work: Collecting) -> None:
    """One round over all namespaces.

    A task may need what it fetches for as long as the ledger knows it; what is young may be named by one yet to come.
    """
    settings, resources = work.settings, open_resources(work.settings)
    old = work.now - max(settings.gc_grace_hours * 3600, settings.task_retention_days * 86400)
    try:
        for found in work.store.list(top(settings), delimiter="/"):
            namespace = found.key.removeprefix(top(settings)).removesuffix("/")
            with suppress(InvalidRequest):
                _collect(work, resources, check_name(namespace, "Namespace"), old)
    finally:
        resources.close()


def _collect(work: Collecting, resources: Resources, namespace: str, old: float) -> None:
    work.take_turn()
    unowned = _unowned(work, resources, namespace, old)
    while batch := dict(islice(unowned, _BATCH)):
        # However old it is: a task may have waited for as long, or have failed and be run again. Tasks are asked for
        # after the owners: once an owner is gone, no further task comes to name what it had.
        for count, url in enumerate(work.ledger.sources(namespace)):
            if count % _LOOKED == 0:
                work.keep_turn()
            batch.pop(_named(url), None)
        for stored in batch.values():
            if work.stopping():
                return
            _remove(work, stored)


def _unowned(work: Collecting, resources: Resources, namespace: str, old: float) -> Iterator[tuple[str, Stored]]:
    """Name and listing of what is old and belongs to nothing."""
    prefix = uploads(work.settings, namespace)
    for count, stored in enumerate(work.store.list(prefix)):
        if work.stopping():
            return
        if count % _LOOKED == 0:
            work.keep_turn()
        name = stored.key.removeprefix(prefix)
        if stored.modified <= old and not _needed(resources, namespace, name):
            yield name, stored


def _remove(work: Collecting, stored: Stored) -> None:
    if not work.dry_run:
        fault("gc.before_sent")
        if _sent_again(work, stored):
            return
        work.keep_turn()
        work.store.delete(stored.key)
    work.counts["sent"] += 1
    work.counts["keys"] += 1
    work.counts["bytes"] += stored.size


def _named(url: str) -> str:
    """The content that a task's URL names, as its fetcher reads it; empty for another source."""
    return unquote(urlsplit(url.strip()).path[1:]) if url.startswith(f"{SCHEME}:") else ""


def _sent_again(work: Collecting, listed: Stored) -> bool:
    """Whether the same content came in since it was listed, for a task that is newer than the names that were read."""
    try:
        return work.store.head(listed.key).modified > listed.modified
    except NotInStore:
        return True


def _needed(resources: Resources, namespace: str, name: str) -> bool:
    """Whether the object or the upload that it belongs to is still there."""
    bucket_id, _, rest = name.partition("/")
    if bucket_id == LOOSE or not rest:
        return False
    owner = rest.partition("/")[0]
    return any(resources.get(namespace, f"{kind}/{bucket_id}", owner) for kind in ("object", "upload"))
