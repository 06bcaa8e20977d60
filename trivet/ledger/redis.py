"""The ledger in Redis or Valkey: one Lua script per transition, in `lua/`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

import redis

from trivet.errors import LedgerRefused, LedgerUnavailable
from trivet.ledger import Accepted, Ledger, NewTask, Ringer, Swept, no_ringer
from trivet.ledger.redis_holding import RedisHolding
from trivet.ledger.redis_restoring import RedisRestoring, told
from trivet.ledger.redis_verbs import RedisVerbs
from trivet.ledger.refusals import key_conflict, lease_lost, other_encoder, too_late, unknown_collection, unknown_task
from trivet.names import Stage
from trivet.settings import Settings
from trivet.values import Collection, ErrorRecord, Lease, Part, Receipt, Spec, TaskState, dump

#: Of each kind that one sweep looks at: every script that works holds all others up.
_SWEEP_LIMIT = 500
#: Share of maxmemory above which new tasks are refused; for how long, and how many bytes, one look at it holds.
_FULL = 0.85
_ROOM_SECONDS = 1.0
_ROOM_BYTES = 1 << 20
_ROW_BYTES = 4096


class RedisLedger(RedisVerbs, RedisHolding, RedisRestoring, Ledger):
    """Thread-safe; open it after a fork."""

    def __init__(self, settings: Settings, ringer: Ringer = no_ringer, client: redis.Redis | None = None) -> None:
        super().__init__(settings, ringer, client)
        self._progress_ms = int(settings.progress_seconds * 1000)
        self._stream_length = settings.event_stream_length
        self._fsync_ms = int(settings.fsync_seconds * 1000) if settings.durable_accept else 0
        self._room_checked = -_ROOM_SECONDS
        self._full = False
        self._written = 0

    def _transition(self, name: str, lease: Lease, *arguments: Any) -> list[Any]:
        answer = self._run(name, lease.item, lease.epoch, *arguments)
        if answer[0] == "lost":
            raise lease_lost(lease.item)
        return list(answer)

    # ------------------------------------------------------------ collections

    def put_collection(self, collection: Collection, *, replace: bool) -> bool:
        key, value = self._key("collections", collection.namespace), dump(collection)
        if replace:
            self._configure("HSET", key, collection.name, value)
            return True
        return self._configure("HSETNX", key, collection.name, value)

    def change_collection(self, was: Collection, changed: Collection, *, taken: int | None) -> bool:
        raw = self._do(lambda: self._client.hget(self._key("collections", was.namespace), was.name))
        # Compared as a value: another version of Trivet may have written it in other words.
        if raw is None or Collection.model_validate_json(raw) != was:
            return False
        count = "" if taken is None else taken
        return bool(self._run("change", was.namespace, was.name, raw, dump(changed), count)[0])

    def taken(self, namespace: str, name: str) -> int:
        return int(self._do(lambda: self._client.hget(self._key("taken", namespace), name)) or 0)

    # ------------------------------------------------------------ the way of a task

    def accept(self, task: NewTask, idempotency_seconds: float, *, encoder_wish: str = "") -> Accepted:
        self._check_room(len(task.secret_url) + len(task.metadata) + _ROW_BYTES)
        arguments = (*told(task, task.secret_url, idempotency_seconds), encoder_wish)
        outcome, task_id, state, *bells = self._run_durably("accept", *arguments)
        if outcome == "unknown_collection":
            raise unknown_collection(task.namespace, task.collection)
        if outcome == "other_encoder":
            raise other_encoder(task.collection, encoder_wish)
        if outcome == "conflict":
            raise key_conflict(task.idempotency_key, task_id)
        self._ring(bells)
        return Accepted(task_id, state, outcome == "new")

    def _run_durably(self, name: str, *arguments: Any) -> Any:
        """As `_run`; with `durable_accept` it returns once Redis has the writes on its disk.

        A server without WAITAOF (Redis before 7.2) or without an append-only file cannot say so: then the intent on S3
        stands alone. WAITAOF speaks of the writes of its own connection.
        """
        if not self._fsync_ms:
            return self._run(name, *arguments)
        with self._client.client() as connection:
            answer = self._run(name, *arguments, client=connection)
            try:
                local, _ = self._do(lambda: connection.execute_command("WAITAOF", 1, 0, self._fsync_ms))
            except LedgerRefused:
                return answer
        if not local:
            raise LedgerUnavailable(
                f"Redis at {self._where} has not written to its disk within {self._fsync_ms / 1000:g} s.",
                hint="Repeat the request with the same idempotency key, and look at the server's disk.",
            )
        return answer

    def _check_room(self, size: int) -> None:
        """Refuse new tasks while there is still room to finish the old ones, and for Celery's own messages."""
        now = time.monotonic()
        self._written += size
        if now - self._room_checked > _ROOM_SECONDS or self._written > _ROOM_BYTES:
            memory = self._do(lambda: self._client.info("memory"))
            limit, self._room_checked, self._written = int(memory["maxmemory"]), now, 0
            self._full = limit > 0 and int(memory["used_memory"]) > _FULL * limit
        if self._full:
            raise LedgerUnavailable(
                f"Redis at {self._where} is nearly full, so new tasks are refused.",
                hint="Raise its maxmemory, or wait until work is done and old tasks have left.",
            )

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
        found = self._run(
            "claim", stage, worker, operation, budget, most, int(lease_seconds * 1000), max_staged_tokens, *queues
        )
        return [_lease(stage, json.loads(text), text) for text in found]

    def heartbeat(
        self, worker: str, leases: Iterable[Lease], *, lease_seconds: float, roles: Sequence[Stage], info: str
    ) -> set[str]:
        pairs = [value for lease in leases for value in (lease.item, lease.epoch)]
        return set(self._run("heartbeat", worker, int(lease_seconds * 1000), info, len(roles), *roles, *pairs))

    def release(self, leases: Iterable[Lease]) -> None:
        pairs = [value for lease in leases for value in (lease.item, lease.epoch)]
        if pairs:
            self._ring(self._run("release", *pairs))

    def farewell(self, worker: str) -> int:
        count, *bells = self._run("farewell", worker)
        self._ring(bells)
        return int(count)

    def allocate(self, lease: Lease, floor: int, spec: Spec) -> tuple[int, Spec]:
        _, generation, frozen = self._transition("allocate", lease, floor, spec.hash, dump(spec))
        return int(generation), spec if frozen == spec.hash else self.spec(frozen)

    def take_generation(self, lease: Lease, floor: int) -> int:
        _, generation, _ = self._transition("allocate", lease, floor, "", "")
        return int(generation)

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
        flat = [value for shard in shards for value in shard]
        _, *bells = self._transition("stage", lease, queue, source_sha256, pages, chunks, fetched_bytes, *flat)
        self._ring(bells)

    def shard_done(self, lease: Lease, part: Part, passport: str) -> None:
        record = json.dumps({"part": part.model_dump(mode="json"), "passport": passport})
        _, *bells = self._transition("shard_done", lease, record, self._progress_ms)
        self._ring(bells)

    def committing(self, lease: Lease) -> list[tuple[Part, str]]:
        _, *records = self._transition("committing", lease)
        decoded = [json.loads(record) for record in records]
        parts = [(Part.model_validate(record["part"]), str(record["passport"])) for record in decoded]
        return sorted(parts, key=lambda pair: pair[0].shard)

    def restage(self, lease: Lease, floor: int) -> None:
        _, *bells = self._transition("restage", lease, floor)
        self._ring(bells)

    def finish(self, lease: Lease, state: TaskState, *, manifest: str, receipt: Receipt) -> None:
        _, *bells = self._transition("finish", lease, state, manifest, dump(receipt))
        self._ring(bells)

    def fail(
        self,
        lease: Lease,
        error: ErrorRecord,
        *,
        delay_seconds: float,
        max_attempts: int,
        patience_seconds: float | None = None,
    ) -> str:
        permanent = "0" if error.transient else "1"
        patience = "" if patience_seconds is None else int(patience_seconds * 1000)
        outcome, *bells = self._transition(
            "fail", lease, dump(error), permanent, int(delay_seconds * 1000), max_attempts, patience
        )
        self._ring(bells)
        return str(outcome)

    def cancel(self, task_id: str) -> TaskState:
        outcome, state, *bells = self._run("cancel", task_id)
        if outcome == "unknown":
            raise unknown_task(task_id)
        if outcome == "too_late":
            raise too_late(task_id)
        self._ring(bells)
        return TaskState(state)

    def sweep(self, *, lease_seconds: float, max_expiries: int, retention_seconds: float, error: ErrorRecord) -> Swept:
        due, expired, failed, dropped, *bells = self._run(
            "sweep",
            int(lease_seconds * 1000),
            max_expiries,
            dump(error),
            _SWEEP_LIMIT,
            int(retention_seconds * 1000),
            self._stream_length,
        )
        self._ring(bells)
        more = max(int(due), int(expired), int(dropped)) >= _SWEEP_LIMIT
        return Swept(int(due), int(expired), int(failed), int(dropped), more)

    def answer(self, stage: Stage, door: str, bell: str, *, again: bool) -> None:
        self._ring(self._run("ring", stage, door, bell, "1" if again else "0"))


def _lease(stage: Stage, fields: dict[str, Any], text: str) -> Lease:
    return Lease(
        task_id=fields["task_id"],
        stage=stage,
        n=fields["n"],
        epoch=fields["epoch"],
        cost=fields["cost"],
        alone=fields["alone"],
        namespace=fields["namespace"],
        collection=fields["collection"],
        object_id=fields["object_id"],
        attempts=fields["attempts"],
        payload=text,
    )
