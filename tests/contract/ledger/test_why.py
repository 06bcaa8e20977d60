"""Nothing sits in a state without a reason and a next step."""

from __future__ import annotations

import json

import pytest

from tests.contract.ledger.desk import CRASH, MODEL, SHORT, Desk
from trivet.errors import UnknownTask
from trivet.names import Stage
from trivet.values import Receipt, TaskState

PREPARES = json.dumps({"roles": ["prepare", "commit"]})
EMBEDS = json.dumps({"roles": ["embed"], "queues": [MODEL.encoder_key]})
EMBEDS_ANOTHER = json.dumps({"roles": ["embed"], "queues": ["another"]})


def alive(desk: Desk, worker: str, info: str) -> None:
    roles = [Stage(role) for role in json.loads(info)["roles"]]
    desk.ledger.heartbeat(worker, [], lease_seconds=20, roles=roles, info=info)


def test_a_queued_task_tells_its_place_and_who_is_missing(desk: Desk) -> None:
    first, second = desk.accept("a"), desk.accept("b")
    why = desk.ledger.why(second)
    assert why.reason == "It waits for a prepare worker, and none is running."
    assert why.next_step == "1 items of its lane and namespace stand before it."
    assert (why.items, why.waiting_at_stage, why.first[0].ahead) == ({"pending": 1}, 2, 1)
    alive(desk, "p", PREPARES)
    why = desk.ledger.why(first)
    assert why.reason == "It waits for a prepare worker."
    assert why.next_step == "It is the next of its lane and namespace."


def test_a_waiting_task_names_the_one_before_it(desk: Desk) -> None:
    active, waits = desk.accept(), desk.accept()
    why = desk.ledger.why(waits)
    assert (why.reason, why.items) == (f"Task {active} of the same object is active.", {})
    assert why.next_step == "It starts when that one has ended."


def test_leased_work_names_its_worker_and_the_rest_of_its_lease(desk: Desk) -> None:
    task_id = desk.accept()
    desk.one(Stage.PREPARE, "busy")
    why = desk.ledger.why(task_id)
    assert why.reason == "A prepare worker (busy) works on it."
    (item,) = why.first
    assert item.worker == "busy"
    assert item.lease_seconds is not None
    assert 0 < item.lease_seconds <= 20


def test_an_embedding_task_says_that_nobody_serves_its_encoder(desk: Desk) -> None:
    task_id = desk.staged()
    alive(desk, "e", EMBEDS_ANOTHER)
    why = desk.ledger.why(task_id)
    assert why.reason == f"It waits for an embed worker that serves {MODEL.encoder_key}, and no running one does."
    alive(desk, "f", EMBEDS)
    assert "no running one" not in desk.ledger.why(task_id).reason
    desk.claim(Stage.EMBED, "f")
    why = desk.ledger.why(task_id)
    assert why.items == {"leased": 1, "pending": 1}
    assert [item.state for item in why.first] == ["leased", "pending"]


def test_a_task_that_is_tried_again_says_why_and_when(desk: Desk) -> None:
    task_id = desk.accept()
    desk.ledger.fail(desk.one(Stage.PREPARE), CRASH, delay_seconds=30, max_attempts=3)
    why = desk.ledger.why(task_id)
    assert why.reason == "The last attempt failed: It died."
    assert why.next_step in ("It is tried again in 30 s.", "It is tried again in 29 s.")
    assert (why.first[0].state, why.first[0].attempts) == ("due", 1)


@pytest.mark.parametrize("collection", [None, "c"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_paused_work_tells_of_the_pause_whenever_it_came(desk: Desk, collection: str | None, when: str) -> None:
    scope = "ns" if collection is None else "ns/c"
    if when == "before":
        task_id = desk.accept()
        desk.ledger.pause("ns", collection, "the model is changed")
    else:
        desk.ledger.pause("ns", collection, "the model is changed")
        task_id = desk.accept()
    for _ in range(2):
        why = desk.ledger.why(task_id)
        assert why.reason == f"{scope} is paused: the model is changed."
        assert why.next_step == f"It goes on after: trivet resume {scope}"
        desk.claim(Stage.PREPARE)


def test_a_suspect_says_how_it_is_leased_next(desk: Desk) -> None:
    task_id = desk.staged(shards=2)
    desk.claim(Stage.EMBED, "dead", budget=1000, most=10, lease_seconds=SHORT)
    desk.expire()
    why = desk.ledger.why(task_id)
    assert "leased with few others next, or alone" in why.next_step
    assert all(item.suspect for item in why.first)
    assert [item.ahead for item in why.first] == [0, 1]


def test_a_committing_task_and_a_delete_wait_for_a_commit_worker(desk: Desk) -> None:
    task_id = desk.staged("a", shards=1)
    desk.done(desk.one(Stage.EMBED))
    for each in (task_id, desk.delete("b")):
        assert desk.ledger.why(each).reason == "It waits for a commit worker, and none is running."


def test_ended_tasks_say_how_and_what_can_be_done(desk: Desk) -> None:
    completed, failed = desk.committed("a"), desk.failed("b")
    cancelled = desk.accept("c")
    desk.ledger.fail(desk.one(Stage.PREPARE), CRASH, delay_seconds=30, max_attempts=3)
    desk.ledger.cancel(cancelled)
    skipped = desk.accept("a")
    desk.ledger.finish(desk.one(Stage.PREPARE), TaskState.SKIPPED, manifest="", receipt=Receipt())
    told = {task_id: desk.ledger.why(task_id) for task_id in (completed, failed, cancelled, skipped)}
    assert told[completed].reason == "Committed and visible."
    assert told[failed].reason == "It is not there."
    # What went wrong before is not why it ended.
    assert told[cancelled].reason == "Cancelled on request."
    assert told[skipped].reason.startswith("Content, pipeline and metadata unchanged")
    for task_id in (failed, cancelled):
        assert told[task_id].next_step == f"Run it again: trivet retry {task_id}"
    for task_id in (completed, skipped):
        assert told[task_id].next_step == "Nothing more happens to it."


def test_an_unknown_task_is_unknown(desk: Desk) -> None:
    with pytest.raises(UnknownTask, match="task_nope"):
        desk.ledger.why("task_nope")
