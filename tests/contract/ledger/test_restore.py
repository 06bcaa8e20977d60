"""Tasks that the ledger has lost are written back as S3 remembers them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.ledger.desk import MODEL, SPEC, Desk
from trivet.errors import IdempotencyConflict
from trivet.ledger import NewTask, Restored
from trivet.names import Stage, TaskKind
from trivet.values import Collection, Receipt, TaskState, dump

CONFIG = dump(Collection(namespace="ns", name="c"))
#: Seconds since the epoch, before anything that a test accepts.
LONG_AGO = 1_600_000_000.0
HOUR = 3600.0


def lost(task: NewTask, **fields: Any) -> Restored:
    """A task that was staged when the ledger went away."""
    known: dict[str, Any] = {
        "task": task,
        "run": 1,
        "created": LONG_AGO,
        "config": CONFIG,
        "spec": SPEC,
        "generation": 4,
        "queue": MODEL.encoder_key,
        "source_sha256": "sha",
        "shards": ((100, "h0"), (200, "h1")),
        "pages": 3,
        "chunks": 7,
    }
    return Restored(**(known | fields))


def accepted(task: NewTask, **fields: Any) -> Restored:
    """A task that was only accepted."""
    return lost(task, spec=None, generation=0, queue="", source_sha256="", shards=(), pages=0, chunks=0, **fields)


def test_a_staged_task_is_embedded_and_committed_under_its_generation(desk: Desk) -> None:
    task = desk.task()
    assert desk.ledger.restore(lost(task), HOUR)
    assert not desk.ledger.restore(lost(task), HOUR)
    view = desk.view(task.task_id)
    assert (view.state, view.generation, view.shards, view.tokens) == (TaskState.EMBEDDING, 4, 2, 300)
    assert view.created_at == LONG_AGO
    assert desk.ledger.backlog().staged_tokens == {MODEL.requested: 300}
    leases = desk.claim(Stage.EMBED, budget=1000, most=10)
    assert [json.loads(lease.payload)["generation"] for lease in leases] == [4, 4]
    assert desk.ledger.spec(json.loads(leases[0].payload)["spec_hash"]) == SPEC
    for lease in leases:
        desk.done(lease)
    assert desk.commit() == task.task_id
    assert desk.kinds(task.task_id) == ["started", "completed"]


@pytest.mark.parametrize("ended", [TaskState.COMPLETED, TaskState.DELETED])
def test_an_ended_task_is_known_again_and_does_nothing(desk: Desk, ended: TaskState) -> None:
    kind = TaskKind.DELETE if ended is TaskState.DELETED else TaskKind.INGEST
    task = desk.task(kind=kind)
    assert desk.ledger.restore(lost(task, ended=ended, manifest="m", receipt=Receipt(pages=3)), HOUR)
    view = desk.view(task.task_id)
    assert (view.state, view.manifest_key, view.kind, view.shards_done) == (ended, "m", kind, 2)
    assert desk.kinds(task.task_id) == [str(ended)]
    assert desk.events(task.task_id)[0].data["receipt"]["pages"] == 3
    assert [desk.claim(stage) for stage in Stage] == [[], [], []]
    # The object is free, and the next generation is above the one that S3 has.
    later = desk.accept()
    assert desk.ledger.allocate(desk.one(Stage.PREPARE), 0, SPEC)[0] == 5
    assert desk.state(later) is TaskState.PREPARING


def test_a_task_that_was_only_accepted_begins_again(desk: Desk) -> None:
    task = desk.task()
    assert desk.ledger.restore(accepted(task), HOUR)
    lease = desk.one(Stage.PREPARE)
    assert (lease.task_id, json.loads(lease.payload)["config"]) == (task.task_id, CONFIG)
    assert desk.kinds(task.task_id) == ["accepted"]


def test_a_restored_run_tells_events_of_its_run(desk: Desk) -> None:
    task = desk.task()
    desk.ledger.restore(lost(task, run=3), HOUR)
    assert desk.events(task.task_id)[0].data["run"] == desk.view(task.task_id).run == 3


def test_an_idempotency_key_is_known_again_for_what_is_left_of_its_time(desk: Desk) -> None:
    fresh, stale = desk.task("a", idempotency_key="fresh"), desk.task("b", idempotency_key="stale")
    now = desk.clock.now()
    desk.ledger.restore(lost(fresh, created=now - 10), HOUR)
    desk.ledger.restore(lost(stale, created=now - 2 * HOUR), HOUR)
    assert desk.accept("a", idempotency_key="fresh") == fresh.task_id
    with pytest.raises(IdempotencyConflict):
        desk.accept("a", idempotency_key="fresh", fingerprint="other")
    assert desk.accept("b", idempotency_key="stale") != stale.task_id


def test_a_request_that_was_repeated_stands_for_the_lost_one(desk: Desk) -> None:
    repeated = desk.accept(idempotency_key="key")
    task = desk.task(idempotency_key="key")
    assert not desk.ledger.restore(accepted(task), HOUR)
    assert desk.ledger.task(task.task_id) is None
    assert desk.accept(idempotency_key="key") == repeated


def test_a_task_that_came_since_stands(desk: Desk) -> None:
    newer = desk.accept()
    task = desk.task()
    assert desk.ledger.restore(lost(task), HOUR)
    assert [desk.state(t) for t in (task.task_id, newer)] == ["superseded", "queued"]
    assert desk.kinds(task.task_id) == ["superseded"]


def test_of_two_lost_tasks_of_one_object_the_later_stands(desk: Desk) -> None:
    older, newer = desk.task(), desk.task()
    assert desk.ledger.restore(lost(older), HOUR)
    assert desk.ledger.restore(lost(newer, created=LONG_AGO + 5, generation=5), HOUR)
    assert [desk.state(t.task_id) for t in (older, newer)] == ["superseded", "embedding"]
    assert {lease.task_id for lease in desk.claim(Stage.EMBED, budget=1000, most=10)} == {newer.task_id}
    assert desk.ledger.backlog().staged_tokens == {MODEL.requested: 300}


def test_a_collection_that_is_unknown_takes_no_task_that_was_only_accepted(desk: Desk) -> None:
    task = desk.task(collection="nowhere")
    assert not desk.ledger.restore(accepted(task, config=""), HOUR)
    assert desk.ledger.task(task.task_id) is None
