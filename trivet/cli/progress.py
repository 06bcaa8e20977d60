"""Follows tasks to their end: bars on a terminal, one line per change elsewhere. Everything on stderr."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from trivet.cli.console import clean, err
from trivet.clock import Clock, SystemClock

if TYPE_CHECKING:
    from rich.console import Console

    from trivet.handles import TaskHandle
    from trivet.values import TaskView

_POLL_SECONDS = 0.25
#: Bars that are shown at once; more would not fit a screen.
_MOST_BARS = 16
_NAME_WIDTH = 32


class Reporter(Protocol):
    """Shows how tasks stand."""

    def update(self, view: TaskView) -> None: ...

    def close(self) -> None: ...


def follow(
    handles: Sequence[TaskHandle],
    *,
    names: Mapping[str, str],
    timeout: float | None = None,
    console: Console | None = None,
    clock: Clock | None = None,
    quiet: bool = False,
) -> list[TaskView]:
    """Wait until every task has ended and return their last views, in the order of `handles`.

    `names` says what a task id is called on the screen. Raises `TimeoutError` with the tasks that are not done.
    """
    clock = clock or SystemClock()
    reporter = Silent() if quiet else reporter_for(console or err(), names, clock)
    deadline = None if timeout is None else clock.monotonic() + timeout
    views: dict[str, TaskView] = {}
    waiting = {handle.task_id: handle for handle in handles}
    try:
        while waiting:
            for task_id, handle in list(waiting.items()):
                view = handle.status()
                views[task_id] = view
                reporter.update(view)
                if view.state.terminal:
                    del waiting[task_id]
            if waiting and deadline is not None and clock.monotonic() >= deadline:
                raise TimeoutError(f"{len(waiting)} of {len(handles)} tasks are not done after {timeout:g} s.")
            if waiting:
                clock.sleep(_POLL_SECONDS)
    finally:
        reporter.close()
    return [views[handle.task_id] for handle in handles]


def reporter_for(console: Console, names: Mapping[str, str], clock: Clock) -> Reporter:
    """Bars where there is a terminal, else lines."""
    return Bars(console, names) if console.is_terminal else Lines(console, names, clock)


class Silent:
    """Says nothing."""

    def update(self, view: TaskView) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Lines:
    """One line whenever a task changes its state or passes a quarter of its tokens."""

    def __init__(self, console: Console, names: Mapping[str, str], clock: Clock) -> None:
        self._console = console
        self._names = names
        self._clock = clock
        self._start = clock.monotonic()
        self._seen: dict[str, tuple[str, int]] = {}

    def update(self, view: TaskView) -> None:
        """Print what is new."""
        quarter = 4 * view.tokens_done // view.tokens if view.tokens else 0
        if self._seen.get(view.task_id) == (view.state, quarter):
            return
        self._seen[view.task_id] = (view.state, quarter)
        seconds = self._clock.monotonic() - self._start
        name = clean(self._names.get(view.task_id, view.object_id))
        self._console.print(f"{seconds:7.1f} s  {name:{_NAME_WIDTH}}  {view.state:10}  {figures(view)}", soft_wrap=True)

    def close(self) -> None:
        """Nothing is open."""


class Bars:
    """A bar per task, and one for all tokens where there are many tasks."""

    def __init__(self, console: Console, names: Mapping[str, str]) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._names = names
        self._bars: dict[str, Any] = {}
        self._views: dict[str, TaskView] = {}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]:10}", markup=False),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeElapsedColumn(),
            console=console,
        )
        self._all = self._progress.add_task("all", total=None, state="", figures="", visible=len(names) > 1)
        self._progress.start()

    def update(self, view: TaskView) -> None:
        """Move the task's bar, and that of all."""
        self._views[view.task_id] = view
        name = clean(self._names.get(view.task_id, view.object_id))[:_NAME_WIDTH]
        if view.task_id not in self._bars:
            self._bars[view.task_id] = self._progress.add_task(name, total=None, state="", figures="", visible=False)
        bar = self._bars[view.task_id]
        done = view.state.terminal
        # A bar without a total moves to and fro: how much there is to do is known once the source is parsed.
        total = (view.tokens or 1) if done or view.tokens else None
        self._progress.update(
            bar,
            total=total,
            completed=total if done else view.tokens_done,
            state=str(view.state),
            figures=figures(view),
            visible=self._show(view),
        )
        if done:
            self._progress.stop_task(bar)
        self._update_all()

    def _show(self, view: TaskView) -> bool:
        if len(self._names) <= _MOST_BARS:
            return True
        shown = sum(task.visible for task in self._progress.tasks)
        known = self._progress.tasks[self._bars[view.task_id]].visible
        return not view.state.terminal and bool(view.tokens) and (known or shown < _MOST_BARS)

    def _update_all(self) -> None:
        ended = sum(view.state.terminal for view in self._views.values())
        tokens = sum(view.tokens for view in self._views.values())
        self._progress.update(
            self._all,
            total=max(tokens, 1) if len(self._views) == len(self._names) and tokens else None,
            completed=sum(view.tokens_done for view in self._views.values()),
            state=f"{ended}/{len(self._names)}",
            figures=f"{tokens:,} tokens" if tokens else "",
        )

    def close(self) -> None:
        """Leave the bars as they are and give the terminal back."""
        self._progress.stop()


def figures(view: TaskView) -> str:
    """What a task has done so far, in a few words."""
    if view.error and view.state.terminal:
        return clean(view.error.message)
    if view.chunks and view.state.terminal:
        return f"{view.chunks:,} chunks, {view.tokens:,} tokens"
    if view.tokens:
        return f"{view.tokens_done:,} of {view.tokens:,} tokens"
    return ""
