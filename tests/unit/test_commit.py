"""The commit on the in-memory store: every mishap, every interleaving."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.commits import MISHAPS, Lossy, Wrapped, interleavings, manifest
from trivet.clock import ManualClock
from trivet.commit import (
    ATTEMPTS,
    FAULTS,
    Foreign,
    Publication,
    Published,
    Superseded,
    publish,
    put_part,
    read_floor,
    read_manifest,
    read_pointer,
)
from trivet.errors import StoreConflict, StoreDamaged, StoreForbidden, StoreUnavailable
from trivet.stores import ObjectStore
from trivet.stores.layout import Layout
from trivet.stores.memory import MemoryStore
from trivet.values import Manifest

LAYOUT = Layout("v1", "default", "docs")


def go(store: ObjectStore, value: Manifest, fault: Callable[[str], None] = lambda name: None) -> Publication:
    return publish(store, LAYOUT, value, clock=ManualClock(), fault=fault)


def pointer(store: ObjectStore) -> Any:
    return read_pointer(store, LAYOUT, "obj_1")


def test_a_first_generation_becomes_durable_and_visible() -> None:
    store, value = MemoryStore(), manifest(LAYOUT)
    assert go(store, value) == Published(LAYOUT.manifest("obj_1", 1), value, pointer(store))
    assert read_manifest(store, LAYOUT, "obj_1", 1) == value
    assert (pointer(store).generation, pointer(store).manifest) == (1, LAYOUT.manifest("obj_1", 1))


def test_publishing_again_changes_nothing() -> None:
    store, value = MemoryStore(), manifest(LAYOUT)
    first, before = go(store, value), dict(store._objects)
    assert go(store, value) == first
    assert store._objects == before


def test_a_later_run_of_the_task_adopts_the_manifest_that_an_earlier_one_stored() -> None:
    store, value = MemoryStore(), manifest(LAYOUT)
    go(store, value)
    again = go(store, value.model_copy(update={"run": 2, "created_at": "2026-02-02T00:00:00Z"}))
    assert isinstance(again, Published)
    assert again.manifest == value == read_manifest(store, LAYOUT, "obj_1", 1)


def test_a_higher_generation_replaces_a_lower_one() -> None:
    store = MemoryStore()
    go(store, manifest(LAYOUT, 1))
    assert isinstance(go(store, manifest(LAYOUT, 3, task="task_b")), Published)
    assert pointer(store).generation == 3


def test_a_lower_generation_is_superseded_and_current_stays() -> None:
    store = MemoryStore()
    go(store, manifest(LAYOUT, 3, task="task_b"))
    late = go(store, manifest(LAYOUT, 2))
    assert isinstance(late, Superseded)
    assert late.by == pointer(store)
    assert pointer(store).generation == 3
    assert read_manifest(store, LAYOUT, "obj_1", 2) is not None


def test_a_number_that_another_task_took_is_foreign_and_stays_theirs() -> None:
    store = MemoryStore()
    theirs = manifest(LAYOUT, 2, task="task_b")
    go(store, theirs)
    assert go(store, manifest(LAYOUT, 2)) == Foreign(LAYOUT.manifest("obj_1", 2), 2, "task_b")
    assert read_manifest(store, LAYOUT, "obj_1", 2) == theirs
    assert pointer(store).task_id == "task_b"


def test_a_number_of_which_only_the_manifest_is_foreign_is_not_made_visible() -> None:
    store = MemoryStore()
    theirs = manifest(LAYOUT, 2, task="task_b")
    store.put(LAYOUT.manifest("obj_1", 2), theirs.model_dump_json().encode())
    assert isinstance(go(store, manifest(LAYOUT, 2)), Foreign)
    assert pointer(store) is None


def test_the_same_task_with_other_input_is_foreign() -> None:
    store = MemoryStore()
    go(store, manifest(LAYOUT, 2))
    assert isinstance(go(store, manifest(LAYOUT, 2, input_hash="other")), Foreign)


def test_a_tombstone_hides_and_a_later_generation_shows_again() -> None:
    store = MemoryStore()
    go(store, manifest(LAYOUT, 1))
    go(store, manifest(LAYOUT, 2, tombstone=True, parts=()))
    assert pointer(store).tombstone
    go(store, manifest(LAYOUT, 3))
    assert not pointer(store).tombstone


@given(mishaps=st.lists(st.sampled_from(MISHAPS), max_size=2 * ATTEMPTS + 2), earlier=st.booleans())
def test_whatever_becomes_of_single_writes_the_commit_ends_right_or_unavailable(
    mishaps: list[str], earlier: bool
) -> None:
    inner = MemoryStore()
    if earlier:
        go(inner, manifest(LAYOUT, 1, task="task_0"))
    value = manifest(LAYOUT, 2)
    store = Lossy(inner, mishaps)
    try:
        outcome = go(store, value)
    except StoreUnavailable:
        assert len(mishaps) >= ATTEMPTS
        assert pointer(inner) is None or pointer(inner).generation == 1
        outcome = go(inner, value)
    assert outcome == Published(LAYOUT.manifest("obj_1", 2), value, pointer(inner))
    assert pointer(inner).generation == 2
    assert read_manifest(inner, LAYOUT, "obj_1", 2) == value


@pytest.mark.parametrize("mishap", ["answer lost", "conflict with itself"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_write_that_was_done_is_recognised_without_writing_again(mishap: str, which: int) -> None:
    writes: list[str] = []
    store = Lossy(MemoryStore(), ["ok"] * which + [mishap])
    store.before = lambda verb, key: writes.append(key) if verb == "put" else None
    assert isinstance(go(store, manifest(LAYOUT)), Published)
    assert len(writes) == 2


def test_an_answer_lost_at_every_try_is_unavailable_after_bounded_tries_with_growing_pauses() -> None:
    clock = ManualClock()
    store = Lossy(MemoryStore(), ["lost"] * 100)
    started = clock.now()
    with pytest.raises(StoreUnavailable, match="manifest"):
        publish(store, LAYOUT, manifest(LAYOUT), clock=clock)
    assert len(store.mishaps) == 100 - ATTEMPTS
    assert clock.now() - started == pytest.approx(0.05 + 0.1 + 0.2 + 0.4 + 0.8 + 1 + 1)


def test_a_store_that_refuses_is_not_tried_again() -> None:
    tries: list[str] = []

    def refuse(verb: str, key: str) -> None:
        tries.append(verb)
        raise StoreForbidden("refused")

    with pytest.raises(StoreForbidden):
        go(Wrapped(MemoryStore(), refuse), manifest(LAYOUT))
    assert tries == ["put"]


def test_a_current_that_cannot_be_read_is_damage_and_is_not_overwritten() -> None:
    store = MemoryStore()
    store.put(LAYOUT.current("obj_1"), b"{")
    with pytest.raises(StoreDamaged, match=r"current\.json"):
        go(store, manifest(LAYOUT))
    assert store.get(LAYOUT.current("obj_1"))[0] == b"{"


class Killed(BaseException):
    pass


@pytest.mark.parametrize("mishaps", [(), ("answer lost",), ("ok", "answer lost"), ("409",), ("ok", "409")])
def test_killed_at_any_hook_the_next_run_finishes(mishaps: tuple[str, ...]) -> None:
    visited: list[str] = []
    go(Lossy(MemoryStore(), mishaps), manifest(LAYOUT), visited.append)
    for step in range(len(visited)):
        inner = MemoryStore()
        passed: list[str] = []

        def strike(name: str, step: int = step, passed: list[str] = passed) -> None:
            passed.append(name)
            if len(passed) == step + 1:
                raise Killed

        with pytest.raises(Killed):
            go(Lossy(inner, mishaps), manifest(LAYOUT), strike)
        assert passed == visited[: step + 1]
        assert isinstance(go(inner, manifest(LAYOUT)), Published)
        assert pointer(inner).generation == 1


def test_an_undisturbed_commit_comes_by_every_hook_that_is_named() -> None:
    visited: list[str] = []
    go(MemoryStore(), manifest(LAYOUT), visited.append)
    assert tuple(visited) == FAULTS


def committers(*values: Manifest, before: Manifest | None = None, mishaps: tuple[str, ...] = ()) -> Any:
    """For `interleavings`: one committer per manifest on a store of their own; the first one's writes go wrong."""

    def make() -> list[Any]:
        inner = MemoryStore()
        if before is not None:
            go(inner, before)

        def body(step: Callable[[], None], value: Manifest, wrong: tuple[str, ...]) -> Any:
            store = Lossy(inner, wrong)
            store.before = lambda verb, key: step()
            return go(store, value), inner

        return [
            lambda step, value=value, n=n: body(step, value, () if n else mishaps) for n, value in enumerate(values)
        ]

    return make


