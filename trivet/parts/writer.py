"""Legs and chunks into the bytes of a Parquet part, without a Python object per number."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trivet.encoder import Legs
from trivet.errors import CorruptDocument, ModelInvalid
from trivet.extractors import extracted
from trivet.ids import canonical_json
from trivet.parts.arrow import np, pa, pq
from trivet.parts.outputs import quantise
from trivet.parts.schema import (
    ROW_GROUP_BYTES,
    VECTOR_COLUMNS,
    dense_type,
    element,
    file_metadata,
    part_schema,
    vector_type,
)
from trivet.values import Chunk, Outputs, Passport, Spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A dictionary pays where values repeat; for vectors it costs up to 40 times the time of writing.
_DICTIONARY = [
    "object_id",
    "language",
    "heading_path.list.element",
    "metadata.key_value.key",
    "metadata.key_value.value",
]
#: Numbers that are looked at together.
_BLOCK = 1 << 16
#: The bits of a float16's exponent, which are all set in what is no finite number.
_EXPONENT = np.uint16(0x7C00)
_STATISTICS = ["chunk_id", "object_id", "ordinal", "page_start", "page_end", "char_start", "char_end", "language"]


def gather(rows: Sequence[tuple[Legs, int]]) -> Legs:
    """Row `i` of each `(legs, i)`, in this order, as legs of their own; all must have the same widths.

    The rows of a shard come from several forward passes, each sorted by length: this puts them back together.
    """
    if not rows:
        raise ModelInvalid("There are no rows to gather.")
    colbert_type: Any = rows[0][0].colbert.dtype
    terms = [slice(int(legs.sparse_offsets[i]), int(legs.sparse_offsets[i + 1])) for legs, i in rows]
    tokens = [slice(int(legs.colbert_offsets[i]), int(legs.colbert_offsets[i + 1])) for legs, i in rows]
    colbert = np.concatenate([legs.colbert[span] for (legs, _), span in zip(rows, tokens, strict=True)])
    return Legs(
        dense=np.stack([legs.dense[i] for legs, i in rows]),
        sparse_ids=np.concatenate([legs.sparse_ids[span] for (legs, _), span in zip(rows, terms, strict=True)]),
        sparse_weights=np.concatenate([legs.sparse_weights[span] for (legs, _), span in zip(rows, terms, strict=True)]),
        sparse_offsets=_offsets(terms),
        colbert=colbert.astype(colbert_type, copy=False),
        colbert_offsets=_offsets(tokens),
    )


def size_of(rows: Sequence[tuple[Legs, int]]) -> int:
    """Bytes of the arrays that `gather` makes of these rows."""
    size = 0
    for legs, i in rows:
        terms = int(legs.sparse_offsets[i + 1] - legs.sparse_offsets[i])
        tokens = int(legs.colbert_offsets[i + 1] - legs.colbert_offsets[i])
        size += legs.dense[i].nbytes + terms * (legs.sparse_ids.itemsize + legs.sparse_weights.itemsize)
        size += tokens * legs.colbert.shape[1] * legs.colbert.itemsize
    return size


def _offsets(spans: Sequence[slice]) -> NDArray[np.int64]:
    lengths = np.fromiter((span.stop - span.start for span in spans), np.int64, len(spans))
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def part_bytes(
    chunks: Sequence[Chunk],
    legs: Legs,
    spec: Spec,
    object_id: str,
    metadata: Mapping[str, Any],
    *,
    passport: Passport | None = None,
    row_group_bytes: int = ROW_GROUP_BYTES,
) -> bytes:
    """A Parquet file with one row per chunk; row `i` of `legs` belongs to `chunks[i]`, and `passport` says who made it.

    The legs are `trivet.parts.outputs.shaped` already. Those that the spec turns off become null; ColBERT vectors
    become little-endian float16, or int8 with scales. Not compressed, so that writing costs next to nothing beside
    the encoder. Raises `ModelInvalid` where the legs do not fit the chunks or the spec, or hold numbers that are not
    finite, and `CorruptDocument` for text that is no valid Unicode.
    """
    _check(chunks, legs, spec)
    schema = part_schema(spec)
    columns = _texts(chunks, object_id, metadata, spec, schema) | _vectors(legs, spec, schema)
    table = pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)
    # Its bytes are taken over as they lie; Arrow's own streams copy them as they grow, and once more in the end.
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink,
        schema.with_metadata(file_metadata(spec, object_id, passport)),
        compression="none",
        use_dictionary=_DICTIONARY,
        write_statistics=_STATISTICS,
    ) as writer:
        for start, end in _row_groups(_row_bytes(chunks, legs, spec), row_group_bytes):
            writer.write_table(table.slice(start, end - start), row_group_size=end - start)
    return sink.getvalue()


def _check(chunks: Sequence[Chunk], legs: Legs, spec: Spec) -> None:
    model, outputs, n = spec.model, spec.pipeline.outputs, len(chunks)
    dense, colbert = spec.dense_width, spec.colbert_width
    if len(legs) != n or len(legs.sparse_offsets) != n + 1 or len(legs.colbert_offsets) != n + 1:
        raise ModelInvalid(f"The encoder gave {len(legs)} rows for {n} chunks.")
    if legs.sparse_offsets[-1] != len(legs.sparse_ids) or legs.colbert_offsets[-1] != len(legs.colbert):
        raise ModelInvalid(f"The legs of {n} chunks have offsets beyond their ends.")
    if outputs.dense and legs.dense.shape[1:] != (dense,):
        raise ModelInvalid(f"Dense vectors of {model.name} have shape {legs.dense.shape}, not {dense} numbers.")
    if outputs.colbert != "off" and legs.colbert.shape[1:] != (colbert,):
        raise ModelInvalid(f"ColBERT vectors of {model.name} have shape {legs.colbert.shape}, not {colbert} numbers.")
    if not all(_finite(numbers) for numbers in (legs.dense, legs.sparse_weights, legs.colbert)):
        bad = np.flatnonzero(~np.isfinite(legs.dense).all(axis=1))
        where = f" for chunk {chunks[int(bad[0])].chunk_id}" if len(bad) else ""
        raise ModelInvalid(
            f"The encoder {model.name} gave numbers that are not finite{where}.", hint="Try dtype fp32 or bf16."
        )


def _finite(numbers: NDArray[Any]) -> bool:
    """Whether no number is infinite or none."""
    if numbers.dtype == np.float16:
        # By the bits of the exponent, a block that stays in the cache at a time: numpy asks float16 five times as
        # slowly, and ColBERT is most of a part.
        bits = numbers.reshape(-1).view(np.uint16)
        blocks = (bits[start : start + _BLOCK] for start in range(0, len(bits), _BLOCK))
        return all(((block & _EXPONENT) != _EXPONENT).all() for block in blocks)
    return bool(np.isfinite(numbers).all())


def _texts(
    chunks: Sequence[Chunk], object_id: str, metadata: Mapping[str, Any], spec: Spec, schema: Any
) -> dict[str, Any]:
    n = len(chunks)
    pairs = [(key, value if isinstance(value, str) else canonical_json(value)) for key, value in metadata.items()]
    values: dict[str, list[Any]] = {
        "chunk_id": [chunk.chunk_id for chunk in chunks],
        "object_id": [object_id] * n,
        "ordinal": [chunk.ordinal for chunk in chunks],
        "text": [chunk.text for chunk in chunks],
        "context": [chunk.context for chunk in chunks],
        "heading_path": [list(chunk.heading_path) for chunk in chunks],
        "page_start": [chunk.page_start for chunk in chunks],
        "page_end": [chunk.page_end for chunk in chunks],
        "char_start": [chunk.char_start for chunk in chunks],
        "char_end": [chunk.char_end for chunk in chunks],
        "time_start_ms": [None] * n,
        "time_end_ms": [None] * n,
        "language": [chunk.language for chunk in chunks],
        "token_count": [chunk.token_count for chunk in chunks],
        "metadata": [pairs + extracted(spec.pipeline.also, chunk) for chunk in chunks],
    }
    try:
        return {name: pa.array(column, schema.field(name).type) for name, column in values.items()}
    except UnicodeEncodeError:
        raise CorruptDocument(f"A text of object {object_id!r} holds characters that are no valid Unicode.") from None


def _vectors(legs: Legs, spec: Spec, schema: Any) -> dict[str, Any]:
    outputs, n = spec.pipeline.outputs, len(legs)
    columns = {name: pa.nulls(n, schema.field(name).type) for name in VECTOR_COLUMNS}
    if outputs.dense:
        width = legs.dense.shape[1]
        columns["dense"] = pa.Array.from_buffers(
            dense_type(width), n, [None], children=[_plain(legs.dense, "<f4", pa.float32(), legs.dense.size)]
        )
    if outputs.sparse:
        terms = len(legs.sparse_ids)
        columns["sparse_ids"] = _lists(_plain(legs.sparse_ids, "<u4", pa.uint32(), terms), legs.sparse_offsets)
        columns["sparse_weights"] = _lists(_plain(legs.sparse_weights, "<f4", pa.float32(), terms), legs.sparse_offsets)
    if outputs.colbert != "off":
        columns |= {name: _lists(values, legs.colbert_offsets) for name, values in _colbert(legs, outputs).items()}
    return columns


def _colbert(legs: Legs, outputs: Outputs) -> dict[str, Any]:
    """Column → one value per token vector."""
    vectors = legs.colbert
    count, width = vectors.shape
    kind = vector_type(outputs, width)
    if outputs.colbert == "int8":
        numbers, scales = quantise(vectors)
        return {
            "colbert": _plain(numbers, "i1", kind, count),
            "colbert_scale": _plain(scales, "<f4", pa.float32(), count),
        }
    if outputs.colbert_layout == "list":
        numbers = _plain(vectors, "<f2", pa.float16(), vectors.size)
        return {"colbert": pa.Array.from_buffers(kind, count, [None], children=[numbers])}
    return {"colbert": _plain(vectors, "<f2", kind, count)}


def _plain(values: NDArray[Any], dtype: str, kind: Any, length: int) -> Any:
    """The numbers as they lie in memory, seen as `length` values of an Arrow type."""
    contiguous = np.ascontiguousarray(values, dtype=dtype)
    return pa.Array.from_buffers(kind, length, [None, pa.py_buffer(contiguous)])


def _lists(values: Any, offsets: NDArray[np.int64]) -> Any:
    narrow = np.ascontiguousarray(offsets, dtype="<i4")
    return pa.Array.from_buffers(
        pa.list_(element(values.type)), len(narrow) - 1, [None, pa.py_buffer(narrow)], children=[values]
    )


def _row_bytes(chunks: Sequence[Chunk], legs: Legs, spec: Spec) -> NDArray[np.int64]:
    """Bytes of plain values per row, about."""
    outputs = spec.pipeline.outputs
    rows = np.fromiter((4 * len(chunk.text) + 256 for chunk in chunks), np.int64, len(chunks))
    if outputs.dense:
        rows += 4 * legs.dense.shape[1]
    if outputs.sparse:
        rows += 8 * np.diff(legs.sparse_offsets)
    if outputs.colbert != "off":
        width = legs.colbert.shape[1]
        rows += (width + 4 if outputs.colbert == "int8" else 2 * width) * np.diff(legs.colbert_offsets)
    return rows


def _row_groups(sizes: NDArray[np.int64], limit: int) -> Iterator[tuple[int, int]]:
    """`[start, end)` of runs of rows that hold at most `limit` bytes, or one row that alone has more."""
    start, held = 0, 0
    for row, size in enumerate(sizes.tolist()):
        if row > start and held + size > limit:
            yield start, row
            start, held = row, 0
        held += size
    if start < len(sizes):
        yield start, len(sizes)
