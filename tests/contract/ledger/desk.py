"""A ledger with what its contract tests do over and over."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from trivet.clock import Clock, ManualClock
from trivet.ledger import Ledger, NewTask
from trivet.ledger.redis import RedisLedger
from trivet.names import Lane, Stage, TaskKind
from trivet.values import (
    ErrorRecord,
    Event,
    Lease,
    ModelIdentity,
    Part,
    Pipeline,
    Receipt,
    Spec,
    TaskState,
    TaskView,
)

MODEL = ModelIdentity(
    requested="BAAI/bge-m3",
    name="m",
    revision="1",
    encoder_key="k" * 16,
    dimensions=8,
    colbert_dimensions=8,
    max_tokens=512,
    pooling="cls",
)
SPEC = Spec(pipeline=Pipeline(), model=MODEL)
CRASH = ErrorRecord(code="worker_crashed", message="It died.", transient=True)
SHORT = 0.2  # seconds of a lease that is meant to expire
PROGRESS = 0.2  # seconds between two progress events of a task
PERMANENT = ErrorRecord(code="source_not_found", message="It is not there.")


@dataclass
class Desk:
    """A ledger with what a test does over and over."""

    ledger: Ledger
    clock: Clock
    rung: list[tuple[Stage, str, str]] = field(default_factory=list)
    _operations: Iterator[int] = field(default_factory=itertools.count)

    def task(self, object_id: str = "o", namespace: str = "ns", lane: Lane = Lane.NORMAL, **extra: object) -> NewTask:
        fields = {
            "task_id": f"task_{next(self._operations):032x}",
            "namespace": namespace,
            "collection": "c",
            "object_id": object_id,
            "lane": lane,
            "url": "https://host/path?…",
            "secret_url": "https://host/path?token=hidden",
            "metadata": "{}",
            "media_type": "",
            "idempotency_key": "",
            "fingerprint": "f",
            "estimated_bytes": 1000,
        }
        return NewTask(**{**fields, **extra})  # type: ignore[arg-type] # named as `claim` names them  # the fields above are complete

    def accept(self, object_id: str = "o", **fields: object) -> str:
        return self.ledger.accept(self.task(object_id, **fields), 60).task_id  # type: ignore[arg-type] # named as `claim` names them  # test input

    def claim(self, stage: Stage, worker: str = "w", **how: object) -> list[Lease]:
        options = {"queues": [MODEL.encoder_key], **how}
        return self.ledger.claim(stage, worker, f"op{next(self._operations)}", **options)  # type: ignore[arg-type] # named as `claim` names them

    def one(self, stage: Stage, worker: str = "w", **how: object) -> Lease:
        (lease,) = self.claim(stage, worker, **how)
        return lease

    def staged(self, object_id: str = "o", shards: int = 2, tokens: int = 100, **fields: object) -> str:
        task_id = self.accept(object_id, **fields)
        lease = self.one(Stage.PREPARE)
        self.stage(lease, shards, tokens)
        return task_id

    def stage(self, lease: Lease, shards: int = 2, tokens: int = 100) -> None:
        self.ledger.allocate(lease, 0, SPEC)
        work = [(tokens, f"h{n}") for n in range(shards)]
        self.ledger.stage(lease, MODEL.encoder_key, "sha", work, pages=1, chunks=shards, fetched_bytes=1000)

    def done(self, lease: Lease) -> None:
        part = Part(
            shard=lease.n, key=f"k{lease.n}", sha256="s", bytes=1, rows=1, tokens=lease.cost, input_hash=f"h{lease.n}"
        )
        self.ledger.shard_done(lease, part, "{}")

    def committed(self, object_id: str = "o") -> str:
        task_id = self.staged(object_id)
        for lease in self.claim(Stage.EMBED, budget=10_000, most=10):
            self.done(lease)
        self.commit()
        return task_id

    def commit(self, state: TaskState = TaskState.COMPLETED) -> str:
        """Commit what comes next; returns its task."""
        lease = self.one(Stage.COMMIT)
        self.ledger.committing(lease)
        self.ledger.finish(lease, state, manifest="m", receipt=Receipt())
        return lease.task_id

    def failed(self, object_id: str = "o", error: ErrorRecord = PERMANENT, **fields: object) -> str:
        """A task that has failed in prepare, while nothing else waits there."""
        task_id = self.accept(object_id, **fields)
        lease = self.one(Stage.PREPARE)
        assert lease.task_id == task_id
        assert self.ledger.fail(lease, error, delay_seconds=0, max_attempts=1) == "failed"
        return task_id

    def delete(self, object_id: str = "o", **fields: object) -> str:
        return self.accept(object_id, kind=TaskKind.DELETE, url="", secret_url="", **fields)

    def view(self, task_id: str) -> TaskView:
        found = self.ledger.task(task_id)
        assert found is not None
        return found

    def state(self, task_id: str) -> TaskState:
        return self.view(task_id).state

    def events(self, task_id: str) -> list[Event]:
        return [event for _, event in self.ledger.events("0-0", 1000, 0) if event.data["task_id"] == task_id]

    def kinds(self, task_id: str) -> list[str]:
        return [event.type.removeprefix("trivet.ingest.") for event in self.events(task_id)]

    def sweep(self, max_expiries: int = 5, retention: float = 1000.0) -> int:
        swept = self.ledger.sweep(
            lease_seconds=SHORT, max_expiries=max_expiries, retention_seconds=retention, error=CRASH
        )
        return swept.expired

    def let_bells_age(self, seconds: float) -> None:
        """As if the time had passed; a real server's clock cannot be turned, so its bells are."""
        if isinstance(self.clock, ManualClock):
            self.clock.advance(seconds)
            return
        assert isinstance(self.ledger, RedisLedger)
        client, key = self.ledger._client, self.ledger._key("bells", "prepare", "any")
        for bell in client.zrange(key, 0, -1):
            client.zincrby(key, -1000 * seconds, bell)

    def expire(self, **options: int) -> int:
        """Let leases of SHORT run out, with sweeps as often as a sweeper makes them."""
        expired = self.sweep(**options)
        for _ in range(8):
            self.clock.sleep(SHORT / 5)
            expired += self.sweep(**options)
        return expired