MISHAPS_OF_ONE = [(), ("answer lost",), ("ok", "answer lost"), ("ok", "conflict with itself"), ("409", "ok", "409")]


@pytest.mark.parametrize("mishaps", MISHAPS_OF_ONE)
@pytest.mark.parametrize("before", [None, manifest(LAYOUT, 1, task="task_0")], ids=["first", "replacing"])
def test_two_processes_of_one_task_both_publish_the_same_in_every_interleaving(
    before: Manifest | None, mishaps: tuple[str, ...]
) -> None:
    value = manifest(LAYOUT, 2)
    count = 0
    for results in interleavings(committers(value, value, before=before, mishaps=mishaps)):
        count += 1
        assert [type(outcome) for outcome, _ in results] == [Published, Published]
        assert read_manifest(results[0][1], LAYOUT, "obj_1", 2) == value
        assert pointer(results[0][1]).generation == 2
    assert count > 10


@pytest.mark.parametrize("mishaps", MISHAPS_OF_ONE)
@pytest.mark.parametrize("before", [None, manifest(LAYOUT, 1, task="task_0")], ids=["first", "replacing"])
def test_of_two_generations_the_higher_is_visible_in_the_end_in_every_interleaving(
    before: Manifest | None, mishaps: tuple[str, ...]
) -> None:
    low, high = manifest(LAYOUT, 2), manifest(LAYOUT, 3, task="task_b", tombstone=True, parts=())
    for results in interleavings(committers(low, high, before=before, mishaps=mishaps)):
        (one, store), (two, _) = results
        assert isinstance(two, Published)
        assert isinstance(one, Published | Superseded)
        assert pointer(store).generation == 3
        assert read_manifest(store, LAYOUT, "obj_1", 2) == low


