"""The vectors of single chunks, out of the committed parts: those of the generation that a search found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from itertools import accumulate

from trivet.errors import StoreDamaged, StoreUnavailable
from trivet.parts.reader import RowGroup
from trivet.retrieval import Hit, StoredVectors
from trivet.retrieval.rows import open_part
from trivet.retrieval.visible import in_order
from trivet.stores import ObjectStore
from trivet.stores.layout import Layout
from trivet.stores.values import read_value
from trivet.values import Manifest, Part

_COLUMNS = ("chunk_id", "sparse_ids", "sparse_weights")


def stored_vectors(
    store: ObjectStore, prefix: str, namespace: str, hits: Sequence[Hit], pool: Executor, window: int
) -> tuple[StoredVectors, ...]:
    """As `trivet.retrieval.Retriever.vectors`; reads at most `window` hits at once."""

    def read(hit: Hit) -> StoredVectors:
        layout = Layout(prefix, namespace, hit.collection)
        found = read_value(store, layout.manifest(hit.object_id, hit.generation), Manifest)
        if found is None:
            raise replaced(hit)
        for part in _candidates(found[0], hit.ordinal):
            vectors = _in_part(store, part, hit)
            if vectors is not None:
                return vectors
        raise StoreDamaged(
            f"Generation {hit.generation} of {hit.object_id!r} does not hold the chunk {hit.chunk_id!r}.",
            hint="Ingest its object again.",
        )

    return tuple(in_order(pool, read, hits, window))


def replaced(hit: Hit) -> StoreUnavailable:
    """The error for a hit whose generation is gone."""
    return StoreUnavailable(
        f"Generation {hit.generation} of {hit.object_id!r} was found and is gone since.", hint="Search again."
    )


def _candidates(manifest: Manifest, ordinal: int) -> Iterator[Part]:
    """The parts that may hold the chunk, the likeliest first.

    Parts hold the chunks in order, and none has more rows than chunks: the chunk lies no later than where it would
    lie if every chunk had a row.
    """
    parts = sorted(manifest.parts, key=lambda part: part.shard)
    ends = accumulate(part.rows for part in parts)
    last = next((at for at, end in enumerate(ends) if ordinal < end), len(parts) - 1)
    return reversed(parts[: last + 1])


def _in_part(store: ObjectStore, part: Part, hit: Hit) -> StoredVectors | None:
    columns = [*_COLUMNS, "colbert"] if hit.colbert else _COLUMNS
    with open_part(store, hit.object_id, part) as rows:
        for group in range(rows.row_groups):
            for _, batch in rows.batches(group, columns, rows=16):
                ids = batch.table.column("chunk_id").to_pylist()
                if hit.chunk_id in ids:
                    return _row(batch, ids.index(hit.chunk_id), rows.colbert_pooling)
    return None


def _row(batch: RowGroup, row: int, pooling: int) -> StoredVectors:
    return StoredVectors(batch.sparse(row), batch.colbert(row), pooling)
