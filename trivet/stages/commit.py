"""Commit: manifest → current.json → the ledger's last word."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import structlog

from trivet.commit import Foreign, Published, publish, read_manifest
from trivet.errors import StoreDamaged
from trivet.faults import fault
from trivet.names import Stage, TaskKind
from trivet.parts.plan import Plan, load_plan, parts_hash
from trivet.stages.context import StageContext, check_kind
from trivet.stages.delete import delete
from trivet.stages.loop import one_by_one
from trivet.stores.layout import Layout
from trivet.values import Lease, Manifest, Part, Passport, Receipt, TaskState

log = structlog.get_logger(__name__)


def run(ctx: StageContext, deadline: float) -> bool:
    """Commit what waits until `deadline` (monotonic); returns whether work may be left."""
    return one_by_one(ctx, Stage.COMMIT, deadline, commit)


def commit(ctx: StageContext, lease: Lease) -> None:
    """Make one task's generation visible (a delete: its tombstone), or end it where a higher one is."""
    fault("commit.after_claim")
    payload = json.loads(lease.payload)
    if check_kind(payload, TaskKind.INGEST, TaskKind.DELETE) is TaskKind.DELETE:
        delete(ctx, lease)
        return
    layout = Layout.of(ctx.settings, lease.namespace, lease.collection)
    records = ctx.ledger.committing(lease)
    fault("commit.after_committing")
    plan = load_plan(ctx.store, layout, lease.object_id, payload["source_sha256"], payload["spec_hash"])
    manifest = _manifest(ctx, lease, payload, plan, records) if plan else _stored(ctx, layout, lease, payload)
    published = publish(ctx.store, layout, manifest)
    fault("commit.after_publish")
    if isinstance(published, Foreign):
        ctx.ledger.restage(lease, floor=manifest.generation)
        log.warning("generation.taken", item=lease.item, generation=manifest.generation)
        return
    state = TaskState.COMPLETED if isinstance(published, Published) else TaskState.SUPERSEDED
    ctx.ledger.finish(lease, state, manifest=published.key, receipt=published.manifest.receipt)
    fault("commit.after_finish")
    log.info("task.committed", item=lease.item, generation=manifest.generation, state=state)


def _stored(ctx: StageContext, layout: Layout, lease: Lease, payload: dict[str, Any]) -> Manifest:
    """Without its plan a generation can be finished only where an earlier run of this commit has made it durable."""
    found = read_manifest(ctx.store, layout, lease.object_id, payload["generation"])
    if found is None or found.task_id != lease.task_id:
        # Nothing of this generation is visible, and no later try would find more.
        raise StoreDamaged(f"The plan of {lease.object_id!r} is gone.", hint="Ingest the object again.")
    return found


def _manifest(
    ctx: StageContext, lease: Lease, payload: dict[str, Any], plan: Plan, records: Sequence[tuple[Part, str]]
) -> Manifest:
    parts = tuple(part for part, _ in records)
    metadata = json.loads(payload["metadata"])
    return Manifest(
        namespace=lease.namespace,
        collection=lease.collection,
        object_id=lease.object_id,
        generation=payload["generation"],
        task_id=lease.task_id,
        run=payload["run"],
        source_url=payload["url"],
        source_sha256=plan.source_sha256,
        spec_hash=plan.spec_hash,
        input_hash=parts_hash(plan.spec_hash, plan.source_key, parts, metadata),
        created_at=datetime.fromtimestamp(ctx.clock.now(), UTC).isoformat(timespec="milliseconds"),
        parts=parts,
        receipt=_receipt(plan, parts),
        passports=_passports([text for _, text in records]),
        metadata=metadata,
    )


def _receipt(plan: Plan, parts: Sequence[Part]) -> Receipt:
    return plan.receipt.model_copy(update={"tokens_embedded": sum(part.tokens for part in parts)})


def _passports(texts: Sequence[str]) -> tuple[Passport, ...]:
    """Each way of making parts once: workers of several kinds may have shared the work. A part may say nothing."""
    return tuple(Passport.model_validate_json(text) for text in sorted(set(texts) - {""}))
