"""What an audit asks of the ledger in Redis. Every look and every repair is one script: none sees half of a step."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from trivet.ledger.redis_restoring import RedisRestoring
from trivet.names import Lane, Stage
from trivet.values import TaskState

_PAGE = 500
#: Tasks, shards of them, and work items that one script looks at: it holds up all others for some milliseconds.
_TASKS = 100
_SHARDS = 2000
_ITEMS = 200

_LINE = re.compile(r"line:(prepare|embed|commit):(\d\|[^:]+):(.+)", re.DOTALL)
_SUSPECTS = re.compile(r"suspects:(prepare|embed|commit):(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Place:
    """A set of work items: a line, suspects, parked ones, those of one worker, leases or what is due."""

    kind: str
    #: Without the ledger's prefix.
    key: str
    stage: str = ""
    flow: str = ""
    queue: str = ""
    #: The scope of parked items, the worker of held ones.
    name: str = ""

    @classmethod
    def of(cls, key: str) -> Place | None:
        """The place that a key is, if it is one."""
        if found := _LINE.fullmatch(key):
            return cls("line", key, *found.groups())
        if found := _SUSPECTS.fullmatch(key):
            return cls("suspects", key, found[1], queue=found[2])
        if key.startswith(("parked:", "held:")):
            kind, _, name = key.partition(":")
            return cls(kind, key, name=name)
        return cls(key, key) if key in ("leases", "due") else None

    @property
    def sorted(self) -> bool:
        """Whether it is a sorted set."""
        return self.kind not in ("parked", "held")


@dataclass(frozen=True, slots=True)
class AuditedTask:
    """What an audit needs of a task's row."""

    task_id: str
    namespace: str
    collection: str
    object_id: str
    kind: str
    state: TaskState | None
    run: int
    generation: int
    #: Milliseconds by the ledger's clock; 0 while it has not ended.
    ended: int
    manifest: str
    error: str
    source: str
    spec_hash: str


