"""What the ledger's twin remembers, and the steps that its transitions share."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from trivet.clock import Clock, SystemClock
from trivet.ids import event_id
from trivet.ledger import NewTask, Ringer, no_ringer
from trivet.ledger.memory_queues import LANES, Item, Queues
from trivet.ledger.refusals import lease_lost
from trivet.names import EventKind, Stage
from trivet.values import Collection, Event, Lease, Part, Spec, TaskState


@dataclass
class Row:
    """One task."""

    new: NewTask
    config: str
    model: str
    created: float
    state: TaskState = TaskState.WAITING
    updated: float = 0.0
    ended: float | None = None
    generation: int | None = None
    spec: Spec | None = None
    source_sha256: str = ""
    queue: str = ""
    shards: int = 0
    tokens: int = 0
    tokens_done: int = 0
    pages: int = 0
    chunks: int = 0
    manifest: str = ""
    error: str = ""
    parts: dict[int, tuple[Part, str]] = field(default_factory=dict)
    applied: set[tuple[str, int]] = field(default_factory=set)

    def fields(self) -> dict[str, str]:
        """As the Redis hash of a task has them."""
        new = self.new
        return {
            "namespace": new.namespace,
            "collection": new.collection,
            "object": new.object_id,
            "url": new.url,
            "state": self.state,
            "lane": new.lane,
            "run": "1",
            "created": str(int(self.created * 1000)),
            "updated": str(int(self.updated * 1000)),
            "generation": str(self.generation or ""),
            "shards": str(self.shards),
            "tokens": str(self.tokens),
            "tokens_done": str(self.tokens_done),
            "pages": str(self.pages),
            "chunks": str(self.chunks),
            "manifest": self.manifest,
            "error": self.error,
        }


@dataclass
class Owner:
    """One object: its active task, the one that waits, and the last generation that was given out."""

    active: str | None = None
    waiting: str | None = None
    generation: int = 0


class MemoryState:
    """Rows, queues and events; `MemoryLedger` guards them by one lock."""

    def __init__(self, ringer: Ringer = no_ringer, clock: Clock | None = None) -> None:
        self._clock, self._ringer, self._lock = clock or SystemClock(), ringer, threading.RLock()
        self._collections: dict[tuple[str, str], Collection] = {}
        self._tasks: dict[str, Row] = {}
        self._objects: dict[tuple[str, str, str], Owner] = {}
        self._idempotency: dict[tuple[str, str], tuple[str, str, float]] = {}
        self._staged: dict[str, int] = {}
        self._workers: dict[str, tuple[float, str]] = {}
        self._operations: dict[str, tuple[str, list[str]]] = {}
        self._specs: dict[str, Spec] = {}
        self._events: list[tuple[str, Event]] = []
        self._queues = Queues()
        self._epoch = self._turn = 0
        self._swept: float | None = None
        self._grace_until = 0.0

    # ------------------------------------------------------------ plumbing

    def _ring(self) -> None:
        bells, self._queues.bells = self._queues.bells, []
        for stage, door, bell in bells:
            self._ringer(stage, door, bell)

    def _emit(self, task_id: str, kind: EventKind, **extra: Any) -> None:
        task = self._tasks[task_id]
        new, now = task.new, self._clock.now()
        data = {
            "task_id": task_id,
            "namespace": new.namespace,
            "collection": new.collection,
            "object_id": new.object_id,
            "url": new.url,
            "run": 1,
            "state": task.state,
            "lane": new.lane,
            "generation": task.generation,
        }
        event = Event(
            id=event_id(task_id, 1, kind),
            source=f"trivet/{new.namespace}/{new.collection}",
            type=f"trivet.{kind}",
            subject=new.object_id,
            time=datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            data={**{key: value for key, value in data.items() if value is not None}, **extra},
        )
        self._events.append((f"{int(now * 1000)}-{len(self._events)}", event))

    def _set(self, task: Row, state: TaskState) -> None:
        task.state, task.updated = state, self._clock.now()

    def _held(self, lease: Lease) -> Row:
        item = self._queues.items.get(lease.item)
        if item is None or item.state != "leased" or item.epoch != lease.epoch:
            raise lease_lost(lease.item)
        return self._tasks[lease.task_id]

    def _again(self, name: str, lease: Lease) -> bool:
        """Whether this very transition was applied before."""
        task = self._tasks.get(lease.task_id)
        return task is not None and (f"{name}/{lease.n}", lease.epoch) in task.applied

    def _create(self, task_id: str, stage: Stage, queue: str, n: int, cost: int, ahead: int, hashed: str = "") -> None:
        new = self._tasks[task_id].new
        flow = f"{LANES[new.lane][0]}|{new.namespace}"
        self._queues.create(Item(task_id, stage, n, queue, flow, 0.0, cost, hashed), ahead, self._clock.now())

    def _start(self, task_id: str) -> None:
        task = self._tasks[task_id]
        self._object(task).active = task_id
        self._set(task, TaskState.QUEUED)
        self._create(task_id, Stage.PREPARE, task.model, 0, task.new.estimated_bytes, 0)

    def _object(self, task: Row) -> Owner:
        new = task.new
        return self._objects.setdefault((new.namespace, new.collection, new.object_id), Owner())

    def _finish(self, task_id: str, state: TaskState, **extra: Any) -> None:
        task = self._tasks[task_id]
        self._queues.forget(f"{task_id}/prepare/0")
        self._queues.forget(f"{task_id}/commit/0")
        left = sum(self._queues.forget(f"{task_id}/embed/{n}") for n in range(task.shards))
        self._staged[task.model] = self._staged.get(task.model, 0) - left
        self._set(task, state)
        task.ended = self._clock.now()
        self._emit(task_id, EventKind(f"ingest.{state}"), **extra)
        owner = self._object(task)
        if owner.active == task_id:
            owner.active, following, owner.waiting = None, owner.waiting, None
            if following:
                self._start(following)
        elif owner.waiting == task_id:
            owner.waiting = None
