"""Parts: what is written is what was computed, in the types that the design fixes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.parts import chunk, chunks, legs, same, spec, texts
from trivet.encoder import Legs
from trivet.errors import CorruptDocument, ModelInvalid
from trivet.parts.reader import row_groups
from trivet.parts.schema import FIELDS
from trivet.parts.writer import gather, part_bytes
from trivet.stores.memory import MemoryStore
from trivet.values import Chunk, Part


def lengths(some: list[Chunk]) -> list[int]:
    return [one.token_count for one in some]


def table(body: bytes) -> Any:
    return pq.read_table(pa.BufferReader(body))


def read(body: bytes, rows: int, **options: Any) -> list[Any]:
    store = MemoryStore()
    store.put("part", body)
    part = Part(shard=0, key="part", sha256="", bytes=len(body), rows=rows, tokens=0, input_hash="")
    return list(row_groups(store, "obj_1", part, **options))


@given(some=chunks(), seed=st.integers(0, 1000), metadata=st.dictionaries(texts, texts | st.integers() | st.none()))
def test_every_field_and_every_number_comes_back(some: list[Chunk], seed: int, metadata: dict[str, Any]) -> None:
    made = legs(lengths(some), seed=seed)
    body = part_bytes(some, made, spec(), "obj_1", metadata)
    groups = read(body, len(some))
    rows = [row for group in groups for row in group.table.to_pylist()]
    assert len(rows) == len(some)
    for row, one in zip(rows, some, strict=True):
        for name in ("chunk_id", "ordinal", "text", "context", "page_start", "page_end", "language", "token_count"):
            assert row[name] == getattr(one, name)
        assert (row["char_start"], row["char_end"]) == (one.char_start, one.char_end)
        assert tuple(row["heading_path"]) == one.heading_path
        assert row["object_id"] == "obj_1"
        assert (row["time_start_ms"], row["time_end_ms"]) == (None, None)
        expected = [(k, v if isinstance(v, str) else json.dumps(v)) for k, v in metadata.items()]
        assert row["metadata"] == expected
    if some:
        assert same(groups[0].legs(), made)


@given(some=chunks(max_size=4).filter(bool), seed=st.integers(0, 1000))
def test_single_rows_decode_to_the_arrays_that_went_in(some: list[Chunk], seed: int) -> None:
    made = legs(lengths(some), seed=seed)
    (group,) = read(part_bytes(some, made, spec(), "obj_1", {}), len(some))
    for row in range(len(some)):
        terms = slice(made.sparse_offsets[row], made.sparse_offsets[row + 1])
        tokens = slice(made.colbert_offsets[row], made.colbert_offsets[row + 1])
        colbert = group.colbert(row)
        ids, weights = group.sparse(row)
        assert colbert.dtype == np.float16
        assert np.array_equal(colbert, made.colbert[tokens])
        assert np.array_equal(ids, made.sparse_ids[terms])
        assert np.array_equal(weights, made.sparse_weights[terms])
        assert np.array_equal(group.dense[row], made.dense[row])


def test_the_columns_have_the_types_of_the_design() -> None:
    some = [chunk()]
    schema = pq.read_schema(pa.BufferReader(part_bytes(some, legs([4]), spec(), "o", {"a": "b"})))
    assert schema.names == list(FIELDS)
    assert str(schema.field("dense").type) == "fixed_size_list<element: float not null>[8]"
    assert str(schema.field("sparse_ids").type) == "list<element: uint32 not null>"
    assert str(schema.field("sparse_weights").type) == "list<element: float not null>"
    assert str(schema.field("colbert").type) == "list<element: fixed_size_binary[8] not null>"
    assert pa.types.is_map(schema.field("metadata").type)


def test_the_file_says_what_it_holds() -> None:
    made = spec()
    schema: Any = pq.read_schema(pa.BufferReader(part_bytes([chunk()], legs([4]), made, "obj_9", {})))
    about = {key.decode(): value.decode() for key, value in schema.metadata.items()}
    assert about["trivet.object_id"] == "obj_9"
    assert about["trivet.spec_hash"] == made.hash
    assert about["trivet.model"] == "tests/small"
    assert about["trivet.model_requested"] == "BAAI/bge-m3"
    assert about["trivet.colbert_encoding"] == "float16-le"
    assert json.loads(about["trivet.fields"])["char_start"]["unit"] == "Unicode code point"
    assert b"float16" in schema.field("colbert").metadata[b"encoding"]
    assert all(schema.field(name).metadata[b"meaning"] for name in schema.names)


def test_vectors_are_neither_compressed_nor_dictionary_encoded() -> None:
    some = [chunk(n) for n in range(50)]
    made = pq.ParquetFile(pa.BufferReader(part_bytes(some, legs([4] * 50), spec(), "o", {}))).metadata
    columns = [made.row_group(0).column(n) for n in range(made.num_columns)]
    assert {column.compression for column in columns} == {"UNCOMPRESSED"}
    vectors = [c for c in columns if c.path_in_schema.startswith(("dense", "sparse", "colbert"))]
    assert len(vectors) == 5
    assert not any("DICTIONARY" in encoding for column in vectors for encoding in column.encodings)


@pytest.mark.parametrize(
    ("off", "columns"),
    [
        ({"dense": False}, ["dense"]),
        ({"sparse": False}, ["sparse_ids", "sparse_weights"]),
        ({"colbert": "off"}, ["colbert"]),
        ({"dense": False, "sparse": False, "colbert": "off"}, ["dense", "sparse_ids", "sparse_weights", "colbert"]),
    ],
)
def test_a_leg_that_is_off_is_null_and_reads_as_none(off: dict[str, Any], columns: list[str]) -> None:
    made = legs([4, 6])
    if off.get("colbert") == "off":
        made = replace(made, colbert=np.zeros((0, 0), np.float16), colbert_offsets=np.zeros(3, np.int64))
    body = part_bytes([chunk(0), chunk(1, tokens=6)], made, spec(**off), "o", {})
    written = table(body)
    assert written.schema.names == list(FIELDS)
    for name in ("dense", "sparse_ids", "sparse_weights", "colbert"):
        assert written.column(name).null_count == (2 if name in columns else 0)
    (group,) = read(body, 2)
    assert (group.dense is None) == ("dense" in columns)
    assert (group.sparse(0) is None) == ("sparse_ids" in columns)
    assert (group.colbert(0) is None) == ("colbert" in columns)
    back = group.legs()
    assert len(back) == 2
    assert back.dense.shape == ((2, 0) if "dense" in columns else (2, 8))
    assert len(back.sparse_offsets) == len(back.colbert_offsets) == 3


@given(sizes=st.lists(st.integers(2, 30), min_size=1, max_size=12), limit=st.integers(1, 3000))
def test_row_groups_keep_to_their_limit_or_hold_one_row(sizes: list[int], limit: int) -> None:
    some = [chunk(n, tokens=size) for n, size in enumerate(sizes)]
    made = legs(sizes)
    body = part_bytes(some, made, spec(), "o", {}, row_group_bytes=limit)
    groups = read(body, len(some))
    assert [row["ordinal"] for group in groups for row in group.table.to_pylist()] == list(range(len(some)))
    assert sum((len(group) for group in groups), 0) == len(some)
    file = pq.ParquetFile(pa.BufferReader(body)).metadata
    for group in groups:
        vectors = sum(
            file.row_group(group.index).column(n).total_uncompressed_size
            for n in range(file.num_columns)
            if file.row_group(group.index).column(n).path_in_schema.startswith("colbert")
        )
        assert len(group) == 1 or vectors <= limit + 200
    together = gather([(group.legs(), row) for group in groups for row in range(len(group))])
    assert same(together, made)


def test_float32_colbert_is_stored_as_float16() -> None:
    made = legs([5])
    wide = replace(made, colbert=made.colbert.astype(np.float32))
    assert part_bytes([chunk(tokens=5)], wide, spec(), "o", {}) == part_bytes([chunk(tokens=5)], made, spec(), "o", {})


@given(order=st.permutations(range(5)), cut=st.integers(1, 4))
def test_gathered_rows_are_those_of_their_legs_in_any_order(order: list[int], cut: int) -> None:
    sizes = [4, 2, 9, 3, 5]
    whole = legs(sizes)
    one = gather([(whole, n) for n in order[:cut]])
    two = gather([(whole, n) for n in order[cut:]])
    places = [((one, order.index(n)) if order.index(n) < cut else (two, order.index(n) - cut)) for n in range(5)]
    assert same(gather(places), whole)


def test_gathering_keeps_width_zero_where_colbert_is_off() -> None:
    made = replace(legs([4, 4]), colbert=np.zeros((0, 0), np.float16), colbert_offsets=np.zeros(3, np.int64))
    assert gather([(made, 1), (made, 0)]).colbert.shape == (0, 0)


def test_views_with_strides_and_offsets_are_written_by_value() -> None:
    made = legs([4, 4, 4, 4])
    every_other: Any = np.repeat(made.colbert, 2, axis=1)[:, ::2]
    turned = replace(made, dense=np.asfortranarray(made.dense), colbert=every_other)
    some = [chunk(n) for n in range(4)]
    assert part_bytes(some, turned, spec(), "o", {}) == part_bytes(some, made, spec(), "o", {})


def wrong(**changes: Any) -> Legs:
    return replace(legs([4, 4]), **changes)


def spoilt(number: float, dtype: type[np.floating[Any]]) -> Any:
    vectors = legs([4, 4]).colbert.astype(dtype)
    vectors[-1, -1] = number
    return vectors


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (legs([4]), "1 rows for 2"),
        (legs([4, 4], dimensions=7), "Dense"),
        (legs([4, 4], colbert=3), "ColBERT"),
        (wrong(dense=np.full((2, 8), np.nan, np.float32)), "not finite"),
        (wrong(sparse_weights=np.full_like(legs([4, 4]).sparse_weights, np.inf)), "not finite"),
        (wrong(colbert=spoilt(np.nan, np.float16)), "not finite"),
        (wrong(colbert=spoilt(-np.inf, np.float16)), "not finite"),
        (wrong(colbert=spoilt(np.nan, np.float32)), "not finite"),
        (wrong(colbert_offsets=np.array([0, 3, 99])), "beyond their ends"),
    ],
)
def test_legs_that_do_not_fit_are_refused(made: Legs, message: str) -> None:
    with pytest.raises(ModelInvalid, match=message):
        part_bytes([chunk(0), chunk(1)], made, spec(), "o", {})


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(CorruptDocument, match="obj_1"):
        part_bytes([chunk(context="\ud800")], legs([4]), spec(), "obj_1", {})


def test_equal_input_gives_equal_bytes() -> None:
    some = [chunk(0), chunk(1)]
    assert part_bytes(some, legs([4, 4]), spec(), "o", {"a": 1}) == part_bytes(
        some, legs([4, 4]), spec(), "o", {"a": 1}
    )


def test_what_other_extractors_say_stands_in_the_metadata_of_each_row() -> None:
    plain = spec()
    several = plain.model_copy(
        update={"pipeline": plain.pipeline.model_copy(update={"also": ("language_extractor", "statistics_extractor")})}
    )
    found = [chunk(0, "Guten Tag", language="de"), chunk(1, "1 2")]
    body = part_bytes(found, legs(lengths(found)), several, "obj_1", {"title": "x"})
    rows = [dict(row) for row in table(body).column("metadata").to_pylist()]
    assert [row["title"] for row in rows] == ["x", "x"]
    assert (rows[0]["language_extractor.language"], rows[0]["language_extractor.script"]) == ("de", "latin")
    assert rows[1].keys() & {"language_extractor.language", "language_extractor.script"} == set()
    assert rows[1]["statistics_extractor.digit_share"] == "1.000"
    assert several.hash != plain.hash
