"""What the ledger's twin remembers, and the steps that its transitions share."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from trivet.clock import Clock, SystemClock
from trivet.ids import event_id
from trivet.ledger import NewTask, Ringer, no_ringer
from trivet.ledger.memory_queues import LANES, Item, Queues
from trivet.ledger.refusals import lease_lost
from trivet.ledger.transitions import ALLOWED
from trivet.names import ANY, EventKind, Stage, TaskKind
from trivet.values import Collection, Event, Lease, Part, Spec, TaskState


@dataclass
class Row:
    """One task."""

    new: NewTask
    config: str
    model: str
    created: float
    secret_url: str = ""
    #: Whether its URL has a query, known or no longer known.
    secret: bool = False
    #: When the URL with its query is forgotten; None while the task may need it.
    secret_until: float | None = None
    run: int = 1
    #: None until it has entered.
    state: TaskState | None = None
    updated: float = 0.0
    #: Written back from S3.
    restored: bool = False
    ended: float | None = None
    generation: int | None = None
    spec: Spec | None = None
    source_sha256: str = ""
    queue: str = ""
    shards: int = 0
    shards_done: int = 0
    tokens: int = 0
    tokens_done: int = 0
    pages: int = 0
    chunks: int = 0
    manifest: str = ""
    error: str = ""
    #: When progress was last told.
    told: float | None = None
    parts: dict[int, tuple[Part, str]] = field(default_factory=dict)
    #: Shard → epoch that wrote it; transition → epoch that did it last.
    done: dict[int, int] = field(default_factory=dict)
    applied: dict[str, int] = field(default_factory=dict)

    @property
    def stands(self) -> TaskState:
        """Its state, once it has one."""
        assert self.state is not None
        return self.state

    def fields(self) -> dict[str, str]:
        """As the Redis hash of a task has them."""
        new = self.new
        return {
            "namespace": new.namespace,
            "collection": new.collection,
            "object": new.object_id,
            "kind": new.kind,
            "url": new.url,
            "state": self.stands,
            "lane": new.lane,
            "run": str(self.run),
            "created": str(int(self.created * 1000)),
            "updated": str(int(self.updated * 1000)),
            "generation": str(self.generation or ""),
            "queue": self.queue,
            "shards": str(self.shards),
            "shards_done": str(self.shards_done or ""),
            "tokens": str(self.tokens),
            "tokens_done": str(self.tokens_done),
            "pages": str(self.pages),
            "chunks": str(self.chunks),
            "manifest": self.manifest,
            "error": self.error,
        }

    def begin_again(self) -> None:
        """Forget what the last run came to; the pipeline stays as it was accepted."""
        self.run += 1
        self.ended = self.generation = self.spec = self.told = self.secret_until = None
        self.source_sha256 = self.queue = self.manifest = self.error = ""
        self.shards = self.shards_done = self.tokens = self.tokens_done = self.pages = self.chunks = 0
        self.applied = {}


@dataclass
class Owner:
    """One object: its active task, the one that waits, and the last generation that was given out."""

    active: str | None = None
    waiting: str | None = None
    generation: int = 0
    #: The latest of the tasks that were written back.
    newest: str | None = None


class MemoryState:
    """Rows, queues and events; `MemoryLedger` guards them by one lock."""

    def __init__(
        self,
        ringer: Ringer = no_ringer,
        clock: Clock | None = None,
        *,
        progress_seconds: float = 5.0,
        secret_seconds: float = 86_400.0,
    ) -> None:
        self._clock, self._ringer, self._lock = clock or SystemClock(), ringer, threading.RLock()
        self._progress_seconds, self._secret_seconds = progress_seconds, secret_seconds
        self._collections: dict[tuple[str, str], Collection] = {}
        self._taken: Counter[tuple[str, str]] = Counter()
        self._tasks: dict[str, Row] = {}
        self._objects: dict[tuple[str, str, str], Owner] = {}
        self._idempotency: dict[tuple[str, str], tuple[str, str, float]] = {}
        self._staged: dict[str, int] = {}
        self._workers: dict[str, tuple[float, str]] = {}
        self._operations: dict[str, tuple[str, list[str]]] = {}
        self._specs: dict[str, Spec] = {}
        self._events: list[tuple[str, Event]] = []
        self._queues = Queues()
        #: Scope → why.
        self._paused: dict[str, str] = {}
        self._epoch = 0
        #: Claims while suspects waited, by stage; workers that are to come back free for one.
        self._turns: Counter[Stage] = Counter()
        self._owed: set[str] = set()
        self._swept: float | None = None
        self._grace_until = 0.0

    # ------------------------------------------------------------ plumbing

    def _ring(self) -> None:
        bells, self._queues.bells = self._queues.bells, []
        for stage, door, bell in bells:
            self._ringer(stage, door, bell)

    def _emit(self, task_id: str, kind: EventKind, nth: int | None = None, **extra: Any) -> None:
        """`nth` tells several of one kind and run apart."""
        task = self._tasks[task_id]
        new, now = task.new, self._clock.now()
        data = {
            "task_id": task_id,
            "namespace": new.namespace,
            "collection": new.collection,
            "object_id": new.object_id,
            "url": new.url,
            "run": task.run,
            "state": task.state,
            "lane": new.lane,
            "generation": task.generation,
        }
        event = Event(
            id=event_id(task_id, task.run, kind if nth is None else f"{kind}/{nth}"),
            source=f"trivet/{new.namespace}/{new.collection}",
            type=f"trivet.{kind}",
            subject=new.object_id,
            time=datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            data={**{key: value for key, value in data.items() if value is not None}, **extra},
        )
        self._events.append((f"{int(now * 1000)}-{len(self._events)}", event))

    def _set(self, task: Row, state: TaskState) -> None:
        if state is task.state:
            return
        assert (task.state, state) in ALLOWED, f"{task.new.task_id}: {task.state} to {state}"
        task.state, task.updated = state, self._clock.now()

    def _holds(self, lease: Lease) -> Item | None:
        item = self._queues.items.get(lease.item)
        return item if item and item.state == "leased" and item.epoch == lease.epoch else None

    def _held(self, lease: Lease) -> Row:
        if self._holds(lease) is None:
            raise lease_lost(lease.item)
        return self._tasks[lease.task_id]

    def _again(self, name: str, lease: Lease) -> bool:
        """Whether this very transition was the last of its name."""
        task = self._tasks.get(lease.task_id)
        return task is not None and task.applied.get(name) == lease.epoch

    def _object(self, task: Row) -> Owner:
        new = task.new
        return self._objects.setdefault((new.namespace, new.collection, new.object_id), Owner())

    def _next_generation(self, task: Row, floor: int) -> int:
        owner = self._object(task)
        owner.generation = task.generation = max(owner.generation, floor) + 1
        return task.generation

    # ------------------------------------------------------------ pauses

    def _scope_of(self, task_id: str) -> str | None:
        """The paused scope that a task is in."""
        new = self._tasks[task_id].new
        scopes = (new.namespace, f"{new.namespace}/{new.collection}")
        return next((scope for scope in scopes if scope in self._paused), None)

    def _park_paused(self) -> None:
        for item in list(self._queues.items.values()) if self._paused else ():
            if item.state == "pending" and (scope := self._scope_of(item.task_id)):
                self._queues.park(item, scope)

    # ------------------------------------------------------------ how tasks begin and end

    def _create(self, task_id: str, stage: Stage, queue: str, n: int, cost: int, ahead: int, hashed: str = "") -> None:
        new = self._tasks[task_id].new
        flow = f"{LANES[new.lane][0]}|{new.namespace}"
        self._queues.create(Item(task_id, stage, n, queue, flow, 0.0, cost, hashed), ahead, self._clock.now())

    def _enter(self, task_id: str) -> None:
        """Let a task begin where its object is free; else it waits, and waiters coalesce to the newest."""
        task = self._tasks[task_id]
        owner = self._object(task)
        if owner.active is None:
            self._start(task_id)
            self._emit(task_id, EventKind.ACCEPTED)
            return
        self._set(task, TaskState.WAITING)
        self._emit(task_id, EventKind.ACCEPTED)
        old, owner.waiting = owner.waiting, task_id
        if old and old != task_id:
            self._finish(old, TaskState.SUPERSEDED, superseded_by=task_id)

    def _start(self, task_id: str) -> None:
        task = self._tasks[task_id]
        self._object(task).active = task_id
        self._set(task, TaskState.QUEUED)
        if task.new.kind is TaskKind.DELETE:
            self._create(task_id, Stage.COMMIT, ANY, 0, 1, 0)
        else:
            self._create(task_id, Stage.PREPARE, task.model, 0, task.new.estimated_bytes, 0)

    def _finish(self, task_id: str, state: TaskState, *, drained: bool = False, **extra: Any) -> None:
        """End a task; `drained`: it has used up its attempts, and an operator should look."""
        task = self._tasks[task_id]
        self._queues.forget(f"{task_id}/prepare/0")
        self._queues.forget(f"{task_id}/commit/0")
        left = sum(self._queues.forget(f"{task_id}/embed/{n}") for n in range(task.shards))
        self._staged[task.model] = self._staged.get(task.model, 0) - left
        self._set(task, state)
        task.ended = self._clock.now()
        task.shards_done, task.parts, task.done = len(task.parts), {}, {}
        if state in (TaskState.FAILED, TaskState.CANCELLED) and self._secret_seconds > 0:
            task.secret_until = task.ended + self._secret_seconds
        else:
            task.secret_url = ""
        self._emit(task_id, EventKind(f"ingest.{state}"), **extra)
        if drained:
            self._emit(task_id, EventKind.DEAD_LETTERED, **extra)
        owner = self._object(task)
        if owner.active == task_id:
            owner.active, following, owner.waiting = None, owner.waiting, None
            if following:
                self._start(following)
        elif owner.waiting == task_id:
            owner.waiting = None
