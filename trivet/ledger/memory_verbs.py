"""What operators do to the twin: cancel, retry, pause, resume, weigh, and ask why."""

from __future__ import annotations

import json
from typing import Any

from trivet.ledger.memory_queues import Item
from trivet.ledger.memory_stages import MemoryStages
from trivet.ledger.memory_state import Row
from trivet.ledger.refusals import not_retryable, too_late, unknown_task, url_gone
from trivet.ledger.view import explain, task_view
from trivet.values import ItemView, TaskState, TaskView, Waiting


class MemoryVerbs(MemoryStages):
    """Cancels, retries, pauses, weights and explanations."""

    def cancel(self, task_id: str) -> TaskState:
        with self._lock:
            task = self._known(task_id)
            if task.stands.terminal:
                return task.stands
            if task.state is TaskState.COMMITTING:
                raise too_late(task_id)
            self._finish(task_id, TaskState.CANCELLED, cancelled_in=task.state)
        self._ring()
        return TaskState.CANCELLED

    def retry(self, task_id: str, *, secret_url: str = "") -> TaskState:
        with self._lock:
            task = self._known(task_id)
            if not task.stands.terminal:
                return task.stands
            if task.state not in (TaskState.FAILED, TaskState.CANCELLED):
                raise not_retryable(task_id, task.stands)
            if secret_url:
                task.secret_url, task.secret = secret_url, True
            elif task.secret and (task.secret_until is None or task.secret_until <= self._clock.now()):
                raise url_gone(task_id)
            task.begin_again()
            self._enter(task_id)
            state = task.stands
        self._ring()
        return state

    def pause(self, namespace: str, collection: str | None, reason: str) -> None:
        with self._lock:
            self._paused[_scope(namespace, collection)] = reason
            self._park_paused()

    def resume(self, namespace: str, collection: str | None) -> bool:
        with self._lock:
            scope = _scope(namespace, collection)
            was = self._paused.pop(scope, None) is not None
            for item in list(self._queues.items.values()):
                if item.parked == scope:
                    self._queues.push(item, self._clock.now())
        self._ring()
        return was

    def paused(self) -> dict[str, str]:
        return dict(sorted(self._paused.items()))

    def set_weight(self, namespace: str, weight: float) -> None:
        with self._lock:
            self._queues.weights[namespace] = weight

    def why(self, task_id: str) -> Waiting:
        with self._lock:
            self._known(task_id)
            mine = [item for item in self._queues.items.values() if item.task_id == task_id]
            stage = mine[0].stage if mine else None
            pending = [i for i in self._queues.items.values() if i.stage is stage and i.state == "pending"]
            return explain(
                self._view(task_id),
                [self._item_view(item) for item in sorted(mine, key=lambda item: item.n)],
                at_stage=len(pending),
                paused=self.paused(),
                workers=self._live(),
                blocker=self._object(self._tasks[task_id]).active,
            )

    def dead(self, namespace: str, limit: int) -> list[TaskView]:
        with self._lock:
            failed = [(task.ended, i) for i, task in self._tasks.items() if task.state is TaskState.FAILED]
            views = [self._view(task_id) for _, task_id in sorted(failed, reverse=True)]
        return [view for view in views if view.namespace == namespace][:limit]

    def remove_collection(self, namespace: str, name: str) -> bool:
        with self._lock:
            return self._collections.pop((namespace, name), None) is not None

    # ------------------------------------------------------------ steps

    def _known(self, task_id: str) -> Row:
        if task_id not in self._tasks:
            raise unknown_task(task_id)
        return self._tasks[task_id]

    def _view(self, task_id: str) -> TaskView:
        row = self._tasks[task_id]
        return task_view(task_id, row.fields(), len(row.parts))

    def _item_view(self, item: Item) -> ItemView:
        now, leased = self._clock.now(), item.state == "leased"
        return ItemView(
            stage=item.stage,
            n=item.n,
            state=item.state,
            queue=item.queue,
            ahead=self._queues.ahead(item) if item.state == "pending" else None,
            worker=item.owner if leased else None,
            lease_seconds=item.deadline - now if leased else None,
            retry_seconds=item.due_at - now if item.state == "due" else None,
            attempts=item.attempts,
            expiries=item.expiries,
            suspect=item.suspect,
        )

    def _live(self) -> dict[str, dict[str, Any]]:
        now = self._clock.now()
        return {
            worker: {**json.loads(info), "seen_seconds": round(now - at, 1)}
            for worker, (at, info) in self._workers.items()
        }


def _scope(namespace: str, collection: str | None) -> str:
    return namespace if collection is None else f"{namespace}/{collection}"
