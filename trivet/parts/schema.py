"""Columns of a part: one row per chunk, the same columns in every part of every collection.

A leg that a collection does not store keeps its column, with every value null: so a query over parts of different
specs needs no union by name, and `dense IS NULL` says what it looks like. Only the widths of vectors differ.
"""

from __future__ import annotations

import json
from typing import Any, BinaryIO, Final

from pydantic import ValidationError

from trivet.errors import StoreDamaged, TrivetError
from trivet.parts.arrow import pa, pq
from trivet.values import Passport, Spec, dump

SCHEMA_VERSION: Final = "1"
#: Key of the maker's passport in the file's metadata.
PASSPORT_KEY: Final = "trivet.passport"
COLBERT_ENCODING: Final = "float16-le"
#: Largest row group in bytes of plain values: what a reader must hold at once.
ROW_GROUP_BYTES: Final = 64 << 20

#: Column → (meaning, unit, encoding); empty where there is none to tell.
FIELDS: Final[dict[str, tuple[str, str, str]]] = {
    "chunk_id": ("stable id of the chunk: the same text at the same place of the same object has the same id", "", ""),
    "object_id": ("object that the chunk is a piece of", "", ""),
    "ordinal": ("place of the chunk in its object, from 0", "", ""),
    "text": ("text of the chunk, exactly as in the parsed document", "", "UTF-8"),
    "context": ("heading path that was put before the text when it was embedded, or empty", "", "UTF-8"),
    "heading_path": ("titles of the headings above the chunk, outermost first", "", "UTF-8"),
    "page_start": ("first page of the chunk, from 1; null where there are no pages", "page", ""),
    "page_end": ("last page of the chunk, from 1; null where there are no pages", "page", ""),
    "char_start": ("offset of the first character in the parsed text", "Unicode code point", ""),
    "char_end": ("offset after the last character in the parsed text", "Unicode code point", ""),
    "time_start_ms": ("begin of the chunk in the recording; null for text", "millisecond", ""),
    "time_end_ms": ("end of the chunk in the recording; null for text", "millisecond", ""),
    "language": ("language of the chunk; null where it is not known", "", "BCP 47"),
    "token_count": ("tokens of the encoder's input: prompt, context, text and special tokens", "token", ""),
    "dense": ("dense vector, L2-normalised; null where this leg is off", "", "float32"),
    "sparse_ids": ("token ids with a weight, ascending; null where this leg is off", "token id", ""),
    "sparse_weights": ("weight of each of sparse_ids, greater than 0; null where this leg is off", "", "float32"),
    "colbert": (
        "one L2-normalised vector per token, in order, first special token dropped, last kept; null where off",
        "",
        f"{COLBERT_ENCODING}: per token 2 x width bytes, IEEE 754 binary16, little-endian",
    ),
    "metadata": ("metadata of the ingest request", "", "strings as they are, every other value as JSON"),
}

#: Columns that hold the legs, by leg.
LEG_COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "dense": ("dense",),
    "sparse": ("sparse_ids", "sparse_weights"),
    "colbert": ("colbert",),
}
VECTOR_COLUMNS: Final = tuple(column for columns in LEG_COLUMNS.values() for column in columns)


def element(value_type: Any) -> Any:
    """The field of a list's values, which are never null."""
    return pa.field("element", value_type, nullable=False)


def dense_type(dimensions: int) -> Any:
    """fixed_size_list<float>[d]"""
    return pa.list_(element(pa.float32()), dimensions)


def colbert_type(dimensions: int) -> Any:
    """list<fixed_size_binary[2·d]>"""
    return pa.list_(element(pa.binary(2 * dimensions)))


def part_schema(spec: Spec) -> Any:
    """The `pyarrow.Schema` of a part made under `spec`, its field metadata included."""
    types: dict[str, tuple[Any, bool]] = {
        "chunk_id": (pa.string(), False),
        "object_id": (pa.string(), False),
        "ordinal": (pa.int32(), False),
        "text": (pa.string(), False),
        "context": (pa.string(), False),
        "heading_path": (pa.list_(element(pa.string())), False),
        "page_start": (pa.int32(), True),
        "page_end": (pa.int32(), True),
        "char_start": (pa.int64(), False),
        "char_end": (pa.int64(), False),
        "time_start_ms": (pa.int64(), True),
        "time_end_ms": (pa.int64(), True),
        "language": (pa.string(), True),
        "token_count": (pa.int32(), False),
        "dense": (dense_type(spec.model.dimensions), True),
        "sparse_ids": (pa.list_(element(pa.uint32())), True),
        "sparse_weights": (pa.list_(element(pa.float32())), True),
        "colbert": (colbert_type(spec.model.colbert_dimensions), True),
        "metadata": (pa.map_(pa.string(), pa.field("value", pa.string(), nullable=False)), False),
    }
    return pa.schema(
        [pa.field(name, kind, nullable, metadata=_about(name)) for name, (kind, nullable) in types.items()]
    )


def _about(name: str) -> dict[str, str]:
    return {label: text for label, text in zip(("meaning", "unit", "encoding"), FIELDS[name], strict=True) if text}


def file_metadata(spec: Spec, object_id: str, passport: Passport | None = None) -> dict[str, str]:
    """Key-value metadata of the file, for readers that know nothing of Arrow's own (DuckDB, Spark, …).

    `trivet.passport` is the canonical JSON of the passport of whoever made the part. It stands in the file itself,
    since a file that is there already may be another worker's; `stored_passport` reads it back.
    """
    outputs = spec.pipeline.outputs
    made = {PASSPORT_KEY: dump(passport)} if passport else {}
    return made | {
        "trivet.schema_version": SCHEMA_VERSION,
        "trivet.object_id": object_id,
        "trivet.spec_hash": spec.hash,
        "trivet.model": spec.model.name,
        "trivet.model_requested": spec.model.requested,
        "trivet.model_revision": spec.model.revision,
        "trivet.encoder_key": spec.model.encoder_key,
        "trivet.dense": str(spec.model.dimensions) if outputs.dense else "off",
        "trivet.sparse": "token ids of the model's tokenizer" if outputs.sparse else "off",
        "trivet.colbert": str(spec.model.colbert_dimensions) if outputs.colbert != "off" else "off",
        "trivet.colbert_encoding": COLBERT_ENCODING if outputs.colbert != "off" else "off",
        "trivet.fields": json.dumps({name: _about(name) for name in FIELDS}, ensure_ascii=False),
    }


def stored_passport(file: BinaryIO, key: str) -> Passport | None:
    """The passport in the footer of a part; None in one that says nothing. Raises `StoreDamaged` for other files."""
    try:
        metadata = pq.read_metadata(file).metadata or {}
        found = metadata.get(PASSPORT_KEY.encode())
        return Passport.model_validate_json(found) if found is not None else None
    except TrivetError:
        raise
    except (pa.ArrowException, OSError, ValidationError) as error:
        raise StoreDamaged(f"The part {key!r} has no footer that can be read ({type(error).__name__}).") from None
