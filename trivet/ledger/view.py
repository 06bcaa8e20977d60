"""A task's ledger row as anyone may see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trivet.names import Lane, Stage, TaskKind
from trivet.values import ErrorRecord, ItemView, TaskState, TaskView, Waiting

_NEXT = {
    TaskState.WAITING: "waits: another task of this object is active",
    TaskState.QUEUED: "waits for a prepare worker",
    TaskState.PREPARING: "a prepare worker fetches, parses and chunks it",
    TaskState.EMBEDDING: "waits for, or is with, an embed worker",
    TaskState.COMMITTING: "a commit worker publishes it",
    TaskState.COMPLETED: "committed and visible",
    TaskState.SKIPPED: "content, pipeline and metadata unchanged since the visible generation",
    TaskState.FAILED: "failed; retry it once the cause is gone",
    TaskState.CANCELLED: "cancelled on request",
    TaskState.SUPERSEDED: "a newer task of this object took its place",
    TaskState.DELETED: "a tombstone hides the object",
}
#: Details of more work items than this help nobody.
_SHOWN = 20


def task_view(task_id: str, fields: Mapping[str, str], shards_done: int) -> TaskView:
    """The view of one task hash; `shards_done` is the size of its set of parts."""
    state = TaskState(fields["state"])
    error = ErrorRecord.model_validate_json(fields["error"]) if fields.get("error") else None
    reason = _NEXT[state]
    if fields.get("kind") == TaskKind.DELETE and state is TaskState.QUEUED:
        reason = "waits for a commit worker, which writes its tombstone"
    if fields.get("kind") == TaskKind.DELETE and state is TaskState.SKIPPED:
        reason = "there was nothing to delete"
    if state is TaskState.EMBEDDING and fields.get("queue"):
        reason += f" that serves {fields['queue']}"
    if error and not state.terminal:
        reason = f"failed in {error.stage} and is tried again: {error.message}"
    return TaskView(
        task_id=task_id,
        namespace=fields["namespace"],
        collection=fields["collection"],
        object_id=fields["object"],
        kind=TaskKind(fields.get("kind") or TaskKind.INGEST),
        url=fields["url"],
        state=state,
        lane=Lane(fields["lane"]),
        run=int(fields["run"]),
        created_at=int(fields["created"]) / 1000,
        updated_at=int(fields.get("updated") or fields["created"]) / 1000,
        generation=int(fields["generation"]) if fields.get("generation") else None,
        shards=int(fields.get("shards") or 0),
        shards_done=int(fields.get("shards_done") or shards_done),
        tokens=int(fields.get("tokens") or 0),
        tokens_done=int(fields.get("tokens_done") or 0),
        pages=int(fields.get("pages") or 0),
        chunks=int(fields.get("chunks") or 0),
        manifest_key=fields.get("manifest") or None,
        error=error,
        reason=reason,
    )


def explain(
    view: TaskView,
    items: Sequence[ItemView],
    *,
    at_stage: int,
    paused: Mapping[str, str],
    workers: Mapping[str, Mapping[str, Any]],
    blocker: str | None,
) -> Waiting:
    """Why a task is where it is. `at_stage`: items that wait at its stage; `blocker`: its object's active task."""
    counts: dict[str, int] = {}
    for item in items:
        counts[item.state] = counts.get(item.state, 0) + 1
    # What is being worked on says most, then what comes soonest.
    order = {"leased": 0, "due": 1, "pending": 2, "parked": 3}
    first = sorted(items, key=lambda item: (order.get(item.state, 9), item.n))
    reason, following = _because(view, first, paused, workers, blocker)
    return Waiting(
        task_id=view.task_id,
        state=view.state,
        lane=view.lane,
        reason=reason,
        next_step=following,
        items=counts,
        first=tuple(first[:_SHOWN]),
        waiting_at_stage=at_stage,
    )


def _because(
    view: TaskView,
    items: Sequence[ItemView],
    paused: Mapping[str, str],
    workers: Mapping[str, Mapping[str, Any]],
    blocker: str | None,
) -> tuple[str, str]:
    """Reason and next step, one sentence each."""
    if view.state.terminal:
        again = view.state in (TaskState.FAILED, TaskState.CANCELLED)
        return _ended(view), f"Run it again: trivet retry {view.task_id}" if again else "Nothing more happens to it."
    if view.state is TaskState.WAITING:
        return f"Task {blocker} of the same object is active.", "It starts when that one has ended."
    if not items:
        return "It has no open work item.", "Run: trivet audit --repair"
    item = items[0]
    stage = f"{'an' if item.stage is Stage.EMBED else 'a'} {item.stage} worker"
    scopes = (view.namespace, f"{view.namespace}/{view.collection}")
    # What came since the pause stands in line until a worker comes by.
    scope = next((scope for scope in scopes if scope in paused), None)
    if item.state == "leased":
        return (
            f"{stage.capitalize()} ({item.worker}) works on it.",
            "The worker finishes it, or its lease ends and another takes it.",
        )
    if item.state == "due":
        cause = view.error.message if view.error else "An attempt failed."
        return f"The last attempt failed: {cause}", f"It is tried again in {max(0.0, item.retry_seconds or 0):.0f} s."
    if scope:
        return f"{scope} is paused: {paused[scope]}.", f"It goes on after: trivet resume {scope}"
    if item.state == "parked":
        return "It was held up by a pause.", "It is put back in line within seconds."
    return f"It waits for {stage}{_served(item, workers)}.", _turn(item)


def _ended(view: TaskView) -> str:
    # A cancelled task may have failed before; that is not why it ended.
    if view.error and view.state is TaskState.FAILED:
        return view.error.message
    return f"{_NEXT[view.state][0].upper()}{_NEXT[view.state][1:]}."


def _served(item: ItemView, workers: Mapping[str, Mapping[str, Any]]) -> str:
    """What is missing among the live workers, or nothing."""
    able = [info for info in workers.values() if item.stage in info.get("roles", ())]
    if not able:
        return ", and none is running"
    if item.stage is not Stage.EMBED or any(item.queue in info.get("queues", (item.queue,)) for info in able):
        return ""
    return f" that serves {item.queue}, and no running one does"


def _turn(item: ItemView) -> str:
    if item.suspect:
        return "A worker died with it: it is leased with few others next, or alone."
    if not item.ahead:
        return "It is the next of its lane and namespace."
    return f"{item.ahead} items of its lane and namespace stand before it."
