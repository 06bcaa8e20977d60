"""Progress follows the ledger to the end of every task."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from trivet.cli.progress import Bars, follow
from trivet.clock import ManualClock
from trivet.names import Lane
from trivet.values import ErrorRecord, TaskState, TaskView


def _view(task_id: str, state: TaskState, tokens: int = 0, done: int = 0, error: str = "") -> TaskView:
    return TaskView(
        task_id=task_id,
        namespace="default",
        collection="docs",
        object_id=f"object-{task_id}",
        url="https://example.com/",
        state=state,
        lane=Lane.NORMAL,
        created_at=0,
        updated_at=0,
        tokens=tokens,
        tokens_done=done,
        chunks=tokens // 100,
        error=ErrorRecord(code="source_not_found", message=error) if error else None,
    )


class _Handle:
    """A task that goes through the given views, one per question, and then stays."""

    def __init__(self, views: Sequence[TaskView]) -> None:
        self.task_id = views[0].task_id
        self._views = list(views)

    def status(self) -> TaskView:
        return self._views.pop(0) if len(self._views) > 1 else self._views[0]


def _story(task_id: str) -> _Handle:
    states = [(TaskState.QUEUED, 0, 0), (TaskState.EMBEDDING, 400, 0), (TaskState.EMBEDDING, 400, 200)]
    return _Handle([*(_view(task_id, *state) for state in states), _view(task_id, TaskState.COMPLETED, 400, 400)])


def _console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=120, markup=False)


def _text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_all_tasks_are_followed_to_their_end_in_order(terminal: bool) -> None:
    handles = [_story("a"), _Handle([_view("b", TaskState.FAILED, error="It answered 404.")]), _story("c")]
    console = _console(terminal=terminal)
    names = {"a": "one.pdf", "b": "two.html", "c": "three\x1b[2J.md"}
    views = follow(handles, names=names, console=console, clock=ManualClock())  # type: ignore[arg-type] # stands in for a handle
    assert [view.task_id for view in views] == ["a", "b", "c"]
    assert [view.state for view in views] == ["completed", "failed", "completed"]
    shown = _text(console)
    assert "one.pdf" in shown
    assert "It answered 404." in shown
    assert "three[2J.md" in shown


def test_without_a_terminal_there_is_a_line_per_change_and_no_more() -> None:
    console = _console(terminal=False)
    follow([_story("a")], names={"a": "one.pdf"}, console=console, clock=ManualClock())  # type: ignore[list-item] # stands in for a handle
    lines = _text(console).splitlines()
    assert [line.split()[3] for line in lines] == ["queued", "embedding", "embedding", "completed"]
    assert "\x1b" not in _text(console)


def test_waiting_ends_at_the_time_limit_with_how_many_are_left() -> None:
    waiting = _Handle([_view("a", TaskState.QUEUED)])
    clock = ManualClock()
    start = clock.monotonic()
    with pytest.raises(TimeoutError, match="1 of 2 tasks"):
        follow([waiting, _story("b")], names={}, timeout=10, clock=clock, quiet=True)  # type: ignore[list-item] # stands in for a handle
    assert 10 <= clock.monotonic() - start < 11


def test_two_hundred_tasks_show_no_more_bars_than_fit() -> None:
    console = _console(terminal=True)
    names = {f"t{n}": f"object {n}" for n in range(200)}
    bars = Bars(console, names)
    for n in range(200):
        bars.update(_view(f"t{n}", TaskState.EMBEDDING, 400, 100))
    assert sum(task.visible for task in bars._progress.tasks) <= 17
    for n in range(200):
        bars.update(_view(f"t{n}", TaskState.COMPLETED, 400, 400))
    assert bars._progress.tasks[0].completed == 200 * 400
    bars.close()
