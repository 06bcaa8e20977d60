"""One task as a client holds it: ask, wait, retry, cancel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trivet.clock import Clock
from trivet.errors import InvalidRequest, NotRetryable, UnknownTask
from trivet.ids import redact_url
from trivet.ledger.redis import RedisLedger
from trivet.ledger.refusals import unknown_task
from trivet.values import TaskView, Waiting


@dataclass(frozen=True, slots=True)
class Retried:
    """What `retry_failed` did."""

    task_ids: tuple[str, ...]
    #: Task id → why it cannot be run again.
    refused: dict[str, str]


def run_again(ledger: RedisLedger, views: Iterable[TaskView]) -> Retried:
    """Let failed tasks be done once more."""
    retried, refused = [], {}
    for view in views:
        try:
            ledger.retry(view.task_id)
        except (NotRetryable, UnknownTask) as error:
            refused[view.task_id] = str(error)
        else:
            retried.append(view.task_id)
    return Retried(tuple(retried), refused)


class TaskHandle:
    """One task: ask, wait, cancel."""

    def __init__(self, ledger: RedisLedger, task_id: str, clock: Clock, *, new: bool = True) -> None:
        self.task_id = task_id
        #: False where the idempotency key had been used before: this is the task of that time.
        self.new = new
        self._ledger = ledger
        self._clock = clock

    def __repr__(self) -> str:
        return f"TaskHandle({self.task_id!r})"

    def status(self) -> TaskView:
        """The task as it stands. Raises `UnknownTask` once its retention is over."""
        view = self._ledger.task(self.task_id)
        if view is None:
            raise unknown_task(self.task_id)
        return view

    def wait(self, timeout: float | None = None) -> TaskView:
        """Wait until the task has ended, or raise `TimeoutError` after `timeout` seconds.

        A failed task is returned, not raised: look at `state` and `error`.
        """
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        pause = 0.05
        while True:
            view = self.status()
            if view.state.terminal:
                return view
            left = pause if deadline is None else min(pause, deadline - self._clock.monotonic())
            if left <= 0:
                raise TimeoutError(f"Task {self.task_id} is still {view.state} after {timeout:g} s: {view.reason}.")
            self._clock.sleep(left)
            pause = min(pause * 1.5, 1.0)

    def why(self) -> Waiting:
        """Why the task is where it is, and what comes next."""
        return self._ledger.why(self.task_id)

    def retry(self, *, url: str = "") -> TaskView:
        """Run a failed or cancelled task again, as the next run of the same task.

        `url` is needed where the task's own had a query or credentials and has failed too long ago. Raises
        `NotRetryable`, `UnknownTask`.
        """
        if url:
            _check_same_source(self.status(), url)
        self._ledger.retry(self.task_id, secret_url=url)
        return self.status()

    def cancel(self) -> TaskView:
        """Cancel the task, wherever it is. Raises `TooLate` while it commits; an ended task stays as it is."""
        self._ledger.cancel(self.task_id)
        return self.status()


def _check_same_source(view: TaskView, url: str) -> None:
    if redact_url(url) != view.url:
        raise InvalidRequest(
            f"Task {view.task_id} is of {view.url!r}, and {redact_url(url)!r} is another source.",
            hint="Only what follows the path may differ; ingest another source as a task of its own.",
        )
