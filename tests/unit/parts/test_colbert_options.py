"""Every way to store vectors, through a part and back: in Python, in DuckDB over our store, in DuckDB over the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.commits import manifest
from tests.support.parts import OPTIONS, chunk, legs, spec
from trivet.commit import publish, put_part
from trivet.encoder import Legs
from trivet.errors import InvalidRequest, ModelInvalid
from trivet.parts.duck import connect, duckdb_macro
from trivet.parts.outputs import dequantise, quantise, shaped
from trivet.parts.reader import RowGroup, row_groups
from trivet.parts.writer import part_bytes
from trivet.stores.layout import Layout
from trivet.stores.memory import MemoryStore
from trivet.values import Part, Spec

LAYOUT = Layout("v1", "default", "docs")
SIZES = [4, 9, 1, 6]
every_option = pytest.mark.parametrize("outputs", OPTIONS.values(), ids=OPTIONS.keys())


def stored(made: Spec, sizes: list[int] = SIZES, seed: int = 0) -> tuple[Legs, bytes]:
    """Legs as they are to be stored, and the part that stores them."""
    given = shaped(legs(sizes, made.model.dimensions, made.model.colbert_dimensions, seed=seed), made.pipeline.outputs)
    some = [chunk(n, tokens=size) for n, size in enumerate(sizes)]
    return given, part_bytes(some, given, made, "obj_1", {})


def decoded(given: Legs, made: Spec) -> Any:
    """The ColBERT vectors that a reader must see."""
    if made.pipeline.outputs.colbert == "int8":
        return dequantise(*quantise(given.colbert))
    return given.colbert.astype(np.float16)


def _same(found: Any, expected: Any) -> bool:
    return np.array_equal(found, expected)


def group_of(body: bytes, rows: int, columns: list[str] | None = None) -> RowGroup:
    store = MemoryStore()
    store.put("part", body)
    part = Part(shard=0, key="part", sha256="", bytes=len(body), rows=rows, tokens=0, input_hash="")
    (group,) = row_groups(store, "obj_1", part, columns=columns)
    return group


def commit(store: MemoryStore, made: Spec, body: bytes, object_id: str = "obj_1") -> None:
    part = put_part(
        store,
        LAYOUT,
        object_id=object_id,
        generation=1,
        shard=0,
        body=body,
        rows=len(SIZES),
        tokens=sum(SIZES),
        input_hash="0" * 16,
    )
    publish(store, LAYOUT, manifest(LAYOUT, 1, object_id=object_id, parts=(part,), spec_hash=made.hash, task=object_id))


def without_scale(body: bytes) -> bytes:
    """The part as it was written before there was int8."""
    sink = pa.BufferOutputStream()
    pq.write_table(pq.read_table(pa.BufferReader(body)).drop_columns(["colbert_scale"]), sink)
    older: bytes = sink.getvalue().to_pybytes()
    return older


@every_option
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_python_reads_back_what_was_stored(outputs: dict[str, Any], sizes: list[int], seed: int) -> None:
    made = spec(**outputs)
    given, body = stored(made, sizes, seed)
    group, expected = group_of(body, len(sizes)), decoded(given, made)
    back = group.legs()
    assert back.colbert.dtype == expected.dtype == (np.float32 if made.pipeline.outputs.colbert == "int8" else "<f2")
    assert np.array_equal(back.colbert, expected)
    assert np.array_equal(back.colbert_offsets, given.colbert_offsets)
    assert np.array_equal(back.dense, given.dense)
    alone = group_of(body, len(sizes), ["colbert"])
    for row in range(len(sizes)):
        span = slice(given.colbert_offsets[row], given.colbert_offsets[row + 1])
        assert _same(alone.colbert(row), expected[span])
        one = RowGroup("obj_1", group.part, 0, group.table.slice(row, 1))
        assert _same(one.colbert(0), expected[span])
        assert np.array_equal(one.legs().colbert, expected[span])


@every_option
def test_duckdb_reads_back_what_was_stored(outputs: dict[str, Any], tmp_path: Path) -> None:
    made = spec(**outputs)
    given, body = stored(made)
    store = MemoryStore()
    commit(store, made, body)
    (tmp_path / "part.parquet").write_bytes(body)
    query = "SELECT trivet_colbert(colbert, colbert_scale), dense FROM {} ORDER BY ordinal"
    with connect(store, LAYOUT) as connection:
        ours = connection.execute(query.format("chunks")).fetchall()
    with duckdb.connect() as connection:
        connection.execute(duckdb_macro())
        plain = connection.execute(query.format(f"'{tmp_path / 'part.parquet'}'")).fetchall()
    expected = decoded(given, made)
    for rows in (ours, plain):
        for row, (colbert, dense) in enumerate(rows):
            span = slice(given.colbert_offsets[row], given.colbert_offsets[row + 1])
            found = np.array(colbert, np.float32).reshape(-1, made.colbert_width)
            assert np.array_equal(found, expected[span].astype(np.float32))
            assert np.array_equal(np.array(dense, np.float32), given.dense[row])


@every_option
def test_the_file_says_how_its_vectors_are_stored(outputs: dict[str, Any]) -> None:
    made = spec(**outputs)
    _, body = stored(made)
    schema: Any = pq.read_schema(pa.BufferReader(body))
    about = {key.decode(): value.decode() for key, value in schema.metadata.items()}
    asked = made.pipeline.outputs
    encodings = {"float16": "float16-le", "int8": "int8"}
    expected = "float16-list" if asked.colbert_layout == "list" else encodings[asked.colbert]
    assert about["trivet.colbert_encoding"] == expected
    assert about["trivet.colbert"] == str(asked.colbert_dimensions or 4)
    assert about["trivet.dense"] == str(asked.dense_dimensions or 8)
    assert about["trivet.colbert_pooling"] == str(asked.colbert_pooling)
    field = json.loads(about["trivet.fields"])["colbert"]
    assert ("which tokens a vector stands for is not kept" in field["meaning"]) == (asked.colbert_pooling > 1)
    assert ("first 3 of the model's 4" in field["meaning"]) == (asked.colbert_dimensions == 3)
    assert field["encoding"].startswith("int8" if asked.colbert == "int8" else ("float16-le", "per token a list"))


@pytest.mark.parametrize(
    ("outputs", "kind"),
    [
        ({"colbert": "int8", "colbert_dimensions": 3}, "list<element: fixed_size_binary[3] not null>"),
        ({"colbert_dimensions": 3}, "list<element: fixed_size_binary[6] not null>"),
        (
            {"colbert_layout": "list"},
            "list<element: fixed_size_list<element: halffloat not null>[4] not null>",
        ),
    ],
)
def test_columns_have_the_type_that_was_asked_for_and_no_dictionary(outputs: dict[str, Any], kind: str) -> None:
    _, body = stored(spec(**outputs))
    assert str(pq.read_schema(pa.BufferReader(body)).field("colbert").type) == kind
    group = pq.ParquetFile(pa.BufferReader(body)).metadata.row_group(0)
    columns = [group.column(n) for n in range(group.num_columns)]
    vectors = [column for column in columns if column.path_in_schema.startswith("colbert")]
    assert len(vectors) == 2
    assert not any("DICTIONARY" in encoding for column in vectors for encoding in column.encodings)


def test_int8_takes_about_half_of_float16_and_pooling_by_two_half_again() -> None:
    def size(**outputs: Any) -> int:
        made = spec(64, 256, **outputs)
        return len(stored(made, [200, 300])[1])

    plain, small = size(), size(colbert="int8")
    assert 0.5 < small / plain < 0.6
    assert 0.5 < size(colbert="int8", colbert_pooling=2) / small < 0.6


def test_legs_that_were_not_shaped_as_their_spec_says_are_refused() -> None:
    some = [chunk(0), chunk(1)]
    for outputs in ({"colbert_dimensions": 3}, {"dense_dimensions": 5}):
        with pytest.raises(ModelInvalid, match="have shape"):
            part_bytes(some, legs([4, 4]), spec(**outputs), "obj_1", {})


def test_parts_that_are_older_than_the_scale_are_read_as_before_alone_and_beside_newer_ones() -> None:
    made = spec()
    given, body = stored(made)
    older = without_scale(body)
    for columns in (None, ["colbert"]):
        assert _same(group_of(older, len(SIZES), columns).colbert(1), given.colbert[3:11])
    for first, second in ((older, body), (body, older)):
        store = MemoryStore()
        commit(store, made, first, "obj_1")
        commit(store, made, second, "obj_2")
        with connect(store, LAYOUT) as connection:
            rows = connection.execute("SELECT trivet_colbert(colbert, colbert_scale) FROM chunks").fetchall()
        assert len(rows) == 2 * len(SIZES)
        found = np.concatenate([np.array(row[0], np.float16).reshape(-1, 4) for row in rows])
        assert np.array_equal(found, np.concatenate([given.colbert, given.colbert]))


def test_duckdb_shows_pooled_chunks_beside_others_and_refuses_encodings_that_share_no_column() -> None:
    store = MemoryStore()
    for name, outputs in (("obj_1", {}), ("obj_2", {"colbert_pooling": 2})):
        commit(store, spec(**outputs), stored(spec(**outputs))[1], name)
    with connect(store, LAYOUT) as connection:
        assert connection.execute("SELECT sum(len(colbert)) FROM chunks").fetchone() == (16 + 9,)
    commit(store, spec(colbert="int8"), stored(spec(colbert="int8"))[1], "obj_3")
    with pytest.raises(InvalidRequest, match="widths or encodings"):
        connect(store, LAYOUT)
