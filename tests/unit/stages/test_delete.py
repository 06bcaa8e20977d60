"""A delete hides an object by a tombstone, whatever has been there and wherever it is interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commits import manifest
from tests.unit.stages.desk import Desk, desk, encoder
from trivet import faults
from trivet.commit import publish, read_manifest, read_pointer
from trivet.deleting.deletes import delete_object
from trivet.errors import NotUnderstood, TransientError
from trivet.names import Stage
from trivet.parts.reader import read_current
from trivet.stages import commit
from trivet.stages.embed import EmbedLoop
from trivet.values import TaskState

FAR = float("inf")
PLACES = (
    "delete.after_committing",
    "delete.after_floor",
    "delete.after_generation",
    "commit.before_manifest",
    "commit.after_manifest",
    "commit.before_current",
    "commit.after_current",
    "delete.after_publish",
    "delete.after_finish",
)


@pytest.fixture
def d(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path) as made:
        yield made
    faults.disarm()


def ingest(d: Desk, object_id: str = "o") -> str:
    task_id = d.staged(object_id, [["one"], ["two"]])
    loop = EmbedLoop(d.ctx, encoder())
    loop.run(FAR)
    loop.close()
    commit.run(d.ctx, FAR)
    return task_id


def delete(d: Desk, object_id: str = "o") -> str:
    return delete_object(d.ledger, d.settings, "default", "docs", object_id).task_id


def test_a_visible_object_is_hidden_by_a_higher_generation(d: Desk) -> None:
    assert d.view(ingest(d)).state is TaskState.COMPLETED
    task_id = delete(d)
    commit.run(d.ctx, FAR)
    view = d.view(task_id)
    assert (view.state, view.generation) == (TaskState.DELETED, 2)
    assert read_current(d.store, d.layout, "o") is None
    tombstone = read_manifest(d.store, d.layout, "o", 2)
    assert tombstone is not None
    assert (tombstone.tombstone, tombstone.parts, tombstone.task_id) == (True, (), task_id)
    assert view.manifest_key == d.layout.manifest("o", 2)


def test_what_never_was_and_what_is_deleted_already_is_skipped_and_uses_no_number(d: Desk) -> None:
    for _ in range(2):
        task_id = delete(d, "never")
        commit.run(d.ctx, FAR)
        assert d.view(task_id).state is TaskState.SKIPPED
    assert list(d.store.list(d.layout.object("never"))) == []
    ingest(d)
    first, states = delete(d), []
    commit.run(d.ctx, FAR)
    second = delete(d)
    commit.run(d.ctx, FAR)
    states = [d.view(task_id).state for task_id in (first, second)]
    assert states == [TaskState.DELETED, TaskState.SKIPPED]
    pointer = read_pointer(d.store, d.layout, "o")
    assert pointer is not None
    assert (pointer.generation, pointer.task_id) == (2, first)


def test_what_is_durable_and_not_visible_is_fenced_by_a_tombstone_above_it(d: Desk) -> None:
    late = manifest(d.layout, 3, object_id="o", task="task_hung")
    d.store.put(late.parts[0].key, b"")
    task_id = delete(d)
    commit.run(d.ctx, FAR)
    assert d.view(task_id).generation == 4
    publish(d.store, d.layout, late)
    assert read_current(d.store, d.layout, "o") is None


def test_leftovers_of_an_object_that_failed_get_a_tombstone_so_that_they_can_be_purged(d: Desk) -> None:
    d.store.put(d.layout.raw("o", "ab" * 32), b"fetched, and never parsed")
    task_id = delete(d)
    commit.run(d.ctx, FAR)
    assert d.view(task_id).state is TaskState.DELETED


def test_a_number_that_another_has_taken_is_left_and_the_next_one_used(d: Desk) -> None:
    ingest(d)
    task_id = delete(d)
    foreign = manifest(d.layout, 2, object_id="o", task="task_of_another_ledger")

    def take() -> None:
        faults.disarm()
        publish(d.store, d.layout, foreign)

    faults.arm("delete.after_generation", take)
    commit.run(d.ctx, FAR)
    assert (d.view(task_id).state, d.view(task_id).generation) == (TaskState.DELETED, 3)
    assert read_current(d.store, d.layout, "o") is None


@pytest.mark.parametrize("place", PLACES)
def test_a_delete_that_dies_anywhere_is_done_once_by_the_next_worker(d: Desk, place: str) -> None:
    ingest(d)
    task_id = delete(d)

    def die() -> None:
        faults.disarm()
        raise TransientError("died")

    faults.arm(place, die)
    lease = d.claim(Stage.COMMIT)
    with pytest.raises(TransientError):
        commit.commit(d.ctx, lease)
    d.ledger.farewell("hand")
    commit.run(d.ctx, FAR)
    assert (d.view(task_id).state, d.view(task_id).generation) == (TaskState.DELETED, 2)
    ends = [event.type for _, event in d.ledger.events("0-0", 100, 0) if event.data["task_id"] == task_id]
    assert ends.count("trivet.ingest.deleted") == 1


def test_an_object_that_is_ingested_again_after_its_delete_is_visible_again(d: Desk) -> None:
    ingest(d)
    delete(d)
    commit.run(d.ctx, FAR)
    again = ingest(d)
    assert (d.view(again).state, d.view(again).generation) == (TaskState.COMPLETED, 3)
    visible = read_current(d.store, d.layout, "o")
    assert visible is not None
    assert visible.task_id == again


def test_a_kind_of_task_that_is_not_known_is_left_for_a_worker_that_knows_it(d: Desk) -> None:
    from dataclasses import replace

    delete(d)
    lease = d.claim(Stage.COMMIT)
    with pytest.raises(NotUnderstood):
        commit.commit(d.ctx, replace(lease, payload=lease.payload.replace('"delete"', '"fold"')))
