"""Staged shards and their plan."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given

from tests.support.commits import Lossy, interleavings
from tests.support.parts import chunk, chunks, spec
from trivet.errors import CorruptDocument, StoreDamaged, StoreUnavailable
from trivet.parts.plan import generation_hash, input_hash, parts_hash
from trivet.parts.staging import Plan, load_plan, load_shard, read_shard, seal_plan, shard_bytes, stage_shard
from trivet.stores import ObjectStore
from trivet.stores.layout import Layout
from trivet.stores.memory import MemoryStore
from trivet.values import Chunk, Part, Receipt

LAYOUT = Layout("v1", "default", "docs")
SOURCE = "aa" * 32


def plan(title: str = "", **fields: Any) -> Plan:
    known = {"object_id": "obj_1", "source_sha256": SOURCE, "spec_hash": spec().hash, "media_type": "text/plain"}
    return Plan(**(known | {"title": title} | fields))


def stage(store: ObjectStore, some: list[Chunk], shard: int = 0) -> Any:
    return stage_shard(store, LAYOUT, spec(), "obj_1", SOURCE, shard, some)


@given(some=chunks())
def test_chunks_come_back_as_they_were_staged(some: list[Chunk]) -> None:
    assert read_shard(shard_bytes(some)) == tuple(some)


def test_long_token_lists_come_back() -> None:
    some = [chunk(n, tokens=8192) for n in range(2)]
    assert read_shard(shard_bytes(some)) == tuple(some)


@pytest.mark.parametrize("body", [b"", b"PAR1", b"x" * 100])
def test_bytes_that_are_no_shard_are_damage(body: bytes) -> None:
    with pytest.raises(StoreDamaged):
        read_shard(body)


def test_a_parquet_file_of_other_columns_is_damage() -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": [1]}), sink)
    with pytest.raises(StoreDamaged):
        read_shard(sink.getvalue().to_pybytes())


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(CorruptDocument):
        shard_bytes([chunk(context="\udfff")])


def test_a_staged_shard_is_what_its_record_says() -> None:
    store, some = MemoryStore(), [chunk(0, "one", 4), chunk(1, "two", 7)]
    staged = stage(store, some, 3)
    body, stored = store.get(staged.key)
    assert staged.key == LAYOUT.staged("obj_1", SOURCE, spec().hash, 3, staged.input_hash)
    assert (staged.bytes, staged.sha256, stored.sha256) == (len(body), hashlib.sha256(body).hexdigest(), staged.sha256)
    assert (staged.shard, staged.rows, staged.tokens) == (3, 2, 11)
    assert load_shard(store, staged) == tuple(some)


def test_staging_again_changes_nothing_and_other_text_has_another_key() -> None:
    store = MemoryStore()
    first = stage(store, [chunk(0, "one")])
    assert stage(store, [chunk(0, "one")]) == first
    other = stage(store, [chunk(0, "two")])
    assert other.key != first.key
    assert load_shard(store, first)[0].text == "one"


def test_a_shard_that_is_there_already_is_recorded_as_it_is() -> None:
    store = MemoryStore()
    first = stage(store, [chunk(0, "one", page_start=1)])
    assert stage(store, [chunk(0, "one", page_start=2)]) == first


@pytest.mark.parametrize("mishap", ["answer lost", "conflict with itself"])
def test_a_staged_shard_whose_answer_was_lost_is_staged(mishap: str) -> None:
    assert stage(Lossy(MemoryStore(), [mishap]), [chunk()]) == stage(MemoryStore(), [chunk()])


@pytest.mark.parametrize("mishap", ["lost", "409"])
def test_a_shard_that_is_not_there_afterwards_is_unavailable(mishap: str) -> None:
    with pytest.raises(StoreUnavailable):
        stage(Lossy(MemoryStore(), [mishap]), [chunk()])


def test_a_shard_that_was_changed_after_the_seal_is_damage() -> None:
    store = MemoryStore()
    staged = stage(store, [chunk(0, "one")])
    store.put(staged.key, shard_bytes([chunk(0, "two")]))
    with pytest.raises(StoreDamaged, match="sealed"):
        load_shard(store, staged)


def test_no_plan_is_none() -> None:
    assert load_plan(MemoryStore(), LAYOUT, "obj_1", SOURCE, "5bec") is None


def test_a_plan_that_cannot_be_read_is_damage() -> None:
    store = MemoryStore()
    store.put(LAYOUT.plan("obj_1", SOURCE, "5bec"), b'{"schema_version": 2}')
    with pytest.raises(StoreDamaged):
        load_plan(store, LAYOUT, "obj_1", SOURCE, "5bec")


def test_a_sealed_plan_is_loaded_as_it_was() -> None:
    store = MemoryStore()
    shards = (stage(store, [chunk(0)]), stage(store, [chunk(1), chunk(2)], 1))
    value = plan("Title", shards=shards, pages=3, receipt=Receipt(pages=3, chunks=3), metadata={"author": "日本"})
    assert seal_plan(store, LAYOUT, value) == (value, True)
    assert load_plan(store, LAYOUT, "obj_1", SOURCE, spec().hash) == value
    assert (value.rows, value.tokens) == (3, 12)


def test_the_first_seal_wins_and_the_loser_adopts_it() -> None:
    store = MemoryStore()
    assert seal_plan(store, LAYOUT, plan("first")) == (plan("first"), True)
    assert seal_plan(store, LAYOUT, plan("second")) == (plan("first"), False)
    assert seal_plan(store, LAYOUT, plan("first")) == (plan("first"), True)


@pytest.mark.parametrize("mishap", ["answer lost", "conflict with itself"])
def test_a_seal_whose_answer_was_lost_holds(mishap: str) -> None:
    assert seal_plan(Lossy(MemoryStore(), [mishap]), LAYOUT, plan()) == (plan(), True)


@pytest.mark.parametrize("mishap", ["lost", "409"])
def test_a_seal_that_did_not_arrive_is_unavailable(mishap: str) -> None:
    with pytest.raises(StoreUnavailable):
        seal_plan(Lossy(MemoryStore(), [mishap]), LAYOUT, plan())


@pytest.mark.parametrize("mishaps", [(), ("answer lost",), ("conflict with itself",)])
def test_of_two_sealers_all_adopt_one_plan_in_every_interleaving(mishaps: tuple[str, ...]) -> None:
    def make() -> list[Any]:
        inner = MemoryStore()

        def body(step: Callable[[], None], title: str, wrong: tuple[str, ...]) -> Any:
            store = Lossy(inner, wrong)
            store.before = lambda verb, key: step()
            return seal_plan(store, LAYOUT, plan(title))

        return [lambda step: body(step, "one", mishaps), lambda step: body(step, "two", ())]

    winners = set()
    for (one, mine), (two, theirs) in interleavings(make):
        assert one == two
        assert mine != theirs
        winners.add(one.title)
    assert winners == {"one", "two"}


def test_the_input_hash_depends_on_text_context_and_spec_and_on_nothing_that_is_computed() -> None:
    one = [chunk(0, "one")]
    same = [chunk(0, "one", page_start=3, language="en")]
    assert input_hash(one, spec()) == input_hash(same, spec())
    others = [
        input_hash([chunk(0, "two")], spec()),
        input_hash([chunk(0, "one", context="x")], spec()),
        input_hash([chunk(1, "one")], spec()),
        input_hash(one, spec(16)),
        input_hash(one, spec(sparse=False)),
        input_hash([], spec()),
    ]
    assert len({input_hash(one, spec()), *others}) == 7


def test_the_hash_of_a_generation_does_not_depend_on_the_order_in_which_parts_came() -> None:
    parts = [Part(shard=n, key="k", sha256="", bytes=0, rows=0, tokens=0, input_hash=f"h{n}") for n in range(3)]
    assert parts_hash("s", "c", parts, {}) == parts_hash("s", "c", parts[::-1], {})
    assert parts_hash("s", "c", parts, {}) == generation_hash("s", "c", ["h0", "h1", "h2"], {})
    assert parts_hash("s", "c", parts, {"a": 1}) != parts_hash("s", "c", parts, {})
