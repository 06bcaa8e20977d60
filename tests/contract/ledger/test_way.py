"""From accept to completed, each step once."""

from __future__ import annotations

import json

from tests.contract.ledger.desk import MODEL, SPEC, Desk
from trivet.ids import event_id
from trivet.names import Stage
from trivet.values import Pipeline, Receipt, Spec, TaskState


def test_a_task_goes_from_accept_to_completed_with_one_event_each(desk: Desk) -> None:
    task_id = desk.committed()
    assert desk.state(task_id) is TaskState.COMPLETED
    assert desk.kinds(task_id) == ["accepted", "started", "completed"]
    assert all(e.id == event_id(task_id, 1, e.type.removeprefix("trivet.")) for e in desk.events(task_id))
    view = desk.ledger.task(task_id)
    assert view is not None
    assert (view.shards_done, view.tokens_done, view.manifest_key, view.generation) == (2, 200, "m", 1)
    assert desk.ledger.backlog().staged_tokens == {}


def test_generations_only_grow_and_never_fall_below_what_s3_holds(desk: Desk) -> None:
    desk.committed()
    desk.accept()
    lease = desk.one(Stage.PREPARE)
    assert desk.ledger.allocate(lease, 1, SPEC)[0] == 2
    assert desk.ledger.allocate(lease, 50, SPEC)[0] == 2
    desk.ledger.finish(lease, TaskState.SKIPPED, manifest="", receipt=Receipt())
    desk.accept()
    assert desk.ledger.allocate(desk.one(Stage.PREPARE), 50, SPEC)[0] == 51


def test_the_spec_is_frozen_by_the_first_prepare(desk: Desk) -> None:
    desk.accept()
    lease = desk.one(Stage.PREPARE)
    desk.ledger.allocate(lease, 0, SPEC)
    other = Spec(pipeline=Pipeline(), model=MODEL.model_copy(update={"revision": "2"}))
    assert desk.ledger.allocate(lease, 0, other)[1] == SPEC


def test_every_transition_twice_is_the_same_as_once(desk: Desk) -> None:
    task_id = desk.accept()
    lease = desk.one(Stage.PREPARE)
    desk.stage(lease)
    desk.ledger.stage(
        lease, MODEL.encoder_key, "sha", [(100, "h0"), (100, "h1")], pages=1, chunks=2, fetched_bytes=1000
    )
    shards = desk.claim(Stage.EMBED, budget=1000, most=10)
    assert [s.n for s in shards] == [0, 1]
    for shard in shards:
        desk.done(shard)
        desk.done(shard)
    commit = desk.one(Stage.COMMIT)
    assert desk.ledger.committing(commit) == desk.ledger.committing(commit)
    for _ in range(2):
        desk.ledger.finish(commit, TaskState.COMPLETED, manifest="m", receipt=Receipt())
    assert desk.kinds(task_id) == ["accepted", "started", "completed"]


def test_the_same_claim_again_gives_the_same_leases(desk: Desk) -> None:
    desk.accept("a")
    desk.accept("b")
    first = desk.ledger.claim(Stage.PREPARE, "w", "op", budget=1)
    assert desk.ledger.claim(Stage.PREPARE, "w", "op", budget=1) == first
    assert desk.ledger.claim(Stage.PREPARE, "w", "op2", budget=1) != first


def test_a_foreign_generation_has_all_shards_written_again_under_a_new_one(desk: Desk) -> None:
    task_id = desk.staged()
    for lease in desk.claim(Stage.EMBED, budget=1000, most=10):
        desk.done(lease)
    desk.ledger.restage(desk.one(Stage.COMMIT), floor=7)
    again = desk.claim(Stage.EMBED, budget=1000, most=10)
    assert [json.loads(lease.payload)["generation"] for lease in again] == [8, 8]
    for lease in again:
        desk.done(lease)
    assert [part.shard for part, _ in desk.ledger.committing(desk.one(Stage.COMMIT))] == [0, 1]
    assert desk.kinds(task_id) == ["accepted", "started"]
