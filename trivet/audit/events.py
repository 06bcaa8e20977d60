"""The stream's side: every task that has ended has one terminal event, as far back as the stream goes."""

from __future__ import annotations

import json
from collections.abc import Sequence

from trivet.audit.report import Findings
from trivet.errors import TrivetError
from trivet.ids import event_id
from trivet.ledger.redis_auditing import AuditedTask, RedisAuditing
from trivet.names import TERMINAL_EVENTS, EventKind
from trivet.settings import Settings
from trivet.stores import ObjectStore
from trivet.stores.values import read_value
from trivet.values import Manifest, TaskState, dump

_KINDS = {state: EventKind(f"ingest.{state}") for state in TaskState if state.terminal}
_TYPES = {f"trivet.{kind}" for kind in TERMINAL_EVENTS}


class EventAudit:
    """Reads the stream before the tasks, and once more what came since: an event is written with its transition."""

    def __init__(self, ledger: RedisAuditing, store: ObjectStore, settings: Settings, found: Findings) -> None:
        self._ledger = ledger
        self._store = store
        self._settings = settings
        self._found = found
        #: Ids of terminal events; at most as many as the stream keeps.
        self._seen: set[str] = set()
        self._last = "0-0"
        self._suspects: list[AuditedTask] = []

    def read(self) -> None:
        """What has come since the last time."""
        for entry_id, text in self._ledger.stream(self._last):
            self._last = entry_id
            event = _parsed(text)
            if event is None:
                self._found.add("event_damaged", entry_id, "it cannot be read")
            elif event["type"] in _TYPES:
                if event["id"] in self._seen:
                    repaired = self._found.repair and self._ledger.drop_event(entry_id)
                    detail = f"a second terminal event {event['id']}"
                    self._found.add("event_doubled", entry_id, detail, repaired=repaired)
                self._seen.add(event["id"])

    def state_of(self, task: AuditedTask) -> str:
        """How the present run of a task has ended, or nothing."""
        for state, kind in _KINDS.items():
            if event_id(task.task_id, task.run, kind) in self._seen:
                return state
        return ""

    def look(self, tasks: Sequence[AuditedTask]) -> None:
        """Keep those whose event has not been seen."""
        since = self._ledger.covered_since()
        self._suspects += [task for task in tasks if _covered(task, since) and _id(task) not in self._seen]

    def judge(self) -> None:
        """After all tasks: whose event has not come either."""
        self.read()
        since = self._ledger.covered_since()
        for task in self._suspects:
            if not _covered(task, since) or _id(task) in self._seen:
                continue
            repaired = self._found.repair and self._ledger.fix_event(task, self._extra(task))
            self._found.add(
                "event_missing", task.task_id, f"it is {task.state} and the stream does not say so", repaired=repaired
            )

    def _extra(self, task: AuditedTask) -> str:
        """What the event says beside the task's row; a receipt is known from the manifest alone."""
        if task.state is TaskState.FAILED:
            return f'"error":{task.error}' if task.error else ""
        if task.state not in (TaskState.COMPLETED, TaskState.DELETED) or not task.manifest:
            return ""
        extra = f'"manifest":{json.dumps(task.manifest)}'
        try:
            found = read_value(self._store, task.manifest, Manifest)
        except TrivetError:
            found = None
        return extra + (f',"receipt":{dump(found[0].receipt)}' if found else "")


def _parsed(text: str) -> dict[str, str] | None:
    try:
        event = json.loads(text)
        return {"id": str(event["id"]), "type": str(event["type"])}
    except (ValueError, KeyError, TypeError):
        return None


def _id(task: AuditedTask) -> str:
    return event_id(task.task_id, task.run, _KINDS[task.state]) if task.state in _KINDS else ""


def _covered(task: AuditedTask, since: int | None) -> bool:
    """Whether the stream must have the end of the task."""
    return task.state in _KINDS and since is not None and task.ended > since
