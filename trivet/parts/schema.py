"""Columns of a part: one row per chunk, the same columns in every part of every collection.

A leg that a collection does not store keeps its column, with every value null: so a query over parts of different
specs needs no union by name, and `dense IS NULL` says what it looks like. Only the widths and encodings of vectors
differ. Parts that were written before there was int8 have no `colbert_scale`; readers take it for null there.
"""

from __future__ import annotations

import json
from typing import Any, BinaryIO, Final

from pydantic import ValidationError

from trivet.errors import StoreDamaged, TrivetError
from trivet.parts.arrow import pa, pq
from trivet.values import Outputs, Passport, Spec, dump

SCHEMA_VERSION: Final = "1"
#: Key of the maker's passport in the file's metadata.
PASSPORT_KEY: Final = "trivet.passport"
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
        "float16-le: per token 2 x width bytes, IEEE 754 binary16, little-endian",
    ),
    "colbert_scale": (
        "one factor per vector of colbert: number x factor is the vector; null where colbert is not int8",
        "",
        "float32",
    ),
    "metadata": (
        "metadata of the ingest request, and what extractors said: extractor.key",
        "",
        "strings as they are, every other value as JSON",
    ),
}

#: Columns that hold the legs, by leg.
LEG_COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "dense": ("dense",),
    "sparse": ("sparse_ids", "sparse_weights"),
    "colbert": ("colbert", "colbert_scale"),
}
VECTOR_COLUMNS: Final = tuple(column for columns in LEG_COLUMNS.values() for column in columns)


def element(value_type: Any) -> Any:
    """The field of a list's values, which are never null."""
    return pa.field("element", value_type, nullable=False)


def dense_type(dimensions: int) -> Any:
    """fixed_size_list<float>[d]"""
    return pa.list_(element(pa.float32()), dimensions)


def vector_type(outputs: Outputs, dimensions: int) -> Any:
    """One ColBERT vector: fixed_size_binary[2·d] of float16, [d] of int8, or fixed_size_list<halffloat>[d]."""
    if outputs.colbert_layout == "list":
        return pa.list_(element(pa.float16()), dimensions)
    return pa.binary(dimensions if outputs.colbert == "int8" else 2 * dimensions)


#: list<float>
SCALE_TYPE: Final = pa.list_(element(pa.float32()))


def colbert_encoding(outputs: Outputs) -> str:
    """Name of how ColBERT vectors are stored: off, float16-le, float16-list or int8."""
    binary = {"off": "off", "float16": "float16-le", "int8": "int8"}
    return "float16-list" if outputs.colbert_layout == "list" else binary[outputs.colbert]


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
        "dense": (dense_type(spec.dense_width), True),
        "sparse_ids": (pa.list_(element(pa.uint32())), True),
        "sparse_weights": (pa.list_(element(pa.float32())), True),
        "colbert": (pa.list_(element(vector_type(spec.pipeline.outputs, spec.colbert_width))), True),
        "colbert_scale": (SCALE_TYPE, True),
        "metadata": (pa.map_(pa.string(), pa.field("value", pa.string(), nullable=False)), False),
    }
    return pa.schema(
        [pa.field(name, kind, nullable, metadata=_about(name, spec)) for name, (kind, nullable) in types.items()]
    )


def _about(name: str, spec: Spec) -> dict[str, str]:
    meaning, unit, encoding = FIELDS[name]
    outputs = spec.pipeline.outputs
    if name == "colbert" and outputs.colbert != "off":
        meaning, encoding = _colbert_meaning(meaning, spec), _VECTOR_ENCODINGS[colbert_encoding(outputs)]
    if name == "dense" and outputs.dense_dimensions is not None:
        meaning += _cut(spec.dense_width, spec.model.dimensions)
    values = {"meaning": meaning, "unit": unit, "encoding": encoding}
    return {label: text for label, text in values.items() if text}


_VECTOR_ENCODINGS: Final = {
    "float16-le": FIELDS["colbert"][2],
    "float16-list": "per token a list of width numbers, IEEE 754 binary16",
    "int8": "int8: per token width bytes, two's complement, times its colbert_scale",
}


def _colbert_meaning(meaning: str, spec: Spec) -> str:
    factor = spec.pipeline.outputs.colbert_pooling
    if factor > 1:
        meaning = (
            f"L2-normalised mean vectors of clusters of similar tokens, ceil(tokens / {factor}) per chunk, in order of "
            "their first token; which tokens a vector stands for is not kept; first special token dropped"
        )
    if spec.pipeline.outputs.colbert_dimensions is not None:
        meaning += _cut(spec.colbert_width, spec.model.colbert_dimensions)
    return meaning


def _cut(width: int, model: int) -> str:
    return f"; the first {width} of the model's {model} numbers, normalised again"


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
        "trivet.dense": str(spec.dense_width) if outputs.dense else "off",
        "trivet.sparse": "token ids of the model's tokenizer" if outputs.sparse else "off",
        "trivet.colbert": str(spec.colbert_width) if outputs.colbert != "off" else "off",
        "trivet.colbert_encoding": colbert_encoding(outputs),
        "trivet.colbert_pooling": str(outputs.colbert_pooling) if outputs.colbert != "off" else "off",
        "trivet.fields": json.dumps({name: _about(name, spec) for name in FIELDS}, ensure_ascii=False),
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
