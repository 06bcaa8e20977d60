"""The ledger's twin: the same transitions in one process, for tests and as the model to hold Redis against."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from trivet.errors import LeaseLost
from trivet.ledger import Backlog, Ledger, Swept
from trivet.ledger.memory_intake import MemoryIntake
from trivet.ledger.memory_queues import Item
from trivet.ledger.refusals import too_late, unknown_task
from trivet.ledger.view import task_view
from trivet.names import ANY, EventKind, Stage
from trivet.values import ErrorRecord, Event, Lease, Part, Receipt, Spec, TaskState, TaskView, dump


class MemoryLedger(MemoryIntake, Ledger):
    """Thread-safe by one lock; rings after it has let go of it."""

    def heartbeat(
        self, worker: str, leases: Iterable[Lease], *, lease_seconds: float, roles: Sequence[Stage], info: str
    ) -> set[str]:
        with self._lock:
            now = self._clock.now()
            self._workers[worker] = (now, info)
            for role in roles:
                if worker not in self._queues.slots[role]:
                    self._queues.slots[role].add(worker)
                    self._queues.newcomer(role)
            lost = set()
            for lease in leases:
                item = self._queues.items.get(lease.item)
                if item and item.state == "leased" and item.epoch == lease.epoch:
                    item.deadline = now + lease_seconds
                else:
                    lost.add(lease.item)
            return lost

    def release(self, leases: Iterable[Lease]) -> None:
        with self._lock:
            for lease in leases:
                item = self._queues.items.get(lease.item)
                if item and item.state == "leased" and item.epoch == lease.epoch:
                    self._queues.push(item, self._clock.now(), back=True)
        self._ring()

    def farewell(self, worker: str) -> int:
        with self._lock:
            mine = [item for item in self._queues.items.values() if item.owner == worker]
            for item in mine:
                self._queues.push(item, self._clock.now(), back=True)
            self._workers.pop(worker, None)
            for slots in self._queues.slots.values():
                slots.discard(worker)
        self._ring()
        return len(mine)

    def allocate(self, lease: Lease, floor: int, spec: Spec) -> tuple[int, Spec]:
        with self._lock:
            task = self._held(lease)
            task.spec = task.spec or spec
            self._specs[task.spec.hash] = task.spec
            if task.generation is None:
                owner = self._object(task)
                owner.generation = task.generation = max(owner.generation, floor) + 1
            return task.generation, task.spec

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
            task.applied.add((f"stage/{lease.n}", lease.epoch))
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
            if self._again("done", lease):
                return
            task = self._held(lease)
            task.applied.add((f"done/{lease.n}", lease.epoch))
            task.parts[lease.n] = (part, passport)
            task.tokens_done += lease.cost
            task.updated = self._clock.now()
            self._staged[task.model] -= self._queues.forget(lease.item)
            if len(task.parts) == task.shards:
                self._create(lease.task_id, Stage.COMMIT, ANY, 0, 1, 0)
        self._ring()

    def committing(self, lease: Lease) -> list[tuple[Part, str]]:
        with self._lock:
            task = self._held(lease)
            self._set(task, TaskState.COMMITTING)
            return [task.parts[n] for n in sorted(task.parts)]

    def restage(self, lease: Lease, floor: int) -> None:
        with self._lock:
            task = self._held(lease)
            owner = self._object(task)
            owner.generation = task.generation = max(owner.generation, floor) + 1
            task.tokens_done = 0
            task.applied = {(name, epoch) for name, epoch in task.applied if not name.startswith("done/")}
            shards = [(part.tokens, part.input_hash) for _, (part, _) in sorted(task.parts.items())]
            task.parts = {}
            self._queues.forget(lease.item)
            self._stage_shards(lease.task_id, shards)
        self._ring()

    def finish(self, lease: Lease, state: TaskState, *, manifest: str, receipt: Receipt) -> None:
        with self._lock:
            if self._again("finish", lease):
                return
            task = self._held(lease)
            task.applied.add((f"finish/{lease.n}", lease.epoch))
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
            task.applied.add((f"fail/{lease.n}", lease.epoch))
            item = self._queues.items[lease.item]
            now = self._clock.now()
            if patience_seconds is not None and error.transient:
                item.trouble = now if item.trouble is None else item.trouble
                over = now - item.trouble >= patience_seconds
            else:
                item.attempts += 1
                over = item.attempts >= max_attempts
            task.error = dump(error)
            outcome = "retry" if error.transient and not over else "failed"
            if outcome == "failed":
                record = error.model_dump(mode="json")
                self._finish(lease.task_id, TaskState.FAILED, attempts=item.attempts, error=record)
            else:
                item.state, item.epoch, item.owner = "due", 0, ""
                item.due_at = now + delay_seconds
        self._ring()
        return outcome

    def cancel(self, task_id: str) -> TaskState:
        with self._lock:
            task = self._tasks.get(task_id)
            if task is None:
                raise unknown_task(task_id)
            if task.state.terminal:
                return task.state
            if task.state is TaskState.COMMITTING:
                raise too_late(task_id)
            self._finish(task_id, TaskState.CANCELLED, cancelled_in=task.state)
        self._ring()
        return TaskState.CANCELLED

    def sweep(self, *, lease_seconds: float, max_expiries: int, retention_seconds: float, error: ErrorRecord) -> Swept:
        with self._lock:
            now = self._clock.now()
            due = [item for item in self._queues.items.values() if item.state == "due" and item.due_at <= now]
            for item in due:
                self._queues.push(item, now)
            expired = failed = 0
            if self._swept is not None and now - self._swept > lease_seconds / 2:
                self._grace_until = now + lease_seconds
            self._swept = now
            overdue = [i for i in self._queues.items.values() if i.state == "leased" and i.deadline <= now]
            for item in overdue if now >= self._grace_until else ():
                if item.state != "leased" or item.id not in self._queues.items:
                    continue
                dead = self._workers.get(item.owner, (0.0, ""))[0] + lease_seconds <= now
                group = [i for i in self._queues.items.values() if i.owner == item.owner] if dead else [item]
                for one in group:
                    expired += 1
                    failed += self._expire(one, alone=len(group) == 1, dead=dead, cap=max_expiries, error=error)
            gone = [i for i, t in self._tasks.items() if t.ended is not None and t.ended <= now - retention_seconds]
            for task_id in gone:
                owner = self._object(self._tasks.pop(task_id))
                if owner.active is None and owner.waiting is None:
                    self._objects = {key: value for key, value in self._objects.items() if value is not owner}
            for stage in Stage:
                for queue in self._queues.waiting(stage):
                    self._queues.ring(stage, queue, now)
        self._ring()
        return Swept(len(due), expired, failed, len(gone))

    def _expire(self, item: Item, *, alone: bool, dead: bool, cap: int, error: ErrorRecord) -> bool:
        item.suspect = item.suspect or dead
        item.expiries += 1 if dead and alone else 0
        if item.expiries >= cap:
            self._tasks[item.task_id].error = dump(error)
            self._finish(item.task_id, TaskState.FAILED, error=error.model_dump(mode="json"))
            return True
        self._queues.push(item, self._clock.now())
        return False

    def answer(self, stage: Stage, door: str, bell: str, *, again: bool) -> None:
        with self._lock:
            if bell:
                self._queues.standing[stage, door].pop(bell, None)
                self._queues.deaf.pop((stage, door), None)
            mine = [queue for queue in self._queues.waiting(stage) if stage is not Stage.EMBED or queue == door]
            if again and mine:
                self._queues.ring(stage, mine[0], self._clock.now())
        self._ring()

    # ------------------------------------------------------------ looking

    def task(self, task_id: str) -> TaskView | None:
        with self._lock:
            row = self._tasks.get(task_id)
            return task_view(task_id, row.fields(), len(row.parts)) if row else None

    def tasks(self, namespace: str, *, collection: str | None, state: TaskState | None, limit: int) -> list[TaskView]:
        with self._lock:
            newest = sorted(self._tasks, key=lambda i: (int(self._tasks[i].created * 1000), i), reverse=True)
            views = [task_view(i, self._tasks[i].fields(), len(self._tasks[i].parts)) for i in newest]
        mine = [view for view in views if view.namespace == namespace]
        return [v for v in mine if collection in (None, v.collection) and state in (None, v.state)][:limit]

    def events(self, after: str, count: int, block_seconds: float) -> list[tuple[str, Event]]:  # noqa: ARG002 - there is nobody to wait for
        with self._lock:
            start = _stream_order(after)
            return [(i, event) for i, event in self._events if _stream_order(i) > start][:count]

    def backlog(self) -> Backlog:
        with self._lock:
            now, states = self._clock.now(), [task.state for task in self._tasks.values()]
            items = self._queues.items.values()
            return Backlog(
                states={state: states.count(state) for state in set(states)},
                staged_tokens={model: tokens for model, tokens in self._staged.items() if tokens},
                leases=sum(item.state == "leased" for item in items),
                due=sum(item.state == "due" for item in items),
                dead=states.count(TaskState.FAILED),
                workers={
                    worker: {**json.loads(info), "seen_seconds": round(now - at, 1)}
                    for worker, (at, info) in self._workers.items()
                },
            )


def _stream_order(entry_id: str) -> tuple[int, int]:
    left, _, right = entry_id.partition("-")
    return int(left), int(right or 0)
