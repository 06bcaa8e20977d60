"""The judgement of a row. It reads what S3 holds and what the event log says, and nothing else."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trivet.errors import NotInStore
from trivet.names import TERMINAL_EVENTS, EventKind
from trivet.stores import ObjectStore
from trivet.stores.layout import Layout
from trivet.values import Current, Event, Manifest

if TYPE_CHECKING:
    from trivet.values import Part

_THREADS = 8
#: More of one kind are counted, not told one by one.
_TOLD = 5


@dataclass(frozen=True, slots=True)
class Given:
    """One task as its client knows it: accepted, and what must become of it."""

    task_id: str
    object_id: str
    #: A poison document must fail; every other one must be completed.
    healthy: bool = True


@dataclass(frozen=True, slots=True)
class SeenObject:
    """What S3 holds of one object."""

    object_id: str
    #: None where nothing was ever made visible.
    current: Current | None
    #: Every manifest under `g/`, visible or not.
    manifests: tuple[Manifest, ...]
    #: Chunk ids of the visible generation, as its parts hold them.
    chunk_ids: tuple[str, ...] = ()
    #: Parts that the visible manifest lists and that are not there, or hold other rows than it says.
    bad_parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Figures of one row, and a sentence for everything that must not be."""

    tasks: int
    lost: int
    doubled: int
    stale: int
    #: Fewest and most terminal events of one task, by distinct event id.
    terminal_min: int
    terminal_max: int
    dead_healthy: int
    violations: tuple[str, ...] = ()


@dataclass
class _Findings:
    found: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: str, sentence: str) -> None:
        self.found[kind].append(sentence)

    def count(self, kind: str) -> int:
        return len(self.found[kind])

    def sentences(self) -> tuple[str, ...]:
        told: list[str] = []
        for kind, sentences in self.found.items():
            told += sentences[:_TOLD]
            if len(sentences) > _TOLD:
                told.append(f"{len(sentences) - _TOLD} more are {kind}.")
        return tuple(told)


# ---------------------------------------------------------------- what S3 holds


def look(store: ObjectStore, layout: Layout) -> dict[str, SeenObject]:
    """Every object of a collection as it lies on S3, by its id."""
    manifests: dict[str, list[str]] = defaultdict(list)
    ids: set[str] = set()
    for stored in store.list(layout.objects()):
        object_id = layout.object_of(stored.key)
        if object_id is None:
            continue
        ids.add(object_id)
        if stored.key.endswith("/manifest.json"):
            manifests[object_id].append(stored.key)
    with ThreadPoolExecutor(_THREADS) as pool:
        seen = pool.map(lambda each: _look_at(store, layout, each, manifests[each]), sorted(ids))
        return {each.object_id: each for each in seen}


def _look_at(store: ObjectStore, layout: Layout, object_id: str, keys: Sequence[str]) -> SeenObject:
    found = tuple(Manifest.model_validate_json(store.get(key)[0]) for key in keys)
    try:
        current = Current.model_validate_json(store.get(layout.current(object_id))[0])
    except NotInStore:
        return SeenObject(object_id, None, found)
    if current.tombstone:
        return SeenObject(object_id, current, found)
    chunk_ids: list[str] = []
    bad: list[str] = []
    for manifest in found:
        if manifest.generation == current.generation:
            for part in manifest.parts:
                rows = _rows(store, part)
                chunk_ids += rows or ()
                if rows is None or len(rows) != part.rows:
                    bad.append(part.key)
    return SeenObject(object_id, current, found, tuple(chunk_ids), tuple(bad))


def _rows(store: ObjectStore, part: Part) -> list[str] | None:
    import pyarrow.parquet as pq

    try:
        with store.open(part.key) as file:
            ids: list[str] = pq.read_table(file, columns=["chunk_id"])["chunk_id"].to_pylist()
    except NotInStore:
        return None
    return ids


# ---------------------------------------------------------------- the judgement


def judge(
    given: Sequence[Given], seen: Mapping[str, SeenObject], events: Sequence[Event], *, replayed: bool = False
) -> Verdict:
    """Hold what was promised against what is there.

    `replayed`: Redis may have forgotten its last moments, so that an event is said again, with the same id.
    """
    findings = _Findings()
    ended = _terminal(events, findings, replayed)
    counts = [len(ended.get(task.task_id, {})) for task in given]
    for task in given:
        _judge_task(task, ended.get(task.task_id, {}), seen.get(task.object_id), findings)
    known = {task.task_id for task in given}
    for task_id in ended.keys() - known:
        findings.add("doubled", f"Task {task_id} has ended, and no client was ever told of it.")
    _judge_objects(seen, ended, findings)
    return Verdict(
        tasks=len(given),
        lost=findings.count("lost"),
        doubled=findings.count("doubled"),
        stale=findings.count("stale"),
        terminal_min=min(counts, default=0),
        terminal_max=max(counts, default=0),
        dead_healthy=findings.count("dead-lettered though healthy"),
        violations=findings.sentences(),
    )


