"""Staged shards: chunks with their token ids, as `prepare` leaves them for `embed`."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from typing import Any

from trivet.errors import CorruptDocument, NotInStore, StoreConflict, StoreDamaged, StoreUnavailable
from trivet.faults import fault as default_fault
from trivet.parts.arrow import pa, pq
from trivet.parts.plan import Plan, StagedShard, input_hash, load_plan, seal_plan
from trivet.stores import ObjectStore
from trivet.stores.layout import Layout
from trivet.values import Chunk, Spec

__all__ = ["Plan", "StagedShard", "load_plan", "load_shard", "read_shard", "seal_plan", "shard_bytes", "stage_shard"]

_SCHEMA = pa.schema(
    [
        pa.field("chunk_id", pa.string(), nullable=False),
        pa.field("ordinal", pa.int32(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("context", pa.string(), nullable=False),
        pa.field("heading_path", pa.list_(pa.string()), nullable=False),
        pa.field("page_start", pa.int32()),
        pa.field("page_end", pa.int32()),
        pa.field("char_start", pa.int64(), nullable=False),
        pa.field("char_end", pa.int64(), nullable=False),
        pa.field("language", pa.string()),
        pa.field("token_ids", pa.list_(pa.uint32()), nullable=False),
    ]
)


def shard_bytes(chunks: Sequence[Chunk]) -> bytes:
    """A Parquet file with all fields of the chunks. Raises `CorruptDocument` for text that is no valid Unicode."""
    names = _SCHEMA.names
    try:
        arrays = [pa.array([getattr(chunk, name) for chunk in chunks], _SCHEMA.field(name).type) for name in names]
    except UnicodeEncodeError:
        raise CorruptDocument("A chunk holds characters that are no valid Unicode.") from None
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=_SCHEMA), sink, compression="zstd", use_dictionary=False)
    return sink.getvalue()


def read_shard(body: bytes) -> tuple[Chunk, ...]:
    """The chunks again, equal to those that were staged. Raises `StoreDamaged` for bytes that are no shard."""
    try:
        # `read_table` would look for a data set first, which takes longer than reading a shard.
        file = pq.ParquetFile(pa.BufferReader(body))
        rows: list[dict[str, Any]] = file.read(columns=_SCHEMA.names, use_threads=False).to_pylist()
        return tuple(
            Chunk(**row | {"heading_path": tuple(row["heading_path"]), "token_ids": tuple(row["token_ids"])})
            for row in rows
        )
    except (pa.ArrowException, OSError, KeyError, TypeError) as error:
        raise StoreDamaged(f"A staged shard cannot be read ({type(error).__name__}).") from None


def stage_shard(
    store: ObjectStore,
    layout: Layout,
    spec: Spec,
    object_id: str,
    source_sha256: str,
    shard: int,
    chunks: Sequence[Chunk],
    *,
    fault: Callable[[str], None] = default_fault,
) -> StagedShard:
    """Write one shard and say what was written, for the plan.

    Its key holds the hash of its input and it is written with If-None-Match: where it is there already it stays, and
    what is stored is what counts.
    """
    hashed = input_hash(chunks, spec)
    key = layout.staged(object_id, source_sha256, spec.hash, shard, hashed)
    body = shard_bytes(chunks)
    sha256, size = hashlib.sha256(body).hexdigest(), len(body)
    fault("prepare.before_stage")
    try:
        store.put(key, body, if_none_match=True, sha256=sha256)
    except (StoreConflict, StoreUnavailable) as error:
        try:
            stored = store.head(key)
        except NotInStore:
            raise StoreUnavailable(f"Shard {shard} of {object_id!r} could not be staged: {error}") from None
        sha256, size = stored.sha256 or sha256, stored.size
    fault("prepare.after_stage")
    tokens = sum(chunk.token_count for chunk in chunks)
    return StagedShard(
        shard=shard, key=key, sha256=sha256, bytes=size, rows=len(chunks), tokens=tokens, input_hash=hashed
    )


def load_shard(store: ObjectStore, shard: StagedShard) -> tuple[Chunk, ...]:
    """The chunks of a sealed shard. Raises `StoreDamaged` where the bytes are not those that the plan sealed."""
    body, _ = store.get(shard.key)
    if hashlib.sha256(body).hexdigest() != shard.sha256:
        raise StoreDamaged(
            f"The staged shard {shard.key!r} is not what its plan sealed.", hint="Ingest the object again."
        )
    return read_shard(body)
