"""Vectors and texts of single chunks, out of the committed parts: those of the generation that a search found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from itertools import accumulate

from trivet.errors import StoreDamaged, StoreUnavailable
from trivet.parts.reader import RowGroup
from trivet.retrieval import Hit, Passage, StoredVectors
from trivet.retrieval.rows import open_part
from trivet.retrieval.visible import in_order
from trivet.stores import ObjectStore
from trivet.stores.layout import Layout
from trivet.stores.values import read_value
from trivet.values import Manifest, Part

_COLUMNS = ("chunk_id", "dense", "sparse_ids", "sparse_weights")
_PASSAGE_COLUMNS = (
    "chunk_id",
    "ordinal",
    "text",
    "heading_path",
    "page_start",
    "page_end",
    "char_start",
    "char_end",
    "token_count",
)


def stored_vectors(
    store: ObjectStore, prefix: str, namespace: str, hits: Sequence[Hit], pool: Executor, window: int
) -> tuple[StoredVectors, ...]:
    """As `trivet.retrieval.Retriever.vectors`; reads at most `window` hits at once."""

    def read(hit: Hit) -> StoredVectors:
        layout = Layout(prefix, namespace, hit.collection)
        manifest = _manifest(store, layout, hit.object_id, hit.generation)
        for part in _candidates(manifest, hit.ordinal):
            vectors = _in_part(store, part, hit)
            if vectors is not None:
                return vectors
        raise StoreDamaged(
            f"Generation {hit.generation} of {hit.object_id!r} does not hold the chunk {hit.chunk_id!r}.",
            hint="Ingest its object again.",
        )

    return tuple(in_order(pool, read, hits, window))


def stored_passages(
    store: ObjectStore, layout: Layout, object_id: str, generation: int, first: int, last: int
) -> tuple[Passage, ...]:
    """As `trivet.retrieval.Retriever.passages`."""
    found: list[Passage] = []
    for part in _candidates(_manifest(store, layout, object_id, generation), last):
        ordinals = []
        with open_part(store, object_id, part) as rows:
            for group in range(rows.row_groups):
                for _, batch in rows.batches(group, _PASSAGE_COLUMNS):
                    for row in batch.table.to_pylist():
                        ordinals.append(row["ordinal"])
                        if first <= row["ordinal"] <= last:
                            found.append(Passage(**row | {"heading_path": tuple(row["heading_path"])}))
        if ordinals and min(ordinals) <= first:
            break
    return tuple(sorted(found, key=lambda passage: passage.ordinal))


def replaced(object_id: str, generation: int) -> StoreUnavailable:
    """The error for a hit whose generation is gone."""
    return StoreUnavailable(
        f"Generation {generation} of {object_id!r} was found and is gone since.", hint="Search again."
    )


def _manifest(store: ObjectStore, layout: Layout, object_id: str, generation: int) -> Manifest:
    found = read_value(store, layout.manifest(object_id, generation), Manifest)
    if found is None:
        raise replaced(object_id, generation)
    return found[0]


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
    dense = batch.dense
    return StoredVectors(batch.sparse(row), batch.colbert(row), pooling, None if dense is None else dense[row])
