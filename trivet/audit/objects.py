"""S3's side: pointers, manifests and parts, and whether the ledger's results are there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from trivet.audit.report import Findings
from trivet.commit import Published, Superseded, publish, read_manifest, read_pointer
from trivet.errors import StoreDamaged
from trivet.gc.rules import Holdings, holdings, left_over
from trivet.ledger.redis_auditing import AuditedTask, RedisAuditing
from trivet.rebuild.records import layouts
from trivet.retrieval.visible import in_order
from trivet.settings import Settings
from trivet.stores import ObjectStore
from trivet.stores.layout import Layout
from trivet.stores.values import read_value
from trivet.values import Current, Manifest, TaskState

#: Looks at an object that is replaced just then.
_LOOKS = 3


def audit_results(
    store: ObjectStore, settings: Settings, found: Findings, pool: Executor, tasks: Sequence[AuditedTask]
) -> None:
    """Whether readers see what completed tasks have made and deletes have hidden, or something newer."""
    results = [task for task in tasks if task.state in (TaskState.COMPLETED, TaskState.DELETED) and task.generation]
    for task, problem in in_order(pool, lambda task: (task, _problem(store, settings, task)), results, 64):
        if problem:
            repaired = found.repair and _show(store, settings, task)
            found.add("not_visible", task.task_id, problem, repaired=repaired)


def _problem(store: ObjectStore, settings: Settings, task: AuditedTask) -> str:
    layout = Layout.of(settings, task.namespace, task.collection)
    try:
        current = read_pointer(store, layout, task.object_id)
    except StoreDamaged as error:
        return error.message.rstrip(".")
    if current is None or current.generation < task.generation:
        seen = f"generation {current.generation}" if current else "nothing"
        return f"it is {task.state} with generation {task.generation}, and readers see {seen}"
    if current.generation == task.generation and current.task_id != task.task_id:
        return f"it is {task.state} with generation {task.generation}, which is that of task {current.task_id}"
    return ""


def _show(store: ObjectStore, settings: Settings, task: AuditedTask) -> bool:
    """Its manifest may be there yet: then the pointer is moved up to it again."""
    layout = Layout.of(settings, task.namespace, task.collection)
    try:
        manifest = read_manifest(store, layout, task.object_id, task.generation)
        if manifest is None or manifest.task_id != task.task_id:
            return False
        return isinstance(publish(store, layout, manifest), Published | Superseded)
    except StoreDamaged:
        return False


@dataclass(frozen=True)
class ObjectAudit:
    """Looks at every object of every collection: one listing, and two small keys for each."""

    ledger: RedisAuditing
    store: ObjectStore
    settings: Settings
    found: Findings
    pool: Executor

    def run(self, now: float) -> None:
        """All of them; `now` in Unix seconds."""
        # What garbage collection has had two rounds' time for.
        overdue = now - 2 * self.settings.gc_seconds
        for layout in layouts(self.settings, self.store):
            listed = holdings(layout, self.store.list(layout.objects()))
            for problems in in_order(self.pool, lambda held: self._look(layout, held, overdue), listed, 64):  # noqa: B023 - done within the turn
                self.found.objects += 1
                for code, where, detail in problems:
                    self.found.add(code, where, detail)

    def _look(self, layout: Layout, held: Holdings, overdue: float) -> list[tuple[str, str, str]]:
        try:
            current, problems = self._visible(layout, held)
        except StoreDamaged as error:
            return [("unreadable", layout.object(held.object_id), error.message.rstrip("."))]
        return problems + list(self._orphans(layout, held, current, overdue))

    def _visible(self, layout: Layout, held: Holdings) -> tuple[Current | None, list[tuple[str, str, str]]]:
        """The pointer, and what is wrong with the generation that it names."""
        sizes = {stored.key: stored.size for folder in held.generations.values() for stored in folder.keys}
        current: Current | None = None
        problems: list[tuple[str, str, str]] = []
        for _ in range(_LOOKS):
            current = read_pointer(self.store, layout, held.object_id)
            problems = list(self._wrong(current, sizes)) if current else []
            if not problems:
                break
            # The listing may be older than the pointer, and the pointer have moved since.
            folder = layout.generations(held.object_id)
            sizes = {stored.key: stored.size for stored in self.store.list(folder)}
        return current, problems

    def _wrong(self, current: Current, sizes: dict[str, int]) -> Iterator[tuple[str, str, str]]:
        manifest = read_value(self.store, current.manifest, Manifest)
        if manifest is None:
            yield "no_manifest", current.manifest, "current.json names it and it is not there"
            return
        for part in manifest[0].parts:
            if part.key not in sizes:
                yield "no_part", part.key, "a visible manifest lists it and it is not there"
            elif sizes[part.key] != part.bytes:
                yield "part_size", part.key, f"it has {sizes[part.key]} bytes, and its manifest says {part.bytes}"

    def _orphans(
        self, layout: Layout, held: Holdings, current: Current | None, overdue: float
    ) -> Iterator[tuple[str, str, str]]:
        left = [folder for folder in left_over(held, current, self.settings, overdue) if folder.kind == "abandoned"]
        if left and not self.ledger.object_busy(layout.namespace, layout.collection, held.object_id):
            for folder in left:
                detail = f"{len(folder.keys)} keys that nobody needs and no gc process has removed; see `trivet gc`"
                yield "orphan_parts", folder.keys[0].key.rpartition("/")[0] + "/", detail