class RedisAuditing(RedisRestoring):
    """Thread-safe; open it after a fork."""

    # ------------------------------------------------------------ walking

    def all_keys(self) -> Iterator[str]:
        """Every key of the ledger without its prefix, some perhaps twice."""
        cursor, match = 0, self._key("*")
        while True:
            cursor, found = self._do(partial(self._client.scan, cursor, match=match, count=_PAGE))
            yield from (name[len(self._prefix) :] for name in found)
            if cursor == 0:
                return

    def namespaces(self) -> list[str]:
        """Those that have had a task."""
        return sorted(self._do(lambda: self._client.smembers(self._key("namespaces"))))

    def task_ids(self, namespace: str) -> Iterator[list[str]]:
        """Pages of task ids, each once where nothing is added or dropped meanwhile."""
        start, key = 0, self._key("tasks", namespace)
        while page := self._do(partial(self._client.zrange, key, start, start + _PAGE - 1)):
            yield page
            start += _PAGE

    def audited(self, task_ids: Sequence[str]) -> list[AuditedTask]:
        """The rows of those that are there and whole."""
        names = (
            "namespace",
            "collection",
            "object",
            "kind",
            "state",
            "run",
            "generation",
            "ended",
            "manifest",
            "error",
        )
        pipe = self._client.pipeline(transaction=False)
        for task_id in task_ids:
            pipe.hmget(self._key("task", task_id), *names, "source_sha256", "spec_hash")
        rows = zip(task_ids, self._do(pipe.execute), strict=True)
        return [_audited(task_id, row) for task_id, row in rows if row[0] and row[1] and row[2] and row[5]]

    # ------------------------------------------------------------ judging

    def audit_tasks(self, task_ids: Sequence[str], *, repair: int) -> Iterator[dict[str, Any]]:
        """Findings about tasks, their objects and items; `repair` 0: none, 1: all but to start what waits, 2: all."""
        pipe = self._client.pipeline(transaction=False)
        for task_id in task_ids:
            pipe.hget(self._key("task", task_id), "shards")
        batch: list[str] = []
        held = 0
        for task_id, shards in zip(task_ids, self._do(pipe.execute), strict=True):
            size = int(shards) if shards and shards.isdigit() else 0
            if batch and (len(batch) >= _TASKS or held + size > _SHARDS):
                yield from self._findings("audit", repair, *batch)
                batch, held = [], 0
            batch.append(task_id)
            held += size
        if batch:
            yield from self._findings("audit", repair, *batch)

    def audit_place(self, place: Place, *, repair: bool) -> Iterator[dict[str, Any]]:
        """Findings about what stands in a place."""
        key, cursor = self._key(place.key), 0
        where = (place.kind, key, place.stage, place.flow, place.queue, place.name)
        while True:
            scan = self._client.zscan if place.sorted else self._client.sscan
            cursor, found = self._do(partial(scan, key, cursor, count=_PAGE))
            items = [entry[0] if place.sorted else entry for entry in found]
            for start in range(0, max(1, len(items)), _ITEMS):
                yield from self._findings("audit_places", repair, *where, *items[start : start + _ITEMS])
            if cursor == 0:
                return

    def audit_items(self, items: Iterable[str], *, repair: bool) -> Iterator[dict[str, Any]]:
        """Findings about items that no task knows of."""
        return self._findings("audit_items", repair, *items)

    def audit_objects(self, keys: Iterable[str], *, repair: bool) -> Iterator[dict[str, Any]]:
        """Findings about rows of objects; keys without the prefix."""
        return self._findings("audit_objects", repair, *(self._key(key) for key in keys))

    def _findings(self, name: str, repair: int, *arguments: str) -> Iterator[dict[str, Any]]:
        for text in self._run(name, int(repair), *arguments):
            yield json.loads(text)

    # ------------------------------------------------------------ counting

    def counters(self) -> dict[str, dict[str, int]]:
        """`states`, `staged` and `waiting:STAGE` as the ledger keeps them; those of nothing left out."""
        names = ["states", "staged", *(f"waiting:{stage}" for stage in Stage)]
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.hgetall(self._key(name))
        return {
            name: {field: int(n) for field, n in found.items() if int(n)}
            for name, found in zip(names, self._do(pipe.execute), strict=True)
        }

    def count(self, places: Iterable[Place]) -> dict[str, dict[str, int]]:
        """The same, counted one by one."""
        found: dict[str, dict[str, int]] = {"states": {}, "staged": {}, **{f"waiting:{stage}": {} for stage in Stage}}
        for namespace in self.namespaces():
            for page in self.task_ids(namespace):
                for start in range(0, len(page), _TASKS):
                    (text,) = self._run("audit_count", *page[start : start + _TASKS])
                    for name, counts in json.loads(text).items():
                        _add(found[name], counts)
        for place in {*places, *self._queues()}:
            if place.kind in ("line", "suspects"):
                size = self._do(partial(self._client.zcard, self._key(place.key)))
                _add(found[f"waiting:{place.stage}"], {place.queue: size})
        return {name: {field: n for field, n in counts.items() if n} for name, counts in found.items()}

    def _queues(self) -> Iterator[Place]:
        """The lines that a claim would find, and the suspects of queues in which something waits."""
        for stage in Stage:
            for queue in self._do(partial(self._client.hkeys, self._key("waiting", stage))):
                yield Place("suspects", f"suspects:{stage}:{queue}", str(stage), queue=queue)
            for namespace in self.namespaces():
                for flow in (f"{order}|{namespace}" for order, _ in enumerate(Lane)):
                    for queue in self._do(partial(self._client.smembers, self._key("lines", stage, flow))):
                        yield Place("line", f"line:{stage}:{flow}:{queue}", str(stage), flow, queue)

    def pulse(self) -> tuple[Any, ...]:
        """Equal at two looks, as are the counters: no task has moved in between."""
        pipe = self._client.pipeline(transaction=False)
        pipe.get(self._key("epoch"))
        pipe.zcard(self._key("leases"))
        pipe.zcard(self._key("due"))
        pipe.zcard(self._key("terminal"))
        epoch, leases, due, ended = self._do(pipe.execute)
        return self.last_event(), epoch, leases, due, ended

    # ------------------------------------------------------------ repairs

    def fix_counter(self, name: str, field: str, was: int, is_: int) -> bool:
        """Set a counter right, unless it has moved since."""
        return bool(self._run("audit_fix", "count", name, field, was, is_))

    def fix_state(self, task_id: str, state: str) -> bool:
        """Give an ended task the state that its event tells of."""
        return bool(self._run("audit_fix", "state", task_id, state))

    def fix_shard(self, task_id: str, n: int, tokens: int, input_hash: str) -> bool:
        """Have a shard embedded that the ledger has lost."""
        return bool(self._run("audit_fix", "shard", task_id, n, tokens, input_hash))

    def fix_event(self, task: AuditedTask, extra: str) -> bool:
        """Write a terminal event that is missing, under the id that it has always had."""
        return bool(self._run("audit_fix", "event", task.task_id, task.run, extra))

    def fix_slot(self, stage: str, worker: str) -> bool:
        """Forget a worker that is none."""
        return bool(self._run("audit_fix", "slot", stage, worker))

    # ------------------------------------------------------------ the stream, and who looks after it all

    def stream(self, after: str) -> Iterator[tuple[str, str]]:
        """(stream id, event as JSON) after an id."""
        key = self._key("events")
        while page := self._do(partial(self._client.xrange, key, min=f"({after}", count=_PAGE)):
            yield from ((entry_id, fields.get("event", "")) for entry_id, fields in page)
            after = page[-1][0]

    def covered_since(self) -> int | None:
        """Milliseconds since when the stream has every event; None where it has none."""
        first = self._do(lambda: self._client.xrange(self._key("events"), count=1))
        return int(first[0][0].partition("-")[0]) if first else None

    def drop_event(self, entry_id: str) -> bool:
        """Remove an entry of the stream."""
        return bool(self._do(lambda: self._client.xdel(self._key("events"), entry_id)))

    def neglected(self, seconds: float) -> tuple[int, int]:
        """Leases that ended, and retries that fell due, longer ago than this."""
        now, micros = self._do(self._client.time)
        before = int(now) * 1000 + int(micros) // 1000 - int(seconds * 1000)
        pipe = self._client.pipeline(transaction=False)
        pipe.zcount(self._key("leases"), "-inf", before)
        pipe.zcount(self._key("due"), "-inf", before)
        leases, due = self._do(pipe.execute)
        return int(leases), int(due)

    def lost_slots(self) -> list[tuple[str, str]]:
        """(stage, worker) of workers that count for a stage and are not among the live ones."""
        pairs = [
            (str(stage), str(worker))
            for stage in Stage
            for worker in self._do(partial(self._client.hkeys, self._key("slots", stage)))
        ]
        seen = [self._do(partial(self._client.zscore, self._key("workers"), worker)) for _, worker in pairs]
        return [pair for pair, at in zip(pairs, seen, strict=True) if at is None]


def _audited(task_id: str, row: Sequence[Any]) -> AuditedTask:
    state = row[4] if row[4] in set(TaskState) else None
    return AuditedTask(
        task_id=task_id,
        namespace=row[0],
        collection=row[1],
        object_id=row[2],
        kind=row[3] or "ingest",
        state=TaskState(state) if state else None,
        run=int(row[5]),
        generation=int(row[6] or 0),
        ended=int(row[7] or 0),
        manifest=row[8] or "",
        error=row[9] or "",
        source=row[10] or "",
        spec_hash=row[11] or "",
    )


def _add(counts: dict[str, int], more: Mapping[str, int]) -> None:
    for name, number in more.items():
        counts[name] = counts.get(name, 0) + int(number)
