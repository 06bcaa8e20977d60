"""A task's ledger row as anyone may see it."""

from __future__ import annotations

from collections.abc import Mapping

from trivet.names import Lane
from trivet.values import ErrorRecord, TaskState, TaskView

_NEXT = {
    TaskState.WAITING: "waits: another task of this object is active",
    TaskState.QUEUED: "waits for a prepare worker",
    TaskState.PREPARING: "a prepare worker fetches, parses and chunks it",
    TaskState.EMBEDDING: "waits for, or is with, an embed worker",
    TaskState.COMMITTING: "a commit worker publishes it",
    TaskState.COMPLETED: "committed and visible",
    TaskState.SKIPPED: "content, pipeline and metadata unchanged since the visible generation",
    TaskState.FAILED: "failed; ingest it again once the cause is gone",
    TaskState.CANCELLED: "cancelled on request",
    TaskState.SUPERSEDED: "a newer task of this object took its place",
}


def task_view(task_id: str, fields: Mapping[str, str], shards_done: int) -> TaskView:
    """The view of one task hash; `shards_done` is the size of its set of parts."""
    state = TaskState(fields["state"])
    error = ErrorRecord.model_validate_json(fields["error"]) if fields.get("error") else None
    reason = _NEXT[state]
    if state is TaskState.EMBEDDING and fields.get("queue"):
        reason += f" that serves {fields['queue']}"
    if error and not state.terminal:
        reason = f"failed in {error.stage} and is tried again: {error.message}"
    return TaskView(
        task_id=task_id,
        namespace=fields["namespace"],
        collection=fields["collection"],
        object_id=fields["object"],
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
