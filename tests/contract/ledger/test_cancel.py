"""A cancelled task leaves nothing behind."""

from __future__ import annotations

import pytest

from tests.contract.ledger.desk import CRASH, Desk
from trivet.errors import LeaseLost, TooLate, UnknownTask
from trivet.names import TERMINAL_EVENTS, Stage
from trivet.values import Receipt, TaskState


@pytest.mark.parametrize("when", ["waiting", "queued", "preparing", "embedding", "due"])
def test_a_cancelled_tasks_work_disappears_at_once(desk: Desk, when: str) -> None:
    if when == "waiting":
        desk.accept()
    task_id = desk.staged() if when == "embedding" else desk.accept()
    lease = None
    if when in ("preparing", "due"):
        lease = desk.one(Stage.PREPARE)
    if when == "embedding":
        lease = desk.claim(Stage.EMBED, budget=1000, most=1)[0]
    if when == "due" and lease:
        desk.ledger.fail(lease, CRASH, delay_seconds=0, max_attempts=3)
    assert desk.ledger.cancel(task_id) is TaskState.CANCELLED
    assert desk.ledger.cancel(task_id) is TaskState.CANCELLED
    desk.sweep()
    if lease and when != "due":
        with pytest.raises(LeaseLost):
            desk.done(lease)
    assert desk.claim(Stage.EMBED, budget=1000, most=10) == []
    assert task_id not in {lease.task_id for lease in desk.claim(Stage.PREPARE, "w2", budget=10**9, most=10)}
    assert [kind for kind in desk.kinds(task_id) if f"ingest.{kind}" in TERMINAL_EVENTS] == ["cancelled"]
    assert desk.ledger.backlog().staged_tokens == {}


def test_a_cancel_while_committing_is_too_late(desk: Desk) -> None:
    task_id = desk.staged(shards=1)
    desk.done(desk.one(Stage.EMBED))
    lease = desk.one(Stage.COMMIT)
    desk.ledger.committing(lease)
    with pytest.raises(TooLate, match="committing"):
        desk.ledger.cancel(task_id)
    desk.ledger.finish(lease, TaskState.COMPLETED, manifest="m", receipt=Receipt())
    assert desk.ledger.cancel(task_id) is TaskState.COMPLETED


def test_a_cancelled_task_makes_room_for_the_one_that_waits(desk: Desk) -> None:
    first, second = desk.accept(), desk.accept()
    desk.ledger.cancel(first)
    assert desk.state(second) is TaskState.QUEUED
    assert desk.one(Stage.PREPARE).task_id == second


def test_an_unknown_task_is_said_to_be_unknown(desk: Desk) -> None:
    with pytest.raises(UnknownTask, match="task_nope"):
        desk.ledger.cancel("task_nope")


def test_cancelled_work_is_counted_nowhere(desk: Desk) -> None:
    for n in range(3):
        desk.ledger.cancel(desk.staged(f"staged{n}"))
        desk.ledger.cancel(desk.accept(f"queued{n}"))
    left = desk.accept("left")
    why = desk.ledger.why(left)
    assert (why.waiting_at_stage, why.first[0].ahead) == (1, 0)
    backlog = desk.ledger.backlog()
    assert (backlog.states, backlog.staged_tokens) == ({"cancelled": 6, "queued": 1}, {})
    assert (backlog.leases, backlog.due) == (0, 0)
    assert desk.claim(Stage.EMBED, budget=10**6, most=10) == []
