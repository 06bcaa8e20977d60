"""The ledger's side: one walk over all its keys, then its counters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from trivet.audit.report import Findings
from trivet.errors import TrivetError
from trivet.ledger.redis_auditing import AuditedTask, Place, RedisAuditing
from trivet.parts.plan import load_plan
from trivet.settings import Settings
from trivet.stores import ObjectStore
from trivet.stores.layout import Layout

_BATCH = 200
#: Looks at the counters before it is given up that the ledger stands still.
_LOOKS = 3
_SHARD = re.compile(r"([^/]+)/embed/(\d+)")


def audit_ledger(
    ledger: RedisAuditing,
    store: ObjectStore,
    settings: Settings,
    found: Findings,
    state_of: Callable[[AuditedTask], str],
) -> Iterator[list[AuditedTask]]:
    """Look at every task, work item, line and object; yields the tasks, batch by batch, as they are afterwards.

    `state_of` says from its event how a task has ended whose row no longer does.
    """
    walk = _Walk(ledger, store, settings, found, state_of)
    waiting: dict[str, list[str]] = {"task": [], "item": [], "object": []}
    for key in ledger.all_keys():
        kind, _, rest = key.partition(":")
        if place := Place.of(key):
            walk.places.add(place)
        elif kind in waiting and rest:
            waiting[kind].append(key if kind == "object" else rest)
            if len(waiting[kind]) >= _BATCH:
                yield from walk.look(kind, waiting[kind])
                waiting[kind] = []
    for kind, rest_of in waiting.items():
        yield from walk.look(kind, rest_of)
    walk.finish()
    for place in sorted(walk.places, key=lambda place: place.key):
        walk.note(ledger.audit_place(place, repair=found.repair))
    walk.watch()
    walk.count()


class _Walk:
    def __init__(
        self,
        ledger: RedisAuditing,
        store: ObjectStore,
        settings: Settings,
        found: Findings,
        state_of: Callable[[AuditedTask], str],
    ) -> None:
        self.ledger = ledger
        self.store = store
        self.settings = settings
        self.found = found
        self.state_of = state_of
        self.places: set[Place] = set()
        #: What is repaired once all tasks have been seen: which of an object's tasks is active is known then.
        self.stranded: list[str] = []
        self.objects: list[str] = []

    def note(self, findings: Iterable[dict[str, Any]]) -> None:
        for one in findings:
            self.found.add(one["code"], one["where"], one["detail"], repaired=one["repaired"])

    def look(self, kind: str, names: list[str]) -> Iterator[list[AuditedTask]]:
        repair = self.found.repair
        if kind == "item" and names:
            self.note(self.ledger.audit_items(names, repair=repair))
        elif kind == "object" and names:
            wrong = list(self.ledger.audit_objects(names, repair=False))
            self.objects += [one["where"] for one in wrong]
            self.note(wrong)
        elif names:
            ids = list(dict.fromkeys(names))
            for one in self.ledger.audit_tasks(ids, repair=repair):
                repaired = one["repaired"] or (repair and self._mend(one))
                self.found.add(one["code"], one["where"], one["detail"], repaired=repaired)
                self.stranded += [one["where"]] if one["code"] == "stranded" else []
            yield self.ledger.audited(ids)

    def finish(self) -> None:
        """Repairs that had to wait for all tasks."""
        if self.found.repair and self.stranded:
            self.note(self.ledger.audit_tasks(self.stranded, repair=2))
        if self.found.repair and self.objects:
            self.note(self.ledger.audit_objects(self.objects, repair=True))

    def _mend(self, one: dict[str, Any]) -> bool:
        """Repairs for which the ledger alone does not know enough."""
        if one["code"] == "no_state":
            for task in self.ledger.audited([one["where"]]):
                if state := self.state_of(task):
                    return self.ledger.fix_state(task.task_id, state)
        if one["code"] == "shard_lost" and (named := _SHARD.fullmatch(one["where"])):
            for task in self.ledger.audited([named[1]]):
                return self._restore_shard(task, int(named[2]))
        return False

    def _restore_shard(self, task: AuditedTask, n: int) -> bool:
        layout = Layout.of(self.settings, task.namespace, task.collection)
        try:
            plan = load_plan(self.store, layout, task.object_id, task.source, task.spec_hash)
        except TrivetError:
            return False
        shards = plan.shards if plan else ()
        if n >= len(shards):
            return False
        return self.ledger.fix_shard(task.task_id, n, shards[n].tokens, shards[n].input_hash)

    def watch(self) -> None:
        """Whether somebody looks after what has come to a halt."""
        patience = 3 * self.settings.lease_seconds + 5 * self.settings.sweep_seconds
        leases, due = self.ledger.neglected(patience)
        if leases or due:
            detail = f"{leases} leases have ended and {due} retries are due for more than {patience:g} s"
            self.found.add("no_sweeper", "sweep", f"{detail}: no process of the role sweep comes by")
        for stage, worker in self.ledger.lost_slots():
            repaired = self.found.repair and self.ledger.fix_slot(stage, worker)
            self.found.add("slot_ghost", f"{stage} {worker}", "it counts as a worker and is none", repaired=repaired)

    def count(self) -> None:
        """Counters against what is there, once the ledger has stood still for a whole look."""
        for _ in range(_LOOKS):
            kept, pulse = self.ledger.counters(), self.ledger.pulse()
            there = self.ledger.count(self.places)
            # In this order: what has moved since the first look shows in one of the last two.
            if self.ledger.pulse() == pulse and self.ledger.counters() == kept:
                self._compare(kept, there)
                return
        self.found.note("The counters were not judged: tasks moved at every look. Audit again when less is going on.")

    def _compare(self, kept: dict[str, dict[str, int]], there: dict[str, dict[str, int]]) -> None:
        for name, counts in there.items():
            for field in sorted(counts.keys() | kept[name].keys()):
                was, is_ = kept[name].get(field, 0), counts.get(field, 0)
                if was != is_:
                    repaired = self.found.repair and self.ledger.fix_counter(name, field, was, is_)
                    self.found.add("counter", f"{name} {field}", f"it says {was} and is {is_}", repaired=repaired)
