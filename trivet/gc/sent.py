"""What was sent to an API and lies on the store, once neither a bucket's object nor a task can need it any more."""

from __future__ import annotations

from contextlib import suppress

from trivet.errors import InvalidRequest, NotInStore
from trivet.faults import fault
from trivet.fetch.upload import SCHEME, upload_url
from trivet.gc.report import Collecting
from trivet.ids import check_name
from trivet.resources import Resources, open_resources
from trivet.stores import Stored
from trivet.stores.layout import top, uploads

#: Folder of content that belongs to no object of a bucket. It is named by its hash: what comes again is written anew.
LOOSE = "-"


def collect_sent(work: Collecting) -> None:
    """One round over all namespaces.

    A task keeps the name of what it fetches for as long as it can be retried: nothing goes before that.
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
    prefix = uploads(work.settings, namespace)
    named: frozenset[str] | None = None
    for stored in work.store.list(prefix):
        if work.stopping():
            return
        name = stored.key.removeprefix(prefix)
        if stored.modified > old or _needed(resources, namespace, name):
            continue
        work.take_turn()
        if named is None:
            # However old it is: a task may have waited for as long, or have failed and be run again.
            named = frozenset(url for url in work.ledger.sources(namespace) if url.startswith(f"{SCHEME}:"))
        if upload_url(namespace, name) in named or _sent_again(work, stored):
            continue
        if not work.dry_run:
            fault("gc.before_sent")
            work.keep_turn()
            work.store.delete(stored.key)
        work.counts["sent"] += 1
        work.counts["keys"] += 1
        work.counts["bytes"] += stored.size


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