def _terminal(events: Iterable[Event], findings: _Findings, replayed: bool) -> dict[str, dict[str, Event]]:
    """Task id → event id → terminal event."""
    kinds = {f"trivet.{kind}" for kind in TERMINAL_EVENTS}
    times: Counter[str] = Counter()
    ended: dict[str, dict[str, Event]] = defaultdict(dict)
    for event in events:
        times[event.id] += 1
        if event.type in kinds:
            ended[event.data["task_id"]][event.id] = event
            if times[event.id] == 2 and not replayed:
                findings.add("doubled", f"Task {event.data['task_id']} has its event {event.type} twice in the stream.")
    return ended


def _judge_task(task: Given, ended: Mapping[str, Event], found: SeenObject | None, findings: _Findings) -> None:
    name = f"Task {task.task_id} of {task.object_id}"
    if not ended:
        findings.add("lost", f"{name} was accepted and has no terminal event.")
        return
    if len(ended) > 1:
        kinds = ", ".join(event.type for event in ended.values())
        findings.add("ended more than once", f"{name} has {len(ended)} terminal events: {kinds}.")
    last = list(ended.values())[-1]
    if last.type == f"trivet.{EventKind.COMPLETED}":
        if not task.healthy:
            findings.add("completed though poison", f"{name} is poison and was completed.")
        elif found is None or found.current is None:
            findings.add("lost", f"{name} is completed, and nothing of it is visible.")
        elif found.bad_parts or not found.chunk_ids:
            bad = ", ".join(found.bad_parts) or "it has no chunks"
            findings.add("lost", f"{name} is completed, and its visible parts are not whole: {bad}.")
    elif task.healthy:
        error = json.dumps(last.data.get("error") or {}, sort_keys=True)
        kind = "dead-lettered though healthy" if last.type == f"trivet.{EventKind.FAILED}" else "not completed"
        findings.add(kind, f"{name} is healthy and ended as {last.data['state']}: {error}.")
    elif last.type != f"trivet.{EventKind.FAILED}":
        findings.add("not completed", f"{name} is poison and ended as {last.data['state']}.")


def _judge_objects(
    seen: Mapping[str, SeenObject], ended: Mapping[str, Mapping[str, Event]], findings: _Findings
) -> None:
    completed: dict[str, list[Event]] = defaultdict(list)
    for events in ended.values():
        for event in events.values():
            if event.type == f"trivet.{EventKind.COMPLETED}":
                completed[event.data["object_id"]].append(event)
    for found in seen.values():
        generations = Counter(manifest.task_id for manifest in found.manifests)
        for task_id, times in generations.items():
            if times > 1:
                findings.add("doubled", f"Task {task_id} of {found.object_id} has {times} committed generations.")
        for chunk_id, times in Counter(found.chunk_ids).items():
            if times > 1:
                findings.add("doubled", f"Chunk {chunk_id} of {found.object_id} is visible {times} times.")
        if found.current is not None:
            _judge_visible(found, found.current, completed.get(found.object_id, []), findings)


def _judge_visible(found: SeenObject, current: Current, completed: Sequence[Event], findings: _Findings) -> None:
    name = f"{found.object_id} shows generation {current.generation} of task {current.task_id}"
    mine = [m for m in found.manifests if m.generation == current.generation]
    if not mine or mine[0].task_id != current.task_id or mine[0].input_hash != current.input_hash:
        findings.add("stale", f"{name}, and its manifest is missing or another task's.")
    if any(part.shard in seen for seen, part in _shards_before(mine)):
        findings.add("doubled", f"{name}, and its manifest lists a shard twice.")
    newest = max(completed, key=lambda event: event.data["generation"] or 0, default=None)
    if newest is None:
        findings.add("stale", f"{name}, and no task of it was ever completed.")
    elif newest.data["task_id"] != current.task_id or newest.data["generation"] != current.generation:
        told = f"{newest.data['generation']} of task {newest.data['task_id']}"
        findings.add("stale", f"{name}, and the newest completed one is {told}.")


def _shards_before(manifests: Sequence[Manifest]) -> Iterable[tuple[set[int], Part]]:
    seen: set[int] = set()
    for manifest in manifests:
        for part in manifest.parts:
            yield set(seen), part
            seen.add(part.shard)
