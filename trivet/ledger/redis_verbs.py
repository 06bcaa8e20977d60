"""What operators do to the ledger in Redis: retry, pause, resume, weigh, and ask why."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from trivet.ledger.redis_ringing import RedisRinging
from trivet.ledger.refusals import not_retryable, unknown_task, url_gone
from trivet.ledger.view import explain
from trivet.names import Lane, Stage
from trivet.values import ItemView, TaskState, TaskView, Waiting

_PAGE = 500
#: Open shards of one task that are looked at one by one.
_MOST_SHARDS = 2000


class RedisVerbs(RedisRinging):
    """Retries, pauses, weights and explanations. Thread-safe; open it after a fork."""

    def retry(self, task_id: str, *, secret_url: str = "") -> TaskState:
        """Run a failed or cancelled task again; see the seam."""
        outcome, state, *bells = self._run("retry", task_id, secret_url)
        if outcome == "unknown":
            raise unknown_task(task_id)
        if outcome == "ended":
            raise not_retryable(task_id, state)
        if outcome == "url_gone":
            raise url_gone(task_id)
        self._ring(bells)
        return TaskState(state)

    def pause(self, namespace: str, collection: str | None, reason: str) -> None:
        """Lease no more of it. What is in line is put aside page by page; what that misses, claims put aside."""
        scope = _scope(namespace, collection)
        self._configure("HSET", self._key("paused"), scope, json.dumps({"reason": reason}))
        flows = [f"{order}|{namespace}" for order, _ in enumerate(Lane)]
        for stage in Stage:
            for flow in flows:
                for queue in self._do(partial(self._client.smembers, self._key("lines", stage, flow))):
                    self._park(scope, stage, flow, queue)

    def _park(self, scope: str, stage: Stage, flow: str, queue: str) -> None:
        offset, looked = 0, _PAGE
        while looked == _PAGE:
            looked, stay = (int(n) for n in self._run("pause", scope, stage, flow, queue, offset, _PAGE))
            offset += stay

    def resume(self, namespace: str, collection: str | None) -> bool:
        """Take it up again. If this is cut short, the sweep goes on with it."""
        was, left = False, 1
        while left:
            paused, left, *bells = self._run("resume", _scope(namespace, collection), _PAGE)
            self._ring(bells)
            was = was or bool(paused)
        return was

    def set_weight(self, namespace: str, weight: float) -> None:
        """The namespace's share where several wait."""
        self._configure("HSET", self._key("weights"), namespace, weight)

    def why(self, task_id: str) -> Waiting:
        """Why a task is where it is, and what comes next."""
        view = self.task(task_id)
        if view is None:
            raise unknown_task(task_id)
        items = [ItemView.model_validate_json(text) for text in self._run("why", task_id, _MOST_SHARDS)]
        waiting: dict[str, Any] = {}
        if items:
            waiting = self._do(lambda: self._client.hgetall(self._key("waiting", items[0].stage)))
        blocker = None
        if view.state is TaskState.WAITING:
            key = self._key("object", view.namespace, view.collection, view.object_id)
            blocker = self._do(lambda: self._client.hget(key, "active"))
        return explain(
            view,
            items,
            at_stage=sum(int(n) for n in waiting.values()),
            paused=self.paused(),
            workers=self.backlog().workers,
            blocker=blocker,
        )

    def dead(self, namespace: str, limit: int) -> list[TaskView]:
        """Failed tasks, newest first."""
        found: list[TaskView] = []
        start = 0
        while len(found) < limit:
            ids = self._do(partial(self._client.zrevrange, self._key("dead"), start, start + _PAGE - 1))
            if not ids:
                break
            found += [view for view in self._views(ids) if view is not None and view.namespace == namespace]
            start += _PAGE
        return found[:limit]

    def remove_collection(self, namespace: str, name: str) -> bool:
        """Take no more requests for it."""
        return self._configure("HDEL", self._key("collections", namespace), name)

    def _configure(self, *arguments: Any) -> bool:
        """Change one entry of a hash; whether anything changed."""
        return bool(self._run("configure", *arguments)[0])


def _scope(namespace: str, collection: str | None) -> str:
    return namespace if collection is None else f"{namespace}/{collection}"
