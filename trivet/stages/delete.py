"""Delete: a generation that is a tombstone, published as any other. It hides the object at once and removes nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import structlog

from trivet.commit import Foreign, Published, publish, read_floor
from trivet.faults import fault
from trivet.ids import digest
from trivet.stages.context import StageContext
from trivet.stores import ObjectStore
from trivet.stores.layout import Layout
from trivet.values import Current, Lease, Manifest, Receipt, TaskState

log = structlog.get_logger(__name__)


def delete(ctx: StageContext, lease: Lease) -> None:
    """Hide one object, or end the task as skipped where S3 has nothing of it that could be seen.

    A tombstone is also written where something is durable and not visible: a committer that has hung since may still
    come to publish it, and is fenced by the higher number.
    """
    payload = json.loads(lease.payload)
    layout = Layout.of(ctx.settings, lease.namespace, lease.collection)
    ctx.ledger.committing(lease)
    fault("delete.after_committing")
    current, floor = read_floor(ctx.store, layout, lease.object_id)
    fault("delete.after_floor")
    if _nothing(ctx.store, layout, lease, current, floor):
        visible = current.manifest if current else ""
        ctx.ledger.finish(lease, TaskState.SKIPPED, manifest=visible, receipt=Receipt())
        log.info("delete.nothing", item=lease.item)
        return
    generation = ctx.ledger.take_generation(lease, floor)
    fault("delete.after_generation")
    manifest = Manifest(
        namespace=lease.namespace,
        collection=lease.collection,
        object_id=lease.object_id,
        generation=generation,
        task_id=lease.task_id,
        run=payload["run"],
        source_url=payload["url"],
        source_sha256="",
        spec_hash="",
        input_hash=digest(["delete", lease.task_id]),
        created_at=datetime.fromtimestamp(ctx.clock.now(), UTC).isoformat(timespec="milliseconds"),
        tombstone=True,
    )
    published = publish(ctx.store, layout, manifest)
    fault("delete.after_publish")
    if isinstance(published, Foreign):
        ctx.ledger.restage(lease, floor=max(floor, published.generation))
        log.warning("generation.taken", item=lease.item, generation=generation)
        return
    state = TaskState.DELETED if isinstance(published, Published) else TaskState.SUPERSEDED
    ctx.ledger.finish(lease, state, manifest=published.key, receipt=Receipt())
    fault("delete.after_finish")
    log.info("object.deleted", item=lease.item, generation=generation, state=state)


def _nothing(store: ObjectStore, layout: Layout, lease: Lease, current: Current | None, floor: int) -> bool:
    """Whether there is nothing to hide: no key of the object at all, or another's tombstone over all generations."""
    if current is None:
        return floor == 0 and next(iter(store.list(layout.object(lease.object_id))), None) is None
    return current.tombstone and current.generation == floor and current.task_id != lease.task_id
