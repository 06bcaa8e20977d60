"""The ledger: the truth about tasks and work items. The seam, and its registry.

Every transition is one atomic step, refuses a stale epoch, and gives the same result when it is applied twice.
`redis` is the real one (Lua scripts), `memory` its twin; both pass `tests/contract/ledger`. docs/ledger.md has it all.

    accept ──► waiting ──► queued ──► preparing ──► embedding ──► committing ──► completed
                  │           │           │             │              │
                  │           │           ├► skipped    │              └► superseded (a higher generation is visible)
                  ▼           ▼           ▼             ▼
              superseded   cancelled, failed: from every state on the line (cancel: not from committing)

A delete goes queued ──► committing ──► deleted. `retry` takes failed and cancelled tasks back to waiting or queued, as
another run of the same task. `trivet.ledger.transitions` has all of it as a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from trivet.names import Lane, Stage, TaskKind
from trivet.settings import Settings
from trivet.values import Collection, ErrorRecord, Event, Lease, Part, Receipt, Spec, TaskState, TaskView, Waiting

#: Sends a doorbell: stage, door (`any`, or an encoder key) and the bell's number.
Ringer = Callable[[Stage, str, str], None]


def no_ringer(stage: Stage, door: str, bell: str) -> None:
    """Rings nowhere: for readers, and for tests that drive the stages by hand."""


@dataclass(frozen=True, slots=True)
class NewTask:
    """What `accept` writes down."""

    task_id: str
    namespace: str
    collection: str
    object_id: str
    lane: Lane
    #: Redacted.
    url: str
    #: With its query, where that differs from `url`; kept apart, and only until the task has ended well.
    secret_url: str
    metadata: str
    media_type: str
    idempotency_key: str
    fingerprint: str
    estimated_bytes: int
    kind: TaskKind = TaskKind.INGEST


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to `accept`: the task that stands for the request, which may be an older one."""

    task_id: str
    state: str
    #: False: this idempotency key or task id was there before.
    new: bool


@dataclass(frozen=True, slots=True)
class Restored:
    """A task as S3 remembers it, to be written back into a ledger that has lost it."""

    task: NewTask
    run: int
    #: Unix seconds.
    created: float
    #: JSON of the collection as it was when the task was accepted.
    config: str
    spec: Spec | None
    generation: int
    #: As `Ledger.stage` was told.
    queue: str
    source_sha256: str
    shards: tuple[tuple[int, str], ...]
    pages: int
    chunks: int
    #: Completed or deleted with this manifest and receipt; None: staged, and to be embedded.
    ended: TaskState | None = None
    manifest: str = ""
    receipt: Receipt | None = None
    #: Whether the task's URLs are all there is to know; else a retry needs it given again.
    url_known: bool = True


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep found."""

    due: int
    expired: int
    failed: int
    retained_away: int
    #: Whether it has left something for another sweep at once.
    more: bool = False


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits and what runs."""

    states: dict[str, int]
    #: Tokens that wait for an embed worker, by requested model.
    staged_tokens: dict[str, int]
    leases: int
    due: int
    dead: int
    #: Scope (namespace or namespace/collection) → why it is paused.
    paused: dict[str, str]
    #: Worker id → what it says about itself, and the seconds since it was heard of.
    workers: dict[str, dict[str, Any]]


