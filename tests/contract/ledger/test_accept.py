"""How tasks come in."""

from __future__ import annotations

import json

import pytest

from tests.contract.ledger.desk import Desk
from trivet.errors import Conflict, IdempotencyConflict, UnknownCollection
from trivet.ledger import Accepted
from trivet.names import Stage
from trivet.values import Collection, Pipeline, Receipt, TaskState


def test_a_task_is_queued_and_one_bell_rings(desk: Desk) -> None:
    task_id = desk.accept()
    assert desk.state(task_id) is TaskState.QUEUED
    assert [(stage, door) for stage, door, _ in desk.rung] == [(Stage.PREPARE, "any")]


def test_an_unknown_collection_is_refused_and_nothing_is_written(desk: Desk) -> None:
    with pytest.raises(UnknownCollection, match="trivet collections create"):
        desk.accept(collection="nowhere")
    assert desk.ledger.tasks("ns", collection=None, state=None, limit=10) == []
    assert desk.ledger.events("0-0", 10, 0) == []


def test_the_same_task_twice_is_one_task(desk: Desk) -> None:
    task = desk.task()
    assert desk.ledger.accept(task, 60) == Accepted(task.task_id, "queued", True)
    assert desk.ledger.accept(task, 60) == Accepted(task.task_id, "queued", False)
    assert desk.kinds(task.task_id) == ["accepted"]


def test_an_idempotency_key_gives_the_first_task_and_refuses_another_request(desk: Desk) -> None:
    first = desk.accept("a", idempotency_key="key")
    assert desk.accept("a", idempotency_key="key") == first
    assert desk.accept("a", idempotency_key="key", namespace="other") != first
    with pytest.raises(IdempotencyConflict, match=first):
        desk.accept("b", idempotency_key="key", fingerprint="g")


def test_an_object_has_one_active_task_and_waiters_coalesce_to_the_newest(desk: Desk) -> None:
    first, second, third = desk.accept(), desk.accept(), desk.accept()
    assert [desk.state(t) for t in (first, second, third)] == ["queued", "superseded", "waiting"]
    assert desk.kinds(second) == ["accepted", "superseded"]
    lease = desk.one(Stage.PREPARE)
    assert lease.task_id == first
    assert desk.claim(Stage.PREPARE) == []
    desk.ledger.finish(lease, TaskState.SKIPPED, manifest="", receipt=Receipt())
    assert desk.one(Stage.PREPARE).task_id == third


def test_a_collection_changed_afterwards_changes_no_accepted_task(desk: Desk) -> None:
    desk.accept()
    changed = Collection(namespace="ns", name="c", pipeline=Pipeline(model_id="other"))
    desk.ledger.put_collection(changed, replace=True)
    config = json.loads(desk.one(Stage.PREPARE).payload)["config"]
    assert Collection.model_validate_json(config).pipeline == Pipeline()


@pytest.mark.parametrize(
    "pipeline", [Pipeline(), Pipeline(revision="a1"), Pipeline(dtype="int8"), Pipeline(revision="a1", dtype="bf16")]
)
def test_a_request_that_names_its_encoder_is_taken_in_for_that_one_or_not_at_all(
    desk: Desk, pipeline: Pipeline
) -> None:
    desk.ledger.put_collection(Collection(namespace="ns", name="c", pipeline=pipeline), replace=True)
    desk.ledger.accept(desk.task("a"), 60, encoder_wish=pipeline.encoder_wish)
    with pytest.raises(Conflict, match="no longer embedded by another"):
        desk.ledger.accept(desk.task("b", idempotency_key="key"), 60, encoder_wish="another")
    assert len(desk.ledger.tasks("ns", collection=None, state=None, limit=10)) == 1
    # The refused request has not used up its key.
    assert desk.ledger.accept(desk.task("c", idempotency_key="key", fingerprint="g"), 60).new


def test_a_collection_changes_only_as_it_was_seen(desk: Desk) -> None:
    ledger, was = desk.ledger, Collection(namespace="ns", name="c")
    one, two = (was.model_copy(update={"pipeline": Pipeline(model_id=name)}) for name in ("one", "two"))
    assert ledger.change_collection(was, one, taken=0)
    assert not ledger.change_collection(was, two, taken=0)
    assert ledger.get_collection("ns", "c") == one
    desk.accept()
    assert not ledger.change_collection(one, two, taken=0)
    assert ledger.change_collection(one, two, taken=ledger.taken("ns", "c"))
    desk.accept("another")
    assert ledger.change_collection(two, one, taken=None)
    assert not ledger.change_collection(was.model_copy(update={"name": "nowhere"}), one, taken=None)
    assert ledger.get_collection("ns", "nowhere") is None


def test_a_query_string_reaches_the_fetcher_but_no_view_and_no_event(desk: Desk) -> None:
    task_id = desk.committed()
    seen = repr(desk.ledger.task(task_id)) + repr(desk.events(task_id))
    assert "hidden" not in seen
    desk.accept("another")
    assert json.loads(desk.one(Stage.PREPARE).payload)["url"].endswith("token=hidden")


def test_doorbells_never_stand_more_than_two_per_worker(desk: Desk) -> None:
    for n in range(20):
        desk.accept(f"o{n}")
    assert len(desk.rung) == 2
    desk.ledger.heartbeat("w1", [], lease_seconds=20, roles=[Stage.PREPARE], info="{}")
    desk.ledger.heartbeat("w2", [], lease_seconds=20, roles=[Stage.PREPARE], info="{}")
    for n in range(20, 40):
        desk.accept(f"o{n}")
    assert len(desk.rung) == 4
    desk.ledger.answer(*desk.rung[0], again=False)
    desk.accept("last")
    assert len(desk.rung) == 5