@pytest.mark.parametrize("mishaps", MISHAPS_OF_ONE)
def test_of_two_tasks_with_one_number_exactly_one_publishes_in_every_interleaving(mishaps: tuple[str, ...]) -> None:
    ours, theirs = manifest(LAYOUT, 2), manifest(LAYOUT, 2, task="task_b")
    winners = set()
    for results in interleavings(committers(ours, theirs, mishaps=mishaps)):
        kinds = [type(outcome) for outcome, _ in results]
        assert sorted(kinds, key=str) == [Foreign, Published]
        winner = (ours, theirs)[kinds.index(Published)]
        assert pointer(results[0][1]).task_id == winner.task_id
        assert read_manifest(results[0][1], LAYOUT, "obj_1", 2) == winner
        winners.add(winner.task_id)
    assert winners == {"task_a", "task_b"}


def test_three_committers_leave_the_highest_generation_visible_in_many_interleavings() -> None:
    values = [manifest(LAYOUT, n, task=f"task_{n}") for n in (1, 2, 3)]
    for results in islice(interleavings(committers(*values), rng=random.Random(3)), 300):
        assert isinstance(results[2][0], Published)
        assert pointer(results[0][1]).generation == 3


# ---------------------------------------------------------------- generations and parts


def test_the_floor_of_an_unknown_object_is_zero() -> None:
    assert read_floor(MemoryStore(), LAYOUT, "obj_1") == (None, 0)


def test_the_floor_counts_current_and_every_generation_that_was_begun() -> None:
    store = MemoryStore()
    go(store, manifest(LAYOUT, 9))
    assert read_floor(store, LAYOUT, "obj_1")[1] == 9
    store.put(LAYOUT.part("obj_1", 10, 0, "ab"), b"")
    store.put(LAYOUT.part("obj_12", 99, 0, "ab"), b"")
    assert read_floor(store, LAYOUT, "obj_1")[1] == 10
    store.delete(LAYOUT.part("obj_1", 10, 0, "ab"))
    store.delete(LAYOUT.manifest("obj_1", 9))
    assert read_floor(store, LAYOUT, "obj_1")[1] == 9


def part(store: ObjectStore, body: bytes) -> Any:
    return put_part(store, LAYOUT, object_id="o", generation=1, shard=4, body=body, rows=2, tokens=7, input_hash="ab12")


def test_a_part_says_what_was_written() -> None:
    store = MemoryStore()
    written = part(store, b"bytes")
    assert written.key == LAYOUT.part("o", 1, 4, "ab12")
    assert (written.sha256, written.bytes) == (store.head(written.key).sha256, 5)
    assert (written.shard, written.rows, written.tokens, written.input_hash) == (4, 2, 7, "ab12")


def test_the_second_writer_of_a_part_records_what_the_first_stored() -> None:
    store = MemoryStore()
    first = part(store, b"first")
    assert part(store, b"second!") == first
    assert store.get(first.key)[0] == b"first"


def test_a_stored_part_without_a_recorded_checksum_is_hashed() -> None:
    store = MemoryStore()
    store.put(LAYOUT.part("o", 1, 4, "ab12"), b"first")
    assert part(store, b"second!") == part(MemoryStore(), b"first")


@pytest.mark.parametrize("mishap", ["answer lost", "conflict with itself"])
def test_a_part_whose_answer_was_lost_is_written(mishap: str) -> None:
    assert part(Lossy(MemoryStore(), [mishap]), b"x") == part(MemoryStore(), b"x")


@pytest.mark.parametrize("mishap", ["lost", "409"])
def test_a_part_that_is_not_there_after_a_conflict_is_unavailable(mishap: str) -> None:
    with pytest.raises(StoreUnavailable):
        part(Lossy(MemoryStore(), [mishap]), b"x")


def test_a_conflict_is_never_shown_to_callers_of_publish() -> None:
    with pytest.raises(StoreUnavailable) as caught:
        go(Lossy(MemoryStore(), ["409"] * 100), manifest(LAYOUT))
    assert not isinstance(caught.value, StoreConflict)
