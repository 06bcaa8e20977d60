"""What garbage collection and a rebuild ask of the ledger in Redis, and what a rebuild writes back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from trivet.ledger import NewTask, Restored
from trivet.ledger.redis_turns import RedisTurns
from trivet.values import TaskState, dump

_PAGE = 500
#: What stands in the place of an object's active task while garbage collection removes something of it.
_GC = "gc"
#: In place of a secret URL that is not remembered; no URL is this.
_UNKNOWN = "?"


@dataclass(frozen=True, slots=True)
class EndedTask:
    """A task that has ended, as far as its records on S3 need to know."""

    task_id: str
    namespace: str
    collection: str
    state: TaskState
    #: Its idempotency key must be found again by a rebuild.
    keyed: bool


def told(task: NewTask, secret_url: str, idempotency_seconds: float) -> tuple[str | int, ...]:
    """What the scripts `accept` and `restore` begin with."""
    return (
        task.task_id,
        task.namespace,
        task.collection,
        task.object_id,
        task.lane,
        task.url,
        secret_url,
        task.metadata,
        task.media_type,
        task.idempotency_key,
        task.fingerprint,
        int(idempotency_seconds * 1000),
        task.estimated_bytes,
        task.kind,
    )


class RedisRestoring(RedisTurns):
    """Thread-safe; open it after a fork."""

    # ------------------------------------------------------------ rebuild

    def restore(self, restored: Restored, idempotency_seconds: float) -> bool:
        """Write back a task that the ledger has lost; False where it knows the task."""
        return self.bring_back(restored, idempotency_seconds) in ("restored", "superseded")

    def bring_back(self, restored: Restored, idempotency_seconds: float) -> str:
        """As `restore`, and says what became of it.

        `restored`; `superseded`: it is there, and has ended in favour of a later task of its object; `known`: it, or
        the task that its idempotency key stands for, was there; `unknown_collection`; `busy`: the object's active task
        is about to commit, so come again.
        """
        task = restored.task
        how = restored.ended or ("staged" if restored.spec else "accepted")
        outcome, *bells = self._run(
            "restore",
            *told(task, task.secret_url if restored.url_known else _UNKNOWN, idempotency_seconds),
            restored.run,
            int(restored.created * 1000),
            restored.config,
            how,
            restored.spec.hash if restored.spec else "",
            dump(restored.spec) if restored.spec else "",
            restored.generation,
            restored.queue,
            restored.source_sha256,
            restored.pages,
            restored.chunks,
            restored.manifest,
            dump(restored.receipt) if restored.receipt else "{}",
            *(value for shard in restored.shards for value in shard),
        )
        self._ring(bells)
        return str(outcome)

    def known(self, task_ids: Sequence[str]) -> set[str]:
        """Those that the ledger has, in whatever state."""
        return set(self.states(task_ids))

    def states(self, task_ids: Sequence[str]) -> dict[str, TaskState]:
        """The state of each that the ledger has."""
        rows = self._rows(task_ids, "state")
        return {task_id: TaskState(row[0]) for task_id, row in zip(task_ids, rows, strict=True) if row[0]}

    # ------------------------------------------------------------ garbage collection

    def object_busy(self, namespace: str, collection: str, object_id: str) -> bool:
        """Whether a task of the object is active or waits."""
        key = self._key("object", namespace, collection, object_id)
        return any(self._do(lambda: self._client.hmget(key, "active", "waiting")))

    def shut_object(self, owner: str, namespace: str, collection: str, object_id: str) -> bool:
        """Let no task of the object start until it is opened; False where one is active or waits. One at a time.

        Raises `TransientError` where it is not this process' turn.
        """
        place = (namespace, collection, object_id)
        return self._shut("gc_turn", owner, _GC, place, "/".join(place))

    def open_object(self, owner: str, namespace: str, collection: str, object_id: str) -> None:
        """Let its tasks start again, those that came meanwhile too; nothing happens out of turn."""
        self._ring(self._open("gc_turn", owner, _GC, (namespace, collection, object_id)))

    def open_what_was_shut(self, owner: str) -> None:
        """Whoever shut an object and died has left it so."""
        left = self._do(lambda: self._client.get(self._key("purge_shut", _GC)))
        if left:
            namespace, collection, object_id = left.split("/")
            self.open_object(owner, namespace, collection, object_id)

    def ended(self, task_ids: Sequence[str]) -> set[str]:
        """Those that the ledger has and that have ended. One that it does not have is not ended, but unknown."""
        return {task_id for task_id, state in self.states(task_ids).items() if state.terminal}

    def _rows(self, task_ids: Sequence[str], *fields: str) -> list[list[Any]]:
        pipe = self._client.pipeline(transaction=False)
        for task_id in task_ids:
            pipe.hmget(self._key("task", task_id), *fields)
        return list(self._do(pipe.execute))

    def now_ms(self) -> int:
        """The ledger's clock."""
        seconds, micros = self._do(self._client.time)
        return int(seconds) * 1000 + int(micros) // 1000

    def ended_between(self, after_ms: int, until_ms: int) -> Iterator[EndedTask]:
        """Tasks that ended at or after the one and before the other. One that is retried meanwhile may be missed."""
        key, offset = self._key("terminal"), 0
        while True:
            page = partial(self._client.zrangebyscore, key, after_ms, f"({until_ms}", start=offset, num=_PAGE)
            ids = self._do(page)
            rows = self._rows(ids, "namespace", "collection", "state", "idem")
            for task_id, (namespace, collection, state, idem) in zip(ids, rows, strict=True):
                # One that was retried since the page was read has its records still to need.
                if state and TaskState(state).terminal:
                    yield EndedTask(task_id, namespace, collection, TaskState(state), bool(idem))
            if len(ids) < _PAGE:
                return
            offset += _PAGE

    def sources(self, namespace: str) -> Iterator[str]:
        """The URLs, without queries, of all tasks of a namespace that the ledger knows."""
        ids = self._client.zscan_iter(self._key("tasks", namespace), count=_PAGE)
        while page := self._do(lambda: [str(name) for name, _ in islice(ids, _PAGE)]):
            yield from (str(url) for (url,) in self._rows(page, "url") if url)

    def mark(self) -> str:
        """What tells this ledger from others; empty where it has never been said."""
        return str(self._do(lambda: self._client.get(self._key("mark"))) or "")

    def set_mark(self, mark: str) -> None:
        """Say it."""
        self._do(lambda: self._client.set(self._key("mark"), mark))

    def empty(self) -> bool:
        """Whether it has neither seen a task nor a collection."""
        return not self._do(lambda: self._client.exists(self._key("states"), self._key("namespaces"))) and not any(
            True for _ in self._do(lambda: list(self._client.scan_iter(self._key("collections", "*"), count=1000)))
        )
