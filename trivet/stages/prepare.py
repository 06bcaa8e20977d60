"""Prepare: fetch → sniff → parse → chunk → stage shards, seal the plan."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError

from trivet.chunking import language
from trivet.commit import read_floor
from trivet.encoder.models import ResolvedModel, resolve
from trivet.encoder.tokenizer import Tokenizer
from trivet.errors import EmptyDocument, ModelUnavailable, StoreConflict, TrivetError
from trivet.faults import fault
from trivet.fetch import Fetched, fetch
from trivet.ids import redact_url
from trivet.ledger.queues import embed_queue
from trivet.names import Stage, TaskKind
from trivet.parts.plan import Plan, load_plan, planned_hash, source_key
from trivet.rebuild.records import CollectionMemory, StagedRecord, put_staged
from trivet.settings import Settings
from trivet.stages.context import StageContext, check_kind, not_understood
from trivet.stages.loop import one_by_one
from trivet.stages.planning import build_plan
from trivet.stores.layout import Layout
from trivet.values import Collection, Current, Lease, Receipt, Spec, TaskState, dump

log = structlog.get_logger(__name__)

#: A source above this goes up in several requests.
_ONE_REQUEST_BYTES = 8 << 20


def run(ctx: StageContext, deadline: float) -> bool:
    """Prepare what waits until `deadline` (monotonic); returns whether work may be left."""
    return one_by_one(ctx, Stage.PREPARE, deadline, prepare)


def prepare(ctx: StageContext, lease: Lease) -> None:
    """Bring one task from its source to staged shards, or to its end where nothing has changed."""
    fault("prepare.after_claim")
    payload = json.loads(lease.payload)
    check_kind(payload, TaskKind.INGEST)
    try:
        pipeline = Collection.model_validate_json(payload["config"]).pipeline
    except ValidationError as error:
        raise not_understood("collection", error) from None
    resolved = resolve(ctx.settings, pipeline.model_id, pipeline.revision)
    layout = Layout.of(ctx.settings, lease.namespace, lease.collection)
    current, floor = read_floor(ctx.store, layout, lease.object_id)
    fault("prepare.before_allocate")
    generation, spec = ctx.ledger.allocate(lease, floor, Spec.freeze(pipeline, resolved.identity))
    fault("prepare.after_allocate")
    if spec.model.encoder_key != resolved.identity.encoder_key:
        raise ModelUnavailable(
            f"The task was frozen with {spec.model.name} at {spec.model.revision}, and this worker has "
            f"{resolved.identity.name} at {resolved.identity.revision} for {pipeline.model_id!r} now.",
            hint="Ingest the object again to have it embedded by the present model.",
        )
    with tempfile.TemporaryDirectory(prefix="trivet-") as folder:
        source = fetch(ctx.settings, payload["url"], Path(folder) / "source")
        log.info("source.fetched", item=lease.item, url=redact_url(payload["url"]), bytes=source.size)
        if source.size == 0:
            raise EmptyDocument("The source has no bytes.", hint="Check that the URL names the document itself.")
        fault("prepare.after_fetch", lambda: (Path(folder) / "source").read_text(errors="replace"))
        ctx.keeper.check(lease)
        stated = str(payload.get("media_type") or "")
        plan = load_plan(ctx.store, layout, lease.object_id, source_key(source.sha256, stated), spec.hash)
        if _unchanged(ctx, lease, current, source, plan, json.loads(payload["metadata"])):
            return
        if ctx.settings.keep_raw:
            _keep_raw(ctx, layout, lease, source)
        if plan is None:
            plan = build_plan(ctx, layout, lease, source, stated, spec, _tokenizer(resolved))
    _put_spec(ctx, layout, spec)
    _COLLECTIONS.keep(ctx.store, layout, ctx.ledger, payload["config"])
    record = StagedRecord.of(lease, payload, spec, generation, embed_queue(spec), plan.source_key)
    fault("prepare.before_record")
    ctx.keeper.check(lease)
    put_staged(ctx.store, layout, record)
    _stage(ctx, lease, plan, record.queue)


def warm(settings: Settings) -> None:
    """Load what every document needs, so that the children of a prefork worker share it instead of loading it each.

    A model that cannot be had is no reason to stop: collections may name others, and a task says what is missing.
    """
    language.load()
    try:
        _tokenizer(resolve(settings, settings.embed_model))
    except TrivetError as error:
        log.warning("tokenizer.not_loaded", model=settings.embed_model, error=str(error))


def _unchanged(
    ctx: StageContext,
    lease: Lease,
    current: Current | None,
    source: Fetched,
    plan: Plan | None,
    metadata: dict[str, Any],
) -> bool:
    """Whether all inputs are those of the visible generation: content, spec, stated type and metadata.

    Without a plan that is not known, and the object is embedded again.
    """
    if current is None or current.tombstone or plan is None or planned_hash(plan, metadata) != current.input_hash:
        return False
    receipt = Receipt(source_bytes=source.size, source_sha256=source.sha256)
    ctx.ledger.finish(lease, TaskState.SKIPPED, manifest=current.manifest, receipt=receipt)
    log.info("task.unchanged", item=lease.item, generation=current.generation)
    return True


def _keep_raw(ctx: StageContext, layout: Layout, lease: Lease, source: Fetched) -> None:
    # The key is the hash of the bytes: whoever wrote it before wrote the same.
    key = layout.raw(lease.object_id, source.sha256)
    with source.path.open("rb") as file:
        if source.size > _ONE_REQUEST_BYTES:
            ctx.store.upload(key, file, sha256=source.sha256)
        else:
            ctx.store.put(key, file.read(), sha256=source.sha256)
    fault("prepare.after_raw")


def _put_spec(ctx: StageContext, layout: Layout, spec: Spec) -> None:
    key = layout.spec(spec.hash)
    if key not in _SPECS:
        # The key is the hash of the spec: what is there already is the same.
        with suppress(StoreConflict):
            ctx.store.put(key, dump(spec).encode(), if_none_match=True)
        _SPECS.add(key)


def _stage(ctx: StageContext, lease: Lease, plan: Plan, queue: str) -> None:
    fault("prepare.before_ledger")
    ctx.keeper.check(lease)
    ctx.ledger.stage(
        lease,
        queue,
        plan.source_key,
        [(shard.tokens, shard.input_hash) for shard in plan.shards],
        pages=plan.receipt.pages,
        chunks=plan.receipt.chunks,
        fetched_bytes=plan.receipt.source_bytes,
    )
    fault("prepare.after_ledger")
    log.info("task.staged", item=lease.item, shards=len(plan.shards), chunks=plan.receipt.chunks)


#: Keys of specs that this process has put: a collection has few, and thousands of tasks.
_SPECS: set[str] = set()

#: Collections that it has written down.
_COLLECTIONS = CollectionMemory()

#: One tokenizer per model for the life of the process: loading one takes a second.
_TOKENIZERS: dict[str, Tokenizer] = {}


def _tokenizer(resolved: ResolvedModel) -> Tokenizer:
    key = resolved.identity.encoder_key
    if key not in _TOKENIZERS:
        _TOKENIZERS[key] = Tokenizer.load(resolved)
    return _TOKENIZERS[key]
