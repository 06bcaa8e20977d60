"""The ledger in Redis or Valkey: one Lua script per transition, in `lua/`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import resources
from typing import Any

import redis
import structlog
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from trivet.errors import IdempotencyConflict, LeaseLost, LedgerUnavailable, TooLate, UnknownCollection, UnknownTask
from trivet.ids import EVENT_NAMESPACE, redact_url
from trivet.ledger import Accepted, Backlog, Ledger, NewTask, Ringer, Swept, no_ringer
from trivet.ledger.view import task_view
from trivet.names import Stage
from trivet.settings import Settings
from trivet.values import Collection, ErrorRecord, Event, Lease, Part, Receipt, Spec, TaskState, TaskView, dump

log = structlog.get_logger(__name__)

_SWEEP_LIMIT = 500


def connect(settings: Settings) -> redis.Redis:
    """A client with bounded waits. Its retries may apply a script twice: all of them bear that."""
    try:
        return redis.Redis.from_url(
            settings.redis_url,
            decode_responses=True,
            socket_timeout=30,
            socket_connect_timeout=5,
            socket_keepalive=True,
            health_check_interval=25,
            retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), 3),
        )
    except (ValueError, RedisError) as error:
        raise LedgerUnavailable(f"The Redis URL cannot be read: {error}.", hint="Check TRIVET_REDIS_URL.") from None


class RedisLedger(Ledger):
    """Thread-safe; open it after a fork."""

    def __init__(self, settings: Settings, ringer: Ringer = no_ringer, client: redis.Redis | None = None) -> None:
        self._client: Any = client or connect(settings)
        self._where = redact_url(settings.redis_url)
        self._prefix = settings.redis_prefix
        self._head = (EVENT_NAMESPACE.hex, settings.event_stream_length)
        self._ringer = ringer
        self._scripts: dict[str, Any] = {}

    # ------------------------------------------------------------ plumbing

    def _key(self, *parts: str) -> str:
        return self._prefix + ":".join(parts)

    def _do(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except redis.exceptions.OutOfMemoryError as error:
            raise LedgerUnavailable(
                f"Redis at {self._where} is full: {error}.", hint="Raise its maxmemory or wait until work is done."
            ) from None
        except RedisError as error:
            raise LedgerUnavailable(
                f"Redis at {self._where} does not answer: {str(error).rstrip('.')}.",
                hint="Check that it runs and that TRIVET_REDIS_URL names it.",
            ) from None

    def _run(self, name: str, *arguments: Any) -> Any:
        if name not in self._scripts:
            folder = resources.files("trivet.ledger") / "lua"
            text = (folder / "_common.lua").read_text() + "\n" + (folder / f"{name}.lua").read_text()
            self._scripts[name] = self._client.register_script(text)
        script = self._scripts[name]
        return self._do(lambda: script(keys=[self._prefix], args=[*self._head, *arguments]))

    def _ring(self, bells: Iterable[str]) -> None:
        for bell in bells:
            stage, door, number = bell.split("|")
            try:
                self._ringer(Stage(stage), door, number)
            except Exception as error:  # noqa: BLE001 - whatever the transport raises: the sweep rings again
                log.warning("doorbell.lost", stage=stage, door=door, error=type(error).__name__)

    def _transition(self, name: str, lease: Lease, *arguments: Any) -> list[Any]:
        answer = self._run(name, lease.item, lease.epoch, *arguments)
        if answer[0] == "lost":
            raise LeaseLost(f"The lease of {lease.item} is lost.")
        return list(answer)

    # ------------------------------------------------------------ collections

    def put_collection(self, collection: Collection, *, replace: bool) -> bool:
        key, value = self._key("collections", collection.namespace), dump(collection)
        if replace:
            self._do(lambda: self._client.hset(key, collection.name, value))
            return True
        return bool(self._do(lambda: self._client.hsetnx(key, collection.name, value)))

    def get_collection(self, namespace: str, name: str) -> Collection | None:
        value = self._do(lambda: self._client.hget(self._key("collections", namespace), name))
        return Collection.model_validate_json(value) if value else None

    def collections(self, namespace: str) -> list[Collection]:
        values = self._do(lambda: self._client.hgetall(self._key("collections", namespace)))
        return [Collection.model_validate_json(values[name]) for name in sorted(values)]

    # ------------------------------------------------------------ the way of a task

    def accept(self, task: NewTask, idempotency_seconds: float) -> Accepted:
        outcome, task_id, state, *bells = self._run(
            "accept",
            task.task_id,
            task.namespace,
            task.collection,
            task.object_id,
            task.lane,
            task.url,
            task.secret_url,
            task.metadata,
            task.media_type,
            task.idempotency_key,
            task.fingerprint,
            int(idempotency_seconds * 1000),
            task.estimated_bytes,
        )
        if outcome == "unknown_collection":
            raise UnknownCollection(
                f"Namespace {task.namespace!r} has no collection {task.collection!r}.",
                hint=f"Create it: trivet collections create {task.collection}",
            )
        if outcome == "conflict":
            raise IdempotencyConflict(
                f"Idempotency key {task.idempotency_key!r} was used for another request, task {task_id}.",
                hint="Use a new key for a new request.",
            )
        self._ring(bells)
        return Accepted(task_id, state, outcome == "new")

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

    def spec(self, spec_hash: str) -> Spec:
        """A frozen spec by its hash. Raises `LeaseLost` where it is gone: so is every task that used it."""
        text = self._do(lambda: self._client.get(self._key("spec", spec_hash)))
        if text is None:
            raise LeaseLost(f"The ledger holds no spec {spec_hash}.")
        return Spec.model_validate_json(text)

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
        _, *bells = self._transition("shard_done", lease, record)
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

    def fail(self, lease: Lease, error: ErrorRecord, *, delay_seconds: float, max_attempts: int) -> str:
        permanent = "0" if error.transient else "1"
        outcome, *bells = self._transition(
            "fail", lease, dump(error), permanent, int(delay_seconds * 1000), max_attempts
        )
        self._ring(bells)
        return str(outcome)

    def cancel(self, task_id: str) -> TaskState:
        outcome, state, *bells = self._run("cancel", task_id)
        if outcome == "unknown":
            raise UnknownTask(f"No task is called {task_id[:80]!r}.", hint="List them with: trivet tasks")
        if outcome == "too_late":
            raise TooLate(
                f"Task {task_id} is committing and can no longer be cancelled.", hint="Wait for it to complete."
            )
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
        )
        self._ring(bells)
        return Swept(int(due), int(expired), int(failed), int(dropped))

    def answer(self, stage: Stage, door: str, bell: str, *, again: bool) -> None:
        self._ring(self._run("ring", stage, door, bell, "1" if again else "0"))

    # ------------------------------------------------------------ looking

    def task(self, task_id: str) -> TaskView | None:
        return self._views([task_id])[0]

    def tasks(self, namespace: str, *, collection: str | None, state: TaskState | None, limit: int) -> list[TaskView]:
        found: list[TaskView] = []
        key, start, page = self._key("tasks", namespace), 0, 500
        while len(found) < limit:
            ids = self._do(partial(self._client.zrevrange, key, start, start + page - 1))
            if not ids:
                break
            views = [view for view in self._views(ids) if view is not None]
            found += [v for v in views if collection in (None, v.collection) and state in (None, v.state)]
            start += page
        return found[:limit]

    def _views(self, task_ids: Sequence[str]) -> list[TaskView | None]:
        pipe = self._client.pipeline(transaction=False)
        for task_id in task_ids:
            pipe.hgetall(self._key("task", task_id))
            pipe.hlen(self._key("parts", task_id))
        answers = self._do(pipe.execute)
        return [
            task_view(task_id, fields, int(done)) if fields else None
            for task_id, fields, done in zip(task_ids, answers[::2], answers[1::2], strict=True)
        ]

    def events(self, after: str, count: int, block_seconds: float) -> list[tuple[str, Event]]:
        key = self._key("events")
        # A block longer than the socket's time-out would read as a dead server.
        block = min(int(block_seconds * 1000), 10_000) or None
        answer = self._do(lambda: self._client.xread({key: after}, count=count, block=block))
        pages = answer.values() if isinstance(answer, dict) else [entries for _, entries in answer or ()]
        entries = [entry for page in pages for entry in _flat(page)]
        return [(entry_id, Event.model_validate_json(fields["event"])) for entry_id, fields in entries]

    def last_event(self) -> str:
        """Id of the newest event, `0-0` where there is none."""
        newest = self._do(lambda: self._client.xrevrange(self._key("events"), count=1))
        return str(newest[0][0]) if newest else "0-0"

    def backlog(self) -> Backlog:
        pipe = self._client.pipeline(transaction=False)
        pipe.hgetall(self._key("states"))
        pipe.hgetall(self._key("staged"))
        pipe.zcard(self._key("leases"))
        pipe.zcard(self._key("due"))
        pipe.zcard(self._key("dead"))
        pipe.zrange(self._key("workers"), 0, -1, withscores=True)
        states, staged, leases, due, dead, seen = self._do(pipe.execute)
        pipe = self._client.pipeline(transaction=False)
        for worker, _ in seen:
            pipe.hget(self._key("worker", worker), "info")
        infos = self._do(pipe.execute)
        workers = {
            worker: {**json.loads(info or "{}"), "seen_seconds": max(0.0, round(time.time() - at / 1000, 1))}
            for (worker, at), info in zip(seen, infos, strict=True)
        }
        return Backlog(
            states={state: int(n) for state, n in states.items() if int(n)},
            staged_tokens={model: int(n) for model, n in staged.items() if int(n)},
            leases=leases,
            due=due,
            dead=dead,
            workers=workers,
        )

    def ping(self) -> dict[str, Any]:
        """Server facts for `trivet doctor`: version, AOF, eviction policy."""
        info = self._do(self._client.info)
        policy = self._do(lambda: self._client.config_get("maxmemory-policy"))
        return {
            "version": info.get("valkey_version") or info.get("redis_version"),
            "aof_enabled": bool(info.get("aof_enabled")),
            "maxmemory_policy": policy.get("maxmemory-policy", ""),
            "used_memory_bytes": info.get("used_memory"),
        }


def _flat(page: Any) -> list[tuple[str, dict[str, str]]]:
    """redis-py answers XREAD with one more level of nesting under RESP3."""
    return page[0] if page and isinstance(page[0], list) else page


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
