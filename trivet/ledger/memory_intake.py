"""How work comes into the twin and out to its workers: collections, accept, claim."""

from __future__ import annotations

import json
from collections.abc import Sequence

from trivet.ledger import Accepted, NewTask
from trivet.ledger.memory_queues import Item
from trivet.ledger.memory_state import MemoryState, Row
from trivet.ledger.refusals import key_conflict, other_encoder, unknown_collection
from trivet.names import Stage, TaskKind
from trivet.values import Collection, Lease, TaskState, dump


class MemoryIntake(MemoryState):
    """Collections, accept and claim."""

    # ------------------------------------------------------------ collections

    def put_collection(self, collection: Collection, *, replace: bool) -> bool:
        with self._lock:
            key = (collection.namespace, collection.name)
            if key in self._collections and not replace:
                return False
            self._collections[key] = collection
            return True

    def change_collection(self, was: Collection, changed: Collection, *, taken: int | None) -> bool:
        with self._lock:
            key = (was.namespace, was.name)
            if self._collections.get(key) != was or taken not in (None, self._taken[key]):
                return False
            self._collections[key] = changed
            return True

    def taken(self, namespace: str, name: str) -> int:
        return self._taken[namespace, name]

    def get_collection(self, namespace: str, name: str) -> Collection | None:
        return self._collections.get((namespace, name))

    def collections(self, namespace: str) -> list[Collection]:
        return [self._collections[key] for key in sorted(self._collections) if key[0] == namespace]

    # ------------------------------------------------------------ the way of a task

    def accept(self, task: NewTask, idempotency_seconds: float, *, encoder_wish: str = "") -> Accepted:
        with self._lock:
            key = (task.namespace, task.idempotency_key)
            if task.idempotency_key and key in self._idempotency:
                other, fingerprint, until = self._idempotency[key]
                if until > self._clock.now():
                    if fingerprint != task.fingerprint:
                        raise key_conflict(task.idempotency_key, other)
                    return Accepted(other, self._tasks[other].stands if other in self._tasks else "expired", False)
            if task.task_id in self._tasks:
                return Accepted(task.task_id, self._tasks[task.task_id].stands, False)
            row = self._new_row(task)
            if encoder_wish not in ("", row.model):
                raise other_encoder(task.collection, encoder_wish)
            self._tasks[task.task_id] = row
            self._taken[task.namespace, task.collection] += 1
            if task.idempotency_key:
                self._idempotency[key] = (task.task_id, task.fingerprint, self._clock.now() + idempotency_seconds)
            self._enter(task.task_id)
        self._ring()
        return Accepted(task.task_id, row.stands, True)

    def _new_row(self, task: NewTask, config: str = "") -> Row:
        """`config` is given where the task was accepted before."""
        if task.kind is TaskKind.DELETE:
            return Row(task, "", "", self._clock.now(), task.secret_url, bool(task.secret_url))
        given = Collection.model_validate_json(config) if config else None
        collection = given or self._collections.get((task.namespace, task.collection))
        if collection is None:
            raise unknown_collection(task.namespace, task.collection)
        wish = collection.pipeline.encoder_wish
        text = config or dump(collection)
        return Row(task, text, wish, self._clock.now(), task.secret_url, bool(task.secret_url))

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
        with self._lock:
            items = self._queues.items
            seen, found = self._operations.get(worker, ("", []))
            if seen == operation:
                return [self._lease(items[i]) for i in found if i in items and items[i].owner == worker]
            self._park_paused()
            mine = [item for item in items.values() if item.owner == worker]
            may = list(queues) if stage is Stage.EMBED else self._queues.waiting(stage)
            if stage is Stage.PREPARE:
                may = [name for name in may if self._staged.get(name, 0) <= max_staged_tokens]
            taken: list[Item] = []
            if not any(item.suspect for item in mine):
                taken = self._take(worker, stage, may, budget, most, idle=not mine)
            for item in taken:
                self._epoch = max(self._epoch + 1, int(self._clock.now() * 1000))
                item.state, item.epoch, item.owner = "leased", self._epoch, worker
                item.taken_at = self._clock.now()
                item.deadline = item.taken_at + lease_seconds
                if stage is Stage.PREPARE:
                    self._set(self._tasks[item.task_id], TaskState.PREPARING)
            self._operations[worker] = (operation, [item.id for item in taken])
            self._workers[worker] = (self._clock.now(), self._workers.get(worker, (0.0, "{}"))[1])
            return [self._lease(item) for item in taken]

    def _take(self, worker: str, stage: Stage, may: Sequence[str], budget: int, most: int, *, idle: bool) -> list[Item]:
        theirs = False
        if self._queues.suspects_wait(stage, may):
            theirs = worker in self._owed
            if not theirs:
                self._turns[stage] += 1
                theirs = self._turns[stage] % 2 == 0
        if theirs and not idle:
            self._owed.add(worker)
            return []
        self._owed.discard(worker)
        if theirs and (suspects := self._queues.take_suspects(stage, may, budget, most)):
            return suspects
        taken: list[Item] = []
        while len(taken) < most and (spent := sum(item.cost for item in taken)) < budget:
            item = self._queues.take_next(stage, may, budget - spent, first=not taken)
            if item is None:
                break
            taken.append(item)
        if idle and not taken:
            return self._queues.take_suspects(stage, may, budget, most)
        return taken

    def _lease(self, item: Item) -> Lease:
        task = self._tasks[item.task_id]
        new = task.new
        payload = {
            "task_id": item.task_id,
            "n": item.n,
            "epoch": item.epoch,
            "cost": item.cost,
            "attempts": item.attempts,
            "alone": item.suspect,
            "namespace": new.namespace,
            "collection": new.collection,
            "object_id": new.object_id,
            "url": new.url,
            "media_type": new.media_type,
            "metadata": new.metadata,
            "run": task.run,
            "generation": task.generation,
            "spec_hash": task.spec.hash if task.spec else None,
            "source_sha256": task.source_sha256 or None,
            "input_hash": item.input_hash or None,
            "kind": new.kind,
        }
        if item.stage is Stage.PREPARE:
            payload |= {
                "url": task.secret_url or new.url,
                "config": task.config,
                "lane": new.lane,
                "idem": new.idempotency_key,
                "fingerprint": new.fingerprint if new.idempotency_key else "",
                "created": int(task.created * 1000),
            }
        return Lease(
            item.task_id,
            item.stage,
            item.n,
            item.epoch,
            item.cost,
            item.suspect,
            new.namespace,
            new.collection,
            new.object_id,
            item.attempts,
            json.dumps({name: value for name, value in payload.items() if value is not None}),
        )