class Ledger(Protocol):
    """Raises `LedgerUnavailable` from every method; `LeaseLost` from those that take a lease that is not ours."""

    def put_collection(self, collection: Collection, *, replace: bool) -> bool:
        """Write a collection; False where it is there already and `replace` is off."""
        ...

    def change_collection(self, was: Collection, changed: Collection, *, taken: int | None) -> bool:
        """Write `changed` for `was`; False where that is another by now, or has not taken in `taken` tasks exactly."""
        ...

    def taken(self, namespace: str, name: str) -> int:
        """How many tasks a collection of this name has ever taken in: what `change_collection` goes by."""
        ...

    def get_collection(self, namespace: str, name: str) -> Collection | None: ...

    def collections(self, namespace: str) -> list[Collection]: ...

    def accept(self, task: NewTask, idempotency_seconds: float, *, encoder_wish: str = "") -> Accepted:
        """Take a task in. Raises `UnknownCollection`, `IdempotencyConflict`; `Conflict` for another `encoder_wish`."""
        ...

    def claim(
        self,
        stage: Stage,
        worker: str,
        operation: str,
        *,
        queues: Sequence[str] = (),
        budget: int = 1,
        most: int = 1,
        lease_seconds: float = 20.0,
        max_staged_tokens: int = 1 << 60,
    ) -> list[Lease]:
        """Lease work up to `budget` (at least one item if any waits). The same operation id: the same answer."""
        ...

    def heartbeat(
        self, worker: str, leases: Iterable[Lease], *, lease_seconds: float, roles: Sequence[Stage], info: str
    ) -> set[str]:
        """Extend leases; returns the items that are no longer this worker's."""
        ...

    def release(self, leases: Iterable[Lease]) -> None:
        """Give back uncharged."""
        ...

    def farewell(self, worker: str) -> int:
        """Give back all that the worker holds and strike it off; returns how many items."""
        ...

    def allocate(self, lease: Lease, floor: int, spec: Spec) -> tuple[int, Spec]:
        """Generation and frozen spec of the task: set at the first call, the same ever after."""
        ...

    def take_generation(self, lease: Lease, floor: int) -> int:
        """Generation of a task that has no spec (a delete): set at the first call, the same ever after."""
        ...

    def spec(self, spec_hash: str) -> Spec:
        """A frozen spec by its hash. Raises `LeaseLost` where it is gone: so is every task that used it."""
        ...

    def stage(
        self,
        lease: Lease,
        queue: str,
        source_sha256: str,
        shards: Sequence[tuple[int, str]],
        *,
        pages: int,
        chunks: int,
        fetched_bytes: int,
    ) -> None:
        """Prepare is done; `shards[n]` has the tokens of shard n and the hash of its inputs."""
        ...

    def shard_done(self, lease: Lease, part: Part, passport: str) -> None:
        """A shard is written; with the last one the commit waits. `passport` is JSON, kept with the part."""
        ...

    def committing(self, lease: Lease) -> list[tuple[Part, str]]:
        """Close the door for cancels; returns all parts with their passports, by shard."""
        ...

    def restage(self, lease: Lease, floor: int) -> None:
        """Take a new generation and have all shards written again (a delete: its tombstone)."""
        ...

    def finish(self, lease: Lease, state: TaskState, *, manifest: str, receipt: Receipt) -> None:
        """End the task: completed, skipped, superseded or deleted."""
        ...

    def fail(
        self,
        lease: Lease,
        error: ErrorRecord,
        *,
        delay_seconds: float,
        max_attempts: int,
        patience_seconds: float | None = None,
    ) -> str:
        """An error of the item: `retry` after the delay, or `failed`.

        It is charged, and the item fails at its `max_attempts`th. With a `patience_seconds` nothing is charged, since
        the item has no part in it, and it fails when such errors have gone on for that long.
        """
        ...

    def cancel(self, task_id: str) -> TaskState:
        """Cancel, or say in which terminal state it was. Raises `UnknownTask` and `TooLate`."""
        ...

    def sweep(
        self, *, lease_seconds: float, max_expiries: int, retention_seconds: float, error: ErrorRecord
    ) -> Swept: ...

    # ------------------------------------------------------------ operators' verbs

    def retry(self, task_id: str, *, secret_url: str = "") -> TaskState:
        """Run a failed or cancelled task again: the same id, the next run, attempts from zero.

        `secret_url` is needed where its URL had a query and is no longer known. Raises `UnknownTask`, `NotRetryable`.
        """
        ...

    def pause(self, namespace: str, collection: str | None, reason: str) -> None:
        """Lease no more work of a collection, or of a whole namespace; what is leased goes on."""
        ...

    def resume(self, namespace: str, collection: str | None) -> bool:
        """Take it up again where it stood; False where it was not paused."""
        ...

    def paused(self) -> dict[str, str]:
        """`namespace` or `namespace/collection` → the reason that was given."""
        ...

    def set_weight(self, namespace: str, weight: float) -> None:
        """The namespace's share where several wait; 1 unless set."""
        ...

    def why(self, task_id: str) -> Waiting:
        """Why a task is where it is, and what comes next. Raises `UnknownTask`."""
        ...

    def dead(self, namespace: str, limit: int) -> list[TaskView]:
        """Failed tasks, newest first: the dead-letter list."""
        ...

    def remove_collection(self, namespace: str, name: str) -> bool:
        """Take no more requests for it; its objects and tasks stay. False where it was not there."""
        ...

    def restore(self, restored: Restored, idempotency_seconds: float) -> bool:
        """Write back a task that the ledger has lost; False where it knows the task."""
        ...

    def answer(self, stage: Stage, door: str, bell: str, *, again: bool) -> None:
        """A doorbell was heard; with `again` ring anew where work is left."""
        ...

    def task(self, task_id: str) -> TaskView | None: ...

    def tasks(self, namespace: str, *, collection: str | None, state: TaskState | None, limit: int) -> list[TaskView]:
        """Newest first."""
        ...

    def events(self, after: str, count: int, block_seconds: float) -> list[tuple[str, Event]]:
        """Events after a stream id, oldest first; waits up to `block_seconds` for the first."""
        ...

    def backlog(self) -> Backlog: ...


def open_ledger(settings: Settings, ringer: Ringer = no_ringer) -> Ledger:
    """The ledger that the settings name."""
    from trivet.ledger.redis import RedisLedger

    return RedisLedger(settings, ringer)
