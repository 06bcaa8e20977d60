"""From a fetched file to a sealed plan: parse, chunk, cut into shards, write them, seal."""

from __future__ import annotations

from collections.abc import Sequence

from trivet.chunking import chunk
from trivet.encoder.tokenizer import Tokenizer
from trivet.errors import EmptyDocument
from trivet.fetch import Fetched
from trivet.parse.sandbox import parse
from trivet.parse.sniff import sniff
from trivet.parts.plan import source_key
from trivet.parts.staging import Plan, StagedShard, seal_plan, stage_shard
from trivet.stages.context import StageContext
from trivet.stores.layout import Layout
from trivet.values import Chunk, Document, Lease, Receipt, Skipped, Spec

#: A shard is the default claim on a CPU, and a thirty-second of it on a GPU, so that claims fill well.
SHARD_TOKENS = 4096


def cut_shards(chunks: Sequence[Chunk], budget: int = SHARD_TOKENS) -> list[tuple[Chunk, ...]]:
    """Runs of chunks with at most `budget` tokens each; a single chunk above it is a shard of its own.

    Even sizes: n = ceil(total / budget) shards of about total / n tokens fill claims better than full ones and a rest.
    """
    total = sum(c.token_count for c in chunks)
    target = total / max(1, -(-total // budget))
    shards: list[tuple[Chunk, ...]] = []
    run: list[Chunk] = []
    size = 0
    for one in chunks:
        if run and (size + one.token_count > budget or size >= target):
            shards.append(tuple(run))
            run, size = [], 0
        run.append(one)
        size += one.token_count
    if run:
        shards.append(tuple(run))
    return shards


def build_plan(
    ctx: StageContext,
    layout: Layout,
    lease: Lease,
    source: Fetched,
    stated_type: str,
    spec: Spec,
    tokenizer: Tokenizer,
) -> Plan:
    """Parse and chunk the file, put its shards, seal the plan. A plan that another prepare sealed first is adopted.

    `stated_type` is the caller's own word, which counts more than the source's. Raises the `Source…` errors;
    `EmptyDocument` where no text was found.
    """
    media_type = sniff(source.path, stated_type or source.media_type, source.filename)
    key = source_key(source.sha256, stated_type)
    document = parse(ctx.settings, source.path, media_type, source.charset)
    ctx.keeper.check(lease)
    cut = chunk(document, tokenizer, spec.pipeline.chunking, lease.object_id)
    if not cut.chunks:
        scanned = f" in any of its {len(document.pages) or document.pages_empty} pages" if document.pages_empty else ""
        raise EmptyDocument(
            f"The document ({media_type}) has no text{scanned}.",
            hint="A scanned document needs OCR before it is ingested.",
        )
    receipt = _receipt(document, source, cut.chunks, cut.tokens_seen, cut.tokens_truncated, cut.skipped)
    shards: list[StagedShard] = []
    for number, run in enumerate(cut_shards(cut.chunks)):
        ctx.keeper.check(lease)
        shards.append(stage_shard(ctx.store, layout, spec, lease.object_id, key, number, run))
    plan = Plan(
        object_id=lease.object_id,
        source_sha256=source.sha256,
        spec_hash=spec.hash,
        media_type=media_type,
        stated_type=stated_type,
        title=document.title,
        pages=receipt.pages,
        shards=tuple(shards),
        receipt=receipt,
        raw_key=layout.raw(lease.object_id, source.sha256) if ctx.settings.keep_raw else "",
        metadata=document.metadata,
    )
    # Of a task that was cancelled, and whose object was purged, the first shards may be gone.
    ctx.keeper.check(lease)
    sealed, _ = seal_plan(ctx.store, layout, plan)
    return sealed


def _receipt(
    document: Document,
    source: Fetched,
    chunks: Sequence[Chunk],
    seen: int,
    truncated: int,
    skipped: Sequence[Skipped],
) -> Receipt:
    return Receipt(
        media_type=document.media_type,
        source_bytes=source.size,
        source_sha256=source.sha256,
        pages=len(document.pages),
        pages_empty=document.pages_empty,
        characters=len(document.text),
        chunks=len(chunks),
        tokens_seen=seen,
        tokens_truncated=truncated,
        skipped=(*document.skipped, *skipped),
    )
