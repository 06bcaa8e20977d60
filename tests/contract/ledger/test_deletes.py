"""A delete is a task like any other, with nothing but a tombstone to write."""

from __future__ import annotations

import json

import pytest

from tests.contract.ledger.desk import CRASH, SPEC, Desk
from trivet.errors import IdempotencyConflict, LeaseLost, TooLate
from trivet.names import Stage, TaskKind
from trivet.values import Receipt, TaskState


def test_a_delete_goes_from_queued_over_committing_to_deleted(desk: Desk) -> None:
    task_id = desk.delete()
    assert desk.state(task_id) is TaskState.QUEUED
    assert desk.view(task_id).kind is TaskKind.DELETE
    assert desk.claim(Stage.PREPARE) == []
    lease = desk.one(Stage.COMMIT)
    payload = json.loads(lease.payload)
    assert (payload["kind"], payload["run"], payload.get("generation")) == ("delete", 1, None)
    assert desk.ledger.committing(lease) == []
    assert desk.ledger.take_generation(lease, 4) == desk.ledger.take_generation(lease, 9) == 5
    for _ in range(2):
        desk.ledger.finish(lease, TaskState.DELETED, manifest="m", receipt=Receipt())
    assert desk.state(task_id) is TaskState.DELETED
    assert desk.kinds(task_id) == ["accepted", "deleted"]
    assert desk.view(task_id).generation == 5


def test_a_delete_needs_no_collection(desk: Desk) -> None:
    assert desk.ledger.remove_collection("ns", "c")
    assert not desk.ledger.remove_collection("ns", "c")
    assert desk.state(desk.delete()) is TaskState.QUEUED


def test_a_delete_waits_for_the_active_task_and_takes_the_place_of_one_that_waits(desk: Desk) -> None:
    active, waits, delete = desk.accept(), desk.accept(), desk.delete()
    assert [desk.state(t) for t in (active, waits, delete)] == ["queued", "superseded", "waiting"]
    desk.ledger.finish(desk.one(Stage.PREPARE), TaskState.SKIPPED, manifest="", receipt=Receipt())
    assert desk.commit(TaskState.DELETED) == delete


def test_a_delete_gives_way_to_a_newer_ingest(desk: Desk) -> None:
    _, delete, newest = desk.accept(), desk.delete(), desk.accept()
    assert [desk.state(t) for t in (delete, newest)] == ["superseded", "waiting"]


def test_an_ingest_waits_for_the_delete_before_it(desk: Desk) -> None:
    delete, ingest = desk.delete(), desk.accept()
    assert desk.state(ingest) is TaskState.WAITING
    desk.commit(TaskState.DELETED)
    assert desk.one(Stage.PREPARE).task_id == ingest
    assert desk.state(delete) is TaskState.DELETED


def test_a_delete_can_be_cancelled_until_it_commits(desk: Desk) -> None:
    first = desk.delete("a")
    lease = desk.one(Stage.COMMIT)
    assert desk.ledger.cancel(first) is TaskState.CANCELLED
    with pytest.raises(LeaseLost):
        desk.ledger.committing(lease)
    second = desk.delete("b")
    desk.ledger.committing(desk.one(Stage.COMMIT))
    with pytest.raises(TooLate):
        desk.ledger.cancel(second)


def test_a_delete_whose_generation_is_taken_takes_another(desk: Desk) -> None:
    task_id = desk.delete()
    lease = desk.one(Stage.COMMIT)
    desk.ledger.committing(lease)
    desk.ledger.take_generation(lease, 0)
    desk.ledger.restage(lease, floor=6)
    with pytest.raises(LeaseLost):
        desk.ledger.finish(lease, TaskState.DELETED, manifest="m", receipt=Receipt())
    again = desk.one(Stage.COMMIT)
    assert json.loads(again.payload)["generation"] == desk.ledger.take_generation(again, 0) == 7
    desk.ledger.committing(again)
    desk.ledger.finish(again, TaskState.DELETED, manifest="m", receipt=Receipt())
    assert desk.kinds(task_id) == ["accepted", "deleted"]


def test_a_delete_of_nothing_is_skipped_and_a_failed_one_is_retried(desk: Desk) -> None:
    skipped = desk.delete("nothing")
    assert desk.commit(TaskState.SKIPPED) == skipped
    failed = desk.delete("o")
    lease = desk.one(Stage.COMMIT)
    desk.ledger.committing(lease)
    assert desk.ledger.fail(lease, CRASH, delay_seconds=0, max_attempts=1) == "failed"
    assert desk.kinds(failed) == ["accepted", "failed", "dead_lettered"]
    assert desk.ledger.retry(failed) is TaskState.QUEUED
    assert desk.commit(TaskState.DELETED) == failed
    assert desk.kinds(failed)[3:] == ["accepted", "deleted"]


def test_generations_grow_over_ingests_and_deletes(desk: Desk) -> None:
    desk.committed()
    desk.delete()
    lease = desk.one(Stage.COMMIT)
    assert desk.ledger.take_generation(lease, 1) == 2
    desk.ledger.committing(lease)
    desk.ledger.finish(lease, TaskState.DELETED, manifest="m", receipt=Receipt())
    desk.accept()
    assert desk.ledger.allocate(desk.one(Stage.PREPARE), 2, SPEC)[0] == 3


def test_a_delete_has_its_idempotency_key(desk: Desk) -> None:
    first = desk.delete(idempotency_key="key", fingerprint="delete")
    assert desk.delete(idempotency_key="key", fingerprint="delete") == first
    with pytest.raises(IdempotencyConflict):
        desk.accept(idempotency_key="key", fingerprint="ingest")
