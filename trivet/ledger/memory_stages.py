"""The way of a task through the twin: what the workers of each stage do to it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from trivet.errors import LeaseLost
from trivet.ledger.memory_intake import MemoryIntake
from trivet.ledger.memory_state import Row
from trivet.names import ANY, EventKind, Stage
from trivet.values import ErrorRecord, Lease, Part, Receipt, Spec, TaskState, dump


class MemoryStages(MemoryIntake):
    """Allocate, stage, write shards, commit, end and fail."""

    def allocate(self, lease: Lease, floor: int, spec: Spec) -> tuple[int, Spec]:
        with self._lock:
            task = self._held(lease)
            task.spec = task.spec or spec
            self._specs[task.spec.hash] = task.spec
            return self._generation(task, floor), task.spec

    def take_generation(self, lease: Lease, floor: int) -> int:
        with self._lock:
            return self._generation(self._held(lease), floor)

    def _generation(self, task: Row, floor: int) -> int:
        return self._next_generation(task, floor) if task.generation is None else task.generation

    def spec(self, spec_hash: str) -> Spec:
        if spec_hash not in self._specs:
            raise LeaseLost(f"The ledger holds no spec {spec_hash}.")
        return self._specs[spec_hash]

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
        with self._lock:
            if self._again("stage", lease):
                return
            task = self._held(lease)
            task.applied["stage"] = lease.epoch
            task.told = self._clock.now()
            task.source_sha256, task.queue, task.shards = source_sha256, queue, len(shards)
            task.pages, task.chunks, task.error = pages, chunks, ""
            task.tokens = sum(tokens for tokens, _ in shards)
            flow = self._queues.items[lease.item].flow
            self._queues.charge_flow(Stage.PREPARE, flow, fetched_bytes - task.new.estimated_bytes)
            self._queues.forget(lease.item)
            self._stage_shards(lease.task_id, shards)
            figures = {"pages": pages, "chunks": chunks, "tokens": task.tokens, "shards": len(shards)}
            self._emit(lease.task_id, EventKind.STARTED, **figures)
        self._ring()

    def _stage_shards(self, task_id: str, shards: Sequence[tuple[int, str]]) -> None:
        task, ahead = self._tasks[task_id], 0
        for n, (tokens, hashed) in enumerate(shards):
            self._create(task_id, Stage.EMBED, task.queue, n, tokens, ahead, hashed)
            ahead += tokens
        self._staged[task.model] = self._staged.get(task.model, 0) + ahead
        self._set(task, TaskState.EMBEDDING)

    def shard_done(self, lease: Lease, part: Part, passport: str) -> None:
        with self._lock:
            known = self._tasks.get(lease.task_id)
            if known is not None and known.done.get(lease.n) == lease.epoch:
                return
            task = self._held(lease)
            task.done[lease.n] = lease.epoch
            task.parts[lease.n] = (part, passport)
            task.tokens_done += lease.cost
            now = task.updated = self._clock.now()
            self._staged[task.model] -= self._queues.forget(lease.item)
            if len(task.parts) == task.shards:
                self._create(lease.task_id, Stage.COMMIT, ANY, 0, 1, 0)
            elif task.told is not None and now - task.told >= self._progress_seconds:
                task.told = now
                names = ("shards", "tokens", "tokens_done")
                figures = {"shards_done": len(task.parts), **{name: getattr(task, name) for name in names}}
                self._emit(lease.task_id, EventKind.PROGRESS, len(task.parts), **figures)
        self._ring()

    def committing(self, lease: Lease) -> list[tuple[Part, str]]:
        with self._lock:
            task = self._held(lease)
            self._set(task, TaskState.COMMITTING)
            return [task.parts[n] for n in sorted(task.parts)]

    def restage(self, lease: Lease, floor: int) -> None:
        with self._lock:
            task = self._held(lease)
            self._next_generation(task, floor)
            task.tokens_done = 0
            self._queues.forget(lease.item)
            if not task.shards:
                # A delete has nothing but its tombstone to write.
                self._create(lease.task_id, Stage.COMMIT, ANY, 0, 1, 0)
            else:
                shards = [(part.tokens, part.input_hash) for _, (part, _) in sorted(task.parts.items())]
                task.parts, task.done = {}, {}
                self._stage_shards(lease.task_id, shards)
        self._ring()

    def finish(self, lease: Lease, state: TaskState, *, manifest: str, receipt: Receipt) -> None:
        with self._lock:
            if self._again("finish", lease):
                return
            task = self._held(lease)
            task.applied["finish"] = lease.epoch
            task.manifest, task.error = manifest, ""
            self._finish(lease.task_id, state, manifest=manifest or None, receipt=json.loads(receipt.model_dump_json()))
        self._ring()

    def fail(
        self,
        lease: Lease,
        error: ErrorRecord,
        *,
        delay_seconds: float,
        max_attempts: int,
        patience_seconds: float | None = None,
    ) -> str:
        with self._lock:
            if self._again("fail", lease):
                return "again"
            task = self._held(lease)
            task.applied["fail"] = lease.epoch
            item = self._queues.items[lease.item]
            now = self._clock.now()
            if patience_seconds is not None and error.transient:
                item.outage += now - item.taken_at
                over = item.outage >= patience_seconds
                if not over:
                    item.outage += delay_seconds
            else:
                item.attempts += 1
                over = item.attempts >= max_attempts
            task.error = dump(error)
            outcome = "retry" if error.transient and not over else "failed"
            if outcome == "failed":
                record = error.model_dump(mode="json")
                self._finish(
                    lease.task_id, TaskState.FAILED, drained=error.transient, attempts=item.attempts, error=record
                )
            else:
                item.state, item.epoch, item.owner = "due", 0, ""
                item.due_at = now + delay_seconds
        self._ring()
        return outcome
