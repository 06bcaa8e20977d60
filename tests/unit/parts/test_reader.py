"""Reading a collection: through manifests, in bounded memory, in Python and in DuckDB."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.commits import Wrapped, manifest
from tests.support.parts import chunk, legs, same, spec
from trivet.commit import publish, put_part
from trivet.errors import InvalidRequest, StoreDamaged, StoreUnavailable
from trivet.parts.duck import connect, duckdb_macro
from trivet.parts.reader import collection_files, current_manifests, read_current, read_parts, row_groups
from trivet.parts.writer import part_bytes
from trivet.settings import Settings
from trivet.stores import ObjectStore
from trivet.stores.layout import Layout
from trivet.stores.memory import MemoryStore
from trivet.values import Manifest, Spec

SETTINGS = Settings(s3_prefix="v1", namespace="default")
LAYOUT = Layout("v1", "default", "docs")


def commit(
    store: ObjectStore,
    object_id: str = "obj_1",
    generation: int = 1,
    sizes: tuple[tuple[int, ...], ...] = ((4, 5), (6,)),
    made: Spec | None = None,
    **fields: Any,
) -> Manifest:
    """Write and publish an object whose parts have chunks of these sizes."""
    made = made or spec()
    parts = []
    for shard, lengths in enumerate(sizes):
        some = [chunk(10 * shard + n, f"{object_id} {shard} {n}", size) for n, size in enumerate(lengths)]
        vectors = legs(list(lengths), made.model.dimensions, made.model.colbert_dimensions, seed=shard)
        body = part_bytes(some, vectors, made, object_id, {"g": generation})
        parts.append(
            put_part(
                store,
                LAYOUT,
                object_id=object_id,
                generation=generation,
                shard=shard,
                body=body,
                rows=len(some),
                tokens=sum(lengths),
                input_hash=f"{shard:016x}",
            )
        )
    value = manifest(
        LAYOUT,
        generation,
        object_id=object_id,
        parts=tuple(parts),
        spec_hash=made.hash,
        task=f"t{generation}",
        **fields,
    )
    publish(store, LAYOUT, value)
    return value


def parts_of(store: ObjectStore, **options: Any) -> list[Any]:
    return list(read_parts("docs", settings=SETTINGS, store=store, **options))


def test_a_collection_without_commits_is_empty() -> None:
    store = MemoryStore()
    assert parts_of(store) == []
    assert list(collection_files(store, LAYOUT)) == []
    assert read_current(store, LAYOUT, "obj_1") is None


def test_every_visible_row_is_read_once_in_order() -> None:
    store = MemoryStore()
    for n in range(20):
        commit(store, f"obj_{n:02}")
    groups = parts_of(store, columns=["text"])
    texts = [row["text"] for group in groups for row in group.table.to_pylist()]
    assert texts == [f"obj_{n:02} {s} {i}" for n in range(20) for s, i in ((0, 0), (0, 1), (1, 0))]


def test_only_the_newest_generation_is_read_and_never_what_no_manifest_names() -> None:
    store = MemoryStore()
    commit(store, generation=1)
    newest = commit(store, generation=2)
    store.put(LAYOUT.part("obj_1", 2, 7, "ff"), b"left over by a run that died")
    store.put(LAYOUT.part("obj_1", 3, 0, "ff"), b"not committed yet")
    store.put(LAYOUT.part("obj_2", 1, 0, "ff"), b"not committed yet")
    assert list(collection_files(store, LAYOUT)) == list(newest.parts)
    assert {dict(row["metadata"])["g"] for group in parts_of(store) for row in group.table.to_pylist()} == {"2"}


def test_deleted_objects_are_left_out() -> None:
    store = MemoryStore()
    commit(store, "obj_1")
    kept = commit(store, "obj_2")
    publish(store, LAYOUT, manifest(LAYOUT, 2, object_id="obj_1", tombstone=True, parts=()))
    assert list(current_manifests(store, LAYOUT)) == [kept]
    assert read_current(store, LAYOUT, "obj_1") is None


def test_chosen_objects_and_columns_alone_are_read() -> None:
    store = MemoryStore()
    for n in range(3):
        commit(store, f"obj_{n}")
    groups = parts_of(store, object_ids=["obj_2", "obj_9"], columns=["chunk_id", "dense"])
    assert {group.object_id for group in groups} == {"obj_2"}
    assert groups[0].table.column_names == ["chunk_id", "dense"]
    assert groups[0].colbert(0) is None
    assert groups[0].sparse(0) is None
    assert groups[0].dense.shape == (2, 8)
    assert same(groups[0].legs(), groups[0].legs())


def test_an_unknown_column_is_refused_by_name() -> None:
    store = MemoryStore()
    commit(store)
    with pytest.raises(InvalidRequest, match="colour"):
        parts_of(store, columns=["colour"])


def test_legs_come_back_as_they_were_written() -> None:
    store = MemoryStore()
    commit(store)
    assert same(parts_of(store)[0].legs(), legs([4, 5], seed=0))


def test_a_reader_that_meets_a_purge_reads_the_newer_generation() -> None:
    inner = MemoryStore()
    commit(inner, generation=1)

    def purge(verb: str, key: str) -> None:
        if key == LAYOUT.manifest("obj_1", 1):
            commit(inner, generation=2)
            inner.delete(key)

    found = read_current(Wrapped(inner, purge), LAYOUT, "obj_1")
    assert found is not None
    assert found.generation == 2


def test_a_current_whose_manifest_is_gone_for_good_is_damage() -> None:
    store = MemoryStore()
    commit(store)
    store.delete(LAYOUT.manifest("obj_1", 1))
    with pytest.raises(StoreDamaged, match="manifest"):
        parts_of(store)


@pytest.mark.parametrize("body", [b"", b"no parquet at all", b"PAR1" + b"\x00" * 40 + b"PAR1"])
def test_a_part_that_is_no_parquet_is_damage(body: bytes) -> None:
    store = MemoryStore()
    value = commit(store)
    store.put(value.parts[0].key, body)
    with pytest.raises(StoreDamaged, match="part-0"):
        parts_of(store)


def test_a_part_with_other_rows_than_its_manifest_says_is_damage() -> None:
    store = MemoryStore()
    value = commit(store)
    with pytest.raises(StoreDamaged, match="rows"):
        list(row_groups(store, "obj_1", value.parts[0].model_copy(update={"rows": 99})))


def test_what_the_store_raises_in_the_middle_of_a_part_is_raised_as_it_is() -> None:
    class Failing(io.BytesIO):
        reads = 0

        def read(self, size: int | None = -1) -> bytes:
            self.reads += 1
            if self.reads > 1:
                raise StoreUnavailable("gone")
            return super().read(size)

    class Store(Wrapped):
        def open(self, key: str) -> BinaryIO:
            return Failing(self.inner.get(key)[0])

    inner = MemoryStore()
    commit(inner)
    with pytest.raises(StoreUnavailable, match="gone"):
        parts_of(Store(inner))


def test_reading_stops_cleanly_in_the_middle() -> None:
    store = MemoryStore()
    for n in range(40):
        commit(store, f"obj_{n:02}", sizes=((4,),))
    rows = read_parts("docs", settings=SETTINGS, store=store)
    assert next(rows).object_id == "obj_00"
    rows.close()  # type: ignore[attr-defined] # it is a generator


# ---------------------------------------------------------------- DuckDB


def half(connection: Any, values: Any) -> Any:
    blob = np.asarray(values, dtype="<f2").tobytes()
    return connection.execute("SELECT trivet_vector(?::BLOB)", [blob]).fetchone()[0]


@pytest.fixture(scope="module")
def duck() -> Any:
    import duckdb

    connection = duckdb.connect()
    connection.execute(duckdb_macro())
    yield connection
    connection.close()


def test_the_macro_decodes_every_float16(duck: Any) -> None:
    every = np.arange(1 << 16, dtype="<u2").view("<f2")
    decoded = np.concatenate([half(duck, some) for some in np.split(every, 64)])
    assert np.array_equal(decoded.astype(np.float32), every.astype(np.float32), equal_nan=True)


@given(values=st.lists(st.floats(width=16, allow_nan=False), max_size=40))
def test_the_macro_decodes_any_vector(duck: Any, values: list[float]) -> None:
    assert half(duck, values) == values


def test_duckdb_sees_what_python_sees() -> None:
    store = MemoryStore()
    for n in range(3):
        commit(store, f"obj_{n}")
    made = legs([4, 5], seed=0)
    with connect(store, LAYOUT) as connection:
        assert connection.execute("SELECT count(*), sum(token_count) FROM chunks").fetchone() == (9, 45)
        row = connection.execute(
            "SELECT dense, sparse_ids, sparse_weights, trivet_colbert(colbert, colbert_scale), metadata FROM chunks "
            "WHERE object_id = 'obj_1' AND ordinal = 1"
        ).fetchone()
        again = connection.execute("SELECT count(DISTINCT chunk_id) FROM chunks").fetchone()
    assert again == (9,)
    terms = slice(*made.sparse_offsets[1:3])
    tokens = slice(*made.colbert_offsets[1:3])
    assert np.array_equal(np.array(row[0], np.float32), made.dense[1])
    assert row[1] == made.sparse_ids[terms].tolist()
    assert np.array_equal(np.array(row[2], np.float32), made.sparse_weights[terms])
    assert np.array_equal(np.array(row[3], np.float16), made.colbert[tokens])
    assert dict(row[4]) == {"g": "1"}


def test_duckdb_reads_legs_that_are_off_beside_legs_that_are_on() -> None:
    store = MemoryStore()
    commit(store, "obj_1")
    commit(store, "obj_2", made=spec(dense=False, sparse=False))
    with connect(store, LAYOUT) as connection:
        counts = connection.execute("SELECT count(*), count(dense), count(sparse_ids), count(colbert) FROM chunks")
        assert counts.fetchone() == (6, 3, 3, 6)


def test_vectors_of_two_widths_need_a_choice_of_spec() -> None:
    store = MemoryStore()
    commit(store, "obj_1")
    commit(store, "obj_2", made=spec(16))
    with pytest.raises(InvalidRequest, match="widths") as caught:
        connect(store, LAYOUT)
    assert spec(16).hash in caught.value.hint
    with connect(store, LAYOUT, spec_hash=spec(16).hash) as connection:
        assert connection.execute("SELECT DISTINCT object_id, len(dense) FROM chunks").fetchall() == [("obj_2", 16)]


def test_an_empty_collection_has_nothing_to_query() -> None:
    with pytest.raises(InvalidRequest, match="no committed chunks"):
        connect(MemoryStore(), LAYOUT)
