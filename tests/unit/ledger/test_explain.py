"""Every way in which a task can stand has a reason and a next step, one sentence each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from trivet.ledger.view import explain
from trivet.names import Lane, Stage
from trivet.values import ErrorRecord, ItemView, TaskState, TaskView, Waiting

ERROR = ErrorRecord(code="source_unavailable", message="The source timed out.", transient=True)


def view(state: TaskState, error: ErrorRecord | None = None) -> TaskView:
    return TaskView(
        task_id="task_1",
        namespace="ns",
        collection="c",
        object_id="o",
        url="https://host/",
        state=state,
        lane=Lane.NORMAL,
        created_at=0.0,
        updated_at=0.0,
        error=error,
    )


def item(state: str, stage: Stage = Stage.PREPARE, n: int = 0, **fields: Any) -> ItemView:
    return ItemView(stage=stage, n=n, state=state, queue="key", **fields)


def told(
    state: TaskState,
    *items: ItemView,
    error: ErrorRecord | None = None,
    paused: Mapping[str, str] | None = None,
    workers: Mapping[str, Mapping[str, Any]] | None = None,
) -> Waiting:
    return explain(
        view(state, error), items, at_stage=7, paused=paused or {}, workers=workers or {}, blocker="task_before"
    )


@pytest.mark.parametrize("state", TaskState)
@pytest.mark.parametrize("where", ["", "pending", "leased", "due", "parked"])
def test_whatever_happens_there_is_a_reason_and_a_next_step(state: TaskState, where: str) -> None:
    waiting = told(state, *([item(where)] if where else []))
    assert waiting.reason
    assert waiting.next_step
    assert waiting.reason[-1] in ".!"
    assert "None" not in waiting.reason.replace("(None)", "")


def test_what_is_worked_on_says_most_then_what_comes_soonest() -> None:
    items = [item("parked", Stage.EMBED, 0), item("pending", Stage.EMBED, 1), item("due", Stage.EMBED, 2)]
    leased = item("leased", Stage.EMBED, 3, worker="w", lease_seconds=3.0)
    waiting = told(TaskState.EMBEDDING, *items, leased)
    assert waiting.reason == "An embed worker (w) works on it."
    assert [each.state for each in waiting.first] == ["leased", "due", "pending", "parked"]
    assert waiting.items == {"parked": 1, "pending": 1, "due": 1, "leased": 1}


def test_details_are_few_and_counts_are_whole() -> None:
    waiting = told(TaskState.EMBEDDING, *(item("pending", Stage.EMBED, n) for n in range(300)))
    assert waiting.items == {"pending": 300}
    assert [each.n for each in waiting.first] == list(range(20))
    assert waiting.waiting_at_stage == 7


def test_a_task_that_has_no_work_item_says_what_finds_out() -> None:
    assert told(TaskState.EMBEDDING).next_step == "Run: trivet audit --repair"


@pytest.mark.parametrize(
    ("workers", "reason"),
    [
        ({}, "It waits for an embed worker, and none is running."),
        ({"w": {"roles": ["prepare"]}}, "It waits for an embed worker, and none is running."),
        (
            {"w": {"roles": ["embed"], "queues": ["other"]}},
            "It waits for an embed worker that serves key, and no running one does.",
        ),
        ({"w": {"roles": ["embed"], "queues": ["other", "key"]}}, "It waits for an embed worker."),
        ({"w": {"roles": ["embed"]}}, "It waits for an embed worker."),
    ],
)
def test_the_missing_worker_is_named(workers: Mapping[str, Mapping[str, Any]], reason: str) -> None:
    assert told(TaskState.EMBEDDING, item("pending", Stage.EMBED), workers=workers).reason == reason


def test_only_what_waits_is_held_up_by_a_pause() -> None:
    paused = {"ns": "a look at it", "ns/c": "another"}
    assert told(TaskState.QUEUED, item("pending"), paused=paused).reason == "ns is paused: a look at it."
    assert told(TaskState.QUEUED, item("parked"), paused={"ns/c": "x"}).next_step.endswith("trivet resume ns/c")
    assert "works on it" in told(TaskState.PREPARING, item("leased", worker="w"), paused=paused).reason
    assert "timed out" in told(TaskState.PREPARING, item("due"), error=ERROR, paused=paused).reason


def test_the_next_try_is_counted_in_seconds_and_never_below_none() -> None:
    assert told(TaskState.PREPARING, item("due", retry_seconds=12.4), error=ERROR).next_step.endswith("in 12 s.")
    assert told(TaskState.PREPARING, item("due", retry_seconds=-3.0), error=ERROR).next_step.endswith("in 0 s.")


def test_an_error_is_the_reason_of_a_failed_task_alone() -> None:
    assert told(TaskState.FAILED, error=ERROR).reason == "The source timed out."
    assert told(TaskState.CANCELLED, error=ERROR).reason == "Cancelled on request."
