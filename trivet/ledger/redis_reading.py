"""Talking to Redis, and everything of the ledger that only looks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from typing import Any, ClassVar

import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from trivet.errors import InvalidRequest, LeaseLost, LedgerUnavailable
from trivet.ids import EVENT_NAMESPACE, redact_url
from trivet.ledger import Backlog
from trivet.ledger.refusals import refused
from trivet.ledger.view import task_view
from trivet.settings import Settings
from trivet.values import Collection, Event, Spec, TaskState, TaskView

#: Tasks that are looked at in one go.
_PAGE = 500


def socket_seconds(settings: Settings) -> float:
    """How long a call may stay unanswered."""
    return max(3.0, min(10.0, settings.lease_seconds / 2))


def connect(settings: Settings) -> redis.Redis:
    """A client with bounded waits. Its retries may apply a script twice: all of them bear that."""
    try:
        return redis.Redis.from_url(
            settings.redis_url,
            decode_responses=True,
            # Shorter than a lease: a connection that has gone silent must not cost a worker all that it holds.
            socket_timeout=socket_seconds(settings),
            socket_connect_timeout=5,
            socket_keepalive=True,
            health_check_interval=25,
            retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), 3),
        )
    except (ValueError, RedisError) as error:
        raise InvalidRequest(
            f"The Redis URL cannot be read ({type(error).__name__}).",
            hint="Check TRIVET_REDIS_URL; a password with special characters in it must be percent-encoded.",
        ) from None


class RedisReader:
    """Collections, specs, tasks, events and the backlog, as they stand. Thread-safe; open it after a fork.

    Other books in Redis stand on its plumbing: they name their own scripts.
    """

    #: Whose folder `lua` has the scripts, and what is loaded in front of each, in this order, as (package, file).
    _package: ClassVar[str] = "trivet.ledger"
    _in_front: ClassVar[tuple[tuple[str, str], ...]] = tuple(
        ("trivet.ledger", part) for part in ("_common", "_queues", "_tasks")
    )
    #: A full Redis must still let work be finished, or it stays full: only what brings new work is refused.
    _refused_when_full: ClassVar[frozenset[str]] = frozenset({"accept", "restore"})

    def __init__(self, settings: Settings, client: redis.Redis | None = None) -> None:
        self._client: Any = client or connect(settings)
        self._where = redact_url(settings.redis_url)
        self._prefix = settings.redis_prefix
        self._socket_seconds = socket_seconds(settings)
        self._head = (EVENT_NAMESPACE.hex, int(settings.secret_retention_hours * 3_600_000))
        self._scripts: dict[str, Any] = {}

    def close(self) -> None:
        """Close the connections to Redis."""
        self._client.close()

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
        except redis.exceptions.ResponseError as error:
            raise refused(str(error), self._where) from None
        except RedisError as error:
            raise LedgerUnavailable(
                f"Redis at {self._where} does not answer: {str(error).rstrip('.')}.",
                hint="Check that it runs and that TRIVET_REDIS_URL names it.",
            ) from None

    def _run(self, name: str, *arguments: Any, client: Any = None) -> Any:
        script = self._script(name)
        return self._do(lambda: script(keys=[self._prefix], args=[*self._head, *arguments], client=client))

    def _script(self, name: str) -> Any:
        if name not in self._scripts:
            files = (*self._in_front, (self._package, name))
            text = "\n".join((resources.files(where) / "lua" / f"{part}.lua").read_text() for where, part in files)
            flags = "" if name in self._refused_when_full else "#!lua flags=allow-oom\n"
            self._scripts[name] = self._client.register_script(flags + text)
        return self._scripts[name]

    def get_collection(self, namespace: str, name: str) -> Collection | None:
        value = self._do(lambda: self._client.hget(self._key("collections", namespace), name))
        return Collection.model_validate_json(value) if value else None

    def collections(self, namespace: str) -> list[Collection]:
        values = self._do(lambda: self._client.hgetall(self._key("collections", namespace)))
        return [Collection.model_validate_json(values[name]) for name in sorted(values)]

    def spec(self, spec_hash: str) -> Spec:
        """A frozen spec by its hash. Raises `LeaseLost` where it is gone: so is every task that used it."""
        text = self._do(lambda: self._client.get(self._key("spec", spec_hash)))
        if text is None:
            raise LeaseLost(f"The ledger holds no spec {spec_hash}.")
        return Spec.model_validate_json(text)

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

    def task_page(self, namespace: str, *, before: tuple[int, str] | None, limit: int) -> list[TaskView]:
        """Tasks of a namespace, the newest first: those before a (millisecond, task id), which the last one gives."""
        key, found = self._key("tasks", namespace), list[TaskView]()
        most = "+inf" if before is None else str(before[0])
        start = 0
        while len(found) < limit:
            ids = self._do(
                partial(self._client.zrevrangebyscore, key, most, "-inf", start=start, num=_PAGE, withscores=True)
            )
            if not ids:
                break
            start += len(ids)
            ours = [task_id for task_id, at in ids if before is None or (int(at), task_id) < before]
            found += [view for view in (self._views(ours) if ours else []) if view is not None]
        return found[:limit]

    def views(self, task_ids: Sequence[str]) -> dict[str, TaskView | None]:
        """The tasks as they stand; None where one is not known, or no longer."""
        found: dict[str, TaskView | None] = {}
        for start in range(0, len(task_ids), _PAGE):
            page = task_ids[start : start + _PAGE]
            found |= dict(zip(page, self._views(page), strict=True))
        return found

    def count_tasks(self, namespace: str) -> int:
        """Tasks of a namespace that are not yet retained away."""
        return int(self._do(lambda: self._client.zcard(self._key("tasks", namespace))))

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
        block = int(1000 * min(block_seconds, self._socket_seconds - 1)) or None
        answer = self._do(lambda: self._client.xread({key: after}, count=count, block=block))
        pages = answer.values() if isinstance(answer, dict) else [entries for _, entries in answer or ()]
        entries = [entry for page in pages for entry in _flat(page)]
        return [(entry_id, Event.model_validate_json(fields["event"])) for entry_id, fields in entries]

    def last_event(self) -> str:
        """Id of the newest event, `0-0` where there is none."""
        newest = self._do(lambda: self._client.xrevrange(self._key("events"), count=1))
        return str(newest[0][0]) if newest else "0-0"

    def paused(self) -> dict[str, str]:
        """Scope → the reason that was given."""
        records = self._do(lambda: self._client.hgetall(self._key("paused")))
        return {scope: str(json.loads(records[scope])["reason"]) for scope in sorted(records)}

    def backlog(self) -> Backlog:
        pipe = self._client.pipeline(transaction=False)
        pipe.hgetall(self._key("states"))
        pipe.hgetall(self._key("staged"))
        pipe.zcard(self._key("leases"))
        pipe.zcard(self._key("due"))
        pipe.zcard(self._key("dead"))
        pipe.zrange(self._key("workers"), 0, -1, withscores=True)
        pipe.time()
        states, staged, leases, due, dead, seen, (seconds, micros) = self._do(pipe.execute)
        now = seconds + micros / 1e6
        pipe = self._client.pipeline(transaction=False)
        for worker, _ in seen:
            pipe.hget(self._key("worker", worker), "info")
        infos = self._do(pipe.execute)
        workers = {
            worker: {**json.loads(info or "{}"), "seen_seconds": max(0.0, round(now - at / 1000, 1))}
            for (worker, at), info in zip(seen, infos, strict=True)
        }
        return Backlog(
            states={state: int(n) for state, n in states.items() if int(n)},
            staged_tokens={model: int(n) for model, n in staged.items() if int(n)},
            leases=leases,
            due=due,
            dead=dead,
            paused=self.paused(),
            workers=workers,
        )

    def seconds_since_sweep(self) -> float | None:
        """How long ago a sweeper came by; None where none ever did."""
        swept, (seconds, micros) = self._do(lambda: self._client.get(self._key("swept"))), self._do(self._client.time)
        return None if swept is None else float(max(0.0, seconds + micros / 1e6 - int(swept) / 1000))

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
