"""What a rebuild writes back into the twin: `lua/restore.lua`, in Python."""

from __future__ import annotations

from trivet.ledger import Restored
from trivet.ledger.memory_state import Row
from trivet.ledger.memory_verbs import MemoryVerbs
from trivet.names import EventKind, TaskKind
from trivet.values import TaskState


class MemoryRestoring(MemoryVerbs):
    """Of two tasks of one object the later stands."""

    def restore(self, restored: Restored, idempotency_seconds: float) -> bool:
        with self._lock:
            new, now = restored.task, self._clock.now()
            accepted = restored.ended is None and restored.spec is None
            _, _, until = self._idempotency.get((new.namespace, new.idempotency_key), ("", "", 0.0))
            if new.task_id in self._tasks or (accepted and new.idempotency_key and until > now):
                return False
            known = restored.config or (new.namespace, new.collection) in self._collections
            if accepted and not known and new.kind is not TaskKind.DELETE:
                return False
            row = self._restored_row(restored)
            rival, loser, busy = self._in_the_way(row, restored, accepted=accepted)
            if busy:
                return False
            self._tasks[new.task_id] = row
            self._taken[new.namespace, new.collection] += 1
            lasts = row.created + idempotency_seconds
            if new.idempotency_key and max(until, now) < lasts and until <= now:
                self._idempotency[new.namespace, new.idempotency_key] = (new.task_id, new.fingerprint, lasts)
            owner = self._object(row)
            owner.generation = max(owner.generation, restored.generation)
            if not rival and not self._later(owner.newest, row):
                owner.newest = new.task_id
            self._put_back(row, restored, rival, loser, accepted=accepted)
        self._ring()
        return True

    def _in_the_way(self, row: Row, restored: Restored, *, accepted: bool) -> tuple[str | None, str | None, bool]:
        """The later task, the one that has to go, and whether to come again."""
        owner = self._object(row)
        others = (owner.active, owner.waiting, owner.newest) if accepted else (owner.active,)
        if restored.ended is not None:
            return None, None, False
        rival = next((other for other in others if self._later(other, row)), None)
        if rival or accepted or owner.active is None:
            return rival, None, False
        active = self._tasks[owner.active]
        busy = not active.restored or active.state is TaskState.COMMITTING
        return None, None if busy else owner.active, busy

    def _later(self, other: str | None, row: Row) -> bool:
        return other in self._tasks and self._tasks[other].created > row.created

    def _put_back(self, row: Row, restored: Restored, rival: str | None, loser: str | None, *, accepted: bool) -> None:
        task_id = row.new.task_id
        if rival:
            self._finish(task_id, TaskState.SUPERSEDED, superseded_by=rival)
        elif restored.ended is not None:
            self._set(row, restored.ended)
            # Its retention began long ago.
            row.ended, row.shards_done, row.tokens_done = row.created, row.shards, row.tokens
            receipt = restored.receipt.model_dump(mode="json") if restored.receipt else {}
            kind = EventKind(f"ingest.{restored.ended}")
            self._emit(task_id, kind, manifest=restored.manifest or None, receipt=receipt)
        elif accepted:
            self._enter(task_id)
        else:
            assert restored.spec is not None
            self._specs[restored.spec.hash] = restored.spec
            row.told, self._object(row).active = self._clock.now(), task_id
            self._stage_shards(task_id, restored.shards)
            figures = {name: getattr(row, name) for name in ("pages", "chunks", "tokens", "shards")}
            self._emit(task_id, EventKind.STARTED, **figures)
            if loser:
                self._finish(loser, TaskState.SUPERSEDED, superseded_by=task_id)

    def _restored_row(self, restored: Restored) -> Row:
        task, config = restored.task, restored.config
        known = bool(config) or (restored.ended is None and restored.spec is None)
        row = self._new_row(task, config) if known else Row(task, "", "", self._clock.now())
        row.restored, row.run = True, restored.run
        row.created = min(restored.created, row.created)
        row.generation, row.spec = restored.generation or None, restored.spec
        row.queue, row.source_sha256, row.manifest = restored.queue, restored.source_sha256, restored.manifest
        row.pages, row.chunks, row.shards = restored.pages, restored.chunks, len(restored.shards)
        row.tokens = sum(tokens for tokens, _ in restored.shards)
        return row
