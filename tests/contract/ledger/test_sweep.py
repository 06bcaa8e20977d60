"""What nobody looks after, somebody finds."""

from __future__ import annotations

from tests.contract.ledger.desk import Desk
from trivet.names import Stage


def test_lost_doorbells_are_rung_again(desk: Desk) -> None:
    desk.accept()
    desk.ledger.answer(*desk.rung.pop(), again=False)
    desk.sweep()
    assert [stage for stage, _, _ in desk.rung] == [Stage.PREPARE]


def test_an_answer_rings_again_only_where_work_is_left(desk: Desk) -> None:
    desk.accept()
    bell = desk.rung.pop()
    desk.ledger.answer(*bell, again=True)
    assert len(desk.rung) == 1
    desk.one(Stage.PREPARE)
    desk.ledger.answer(*desk.rung.pop(), again=True)
    assert desk.rung == []


def test_a_door_that_nobody_answers_is_rung_less_and_less(desk: Desk) -> None:
    desk.accept()
    for _ in range(60):
        desk.let_bells_age(0.31)
        desk.sweep()
    assert len(desk.rung) < 20
    before = len(desk.rung)
    desk.ledger.heartbeat("new", [], lease_seconds=20, roles=[Stage.PREPARE], info="{}")
    desk.sweep()
    assert len(desk.rung) > before


def test_ended_tasks_leave_after_their_retention_and_others_stay(desk: Desk) -> None:
    ended, alive = desk.committed("a"), desk.accept("b")
    desk.clock.sleep(0.1)
    desk.sweep(retention=0.05)
    assert desk.ledger.task(ended) is None
    assert desk.ledger.task(alive) is not None
    assert [view.task_id for view in desk.ledger.tasks("ns", collection=None, state=None, limit=10)] == [alive]
