"""The ledger's twin: the same transitions in one process, for tests and as the model to hold Redis against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trivet.ledger import Backlog, Ledger, Swept
from trivet.ledger.memory_queues import Item
from trivet.ledger.memory_restoring import MemoryRestoring
from trivet.names import Stage
from trivet.values import ErrorRecord, Event, Lease, TaskState, TaskView, dump


class MemoryLedger(MemoryRestoring, Ledger):
    """Thread-safe by one lock; rings after it has let go of it. Refuses what is not in `transitions.ALLOWED`."""

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
                if item := self._holds(lease):
                    item.deadline = now + lease_seconds
                else:
                    lost.add(lease.item)
            return lost

    def release(self, leases: Iterable[Lease]) -> None:
        with self._lock:
            for lease in leases:
                if item := self._holds(lease):
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
            self._queues.bell_seconds = 1.5 * lease_seconds
            overdue = [i for i in self._queues.items.values() if i.state == "leased" and i.deadline <= now]
            for item in overdue if now >= self._grace_until else ():
                if item.state != "leased" or item.id not in self._queues.items:
                    continue
                dead = self._workers.get(item.owner, (0.0, ""))[0] + lease_seconds <= now
                group = [i for i in self._queues.items.values() if i.owner == item.owner] if dead else [item]
                charge = (1 if self._orphaned(item.owner, lease_seconds) else 4) if dead else 0
                for one in group:
                    expired += 1
                    failed += self._expire(one, len(group), charge, max_expiries, error)
            gone = [i for i, t in self._tasks.items() if t.ended is not None and t.ended <= now - retention_seconds]
            for task_id in gone:
                owner = self._object(self._tasks.pop(task_id))
                if owner.active is None and owner.waiting is None:
                    self._objects = {key: value for key, value in self._objects.items() if value is not owner}
            self._strike_off(now - 3 * lease_seconds)
            for stage in Stage:
                for queue in self._queues.waiting(stage):
                    self._queues.ring(stage, queue, now)
        self._ring()
        return Swept(len(due), expired, failed, len(gone))

    def _orphaned(self, worker: str, lease_seconds: float) -> bool:
        """Whether the process that had started this worker is gone as well."""
        live = self._live()
        parent = live.get(worker, {}).get("parent")
        return parent is not None and not any(
            info.get("parent") == parent and info["seen_seconds"] <= lease_seconds / 2 for info in live.values()
        )

    def _expire(self, item: Item, group: int, charge: int, cap: int, error: ErrorRecord) -> bool:
        """`charge`: in quarters; 0 where the worker lives."""
        item.group = -(-group // 4) if charge else item.group
        alone = bool(charge) and group == 1
        item.expiries += 1 if alone else 0
        item.charged += charge if alone else 0
        if alone and item.charged >= 4 * cap:
            self._tasks[item.task_id].error = dump(error)
            self._finish(item.task_id, TaskState.FAILED, drained=True, error=error.model_dump(mode="json"))
            return True
        self._queues.push(item, self._clock.now())
        return False

    def _strike_off(self, seen: float) -> None:
        """Forget the workers that hold nothing and were not heard of since."""
        busy = {item.owner for item in self._queues.items.values()}
        for worker in [name for name, (at, _) in self._workers.items() if at <= seen and name not in busy]:
            del self._workers[worker]
            for slots in self._queues.slots.values():
                slots.discard(worker)

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
            return self._view(task_id) if task_id in self._tasks else None

    def tasks(self, namespace: str, *, collection: str | None, state: TaskState | None, limit: int) -> list[TaskView]:
        with self._lock:
            newest = sorted(self._tasks, key=lambda i: (int(self._tasks[i].created * 1000), i), reverse=True)
            views = [self._view(task_id) for task_id in newest]
        mine = [view for view in views if view.namespace == namespace]
        return [v for v in mine if collection in (None, v.collection) and state in (None, v.state)][:limit]

    def events(self, after: str, count: int, block_seconds: float) -> list[tuple[str, Event]]:  # noqa: ARG002 - there is nobody to wait for
        with self._lock:
            start = _stream_order(after)
            return [(i, event) for i, event in self._events if _stream_order(i) > start][:count]

    def backlog(self) -> Backlog:
        with self._lock:
            states = [task.stands for task in self._tasks.values()]
            items = self._queues.items.values()
            return Backlog(
                states={state: states.count(state) for state in set(states)},
                staged_tokens={model: tokens for model, tokens in self._staged.items() if tokens},
                leases=sum(item.state == "leased" for item in items),
                due=sum(item.state == "due" for item in items),
                dead=states.count(TaskState.FAILED),
                paused=self.paused(),
                workers=self._live(),
            )


def _stream_order(entry_id: str) -> tuple[int, int]:
    left, _, right = entry_id.partition("-")
    return int(left), int(right or 0)
