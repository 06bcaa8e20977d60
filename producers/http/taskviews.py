"""Tasks as the API shows them: those of the ledger, and batches as a whole."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from producers.http import batching
from producers.http.answers import STATUS_OF, Status, timestamp
from producers.http.context import Context
from producers.http.naming import collection_id
from trivet.ledger.refusals import unknown_task
from trivet.names import TaskKind
from trivet.values import TaskView

#: Mixpeek's word for each kind.
TYPE_OF = {
    TaskKind.INGEST: "engine_feature_extractor_run",
    TaskKind.DELETE: "api_collections_documents_bulk_delete",
}
BATCH_TYPE = "api_buckets_batches_process"


class Progress(BaseModel):
    """How far it is."""

    shards: int = 0
    shards_done: int = 0
    tokens: int = 0
    tokens_done: int = 0
    percent: float


class TaskAnswer(BaseModel):
    """A task."""

    task_id: str
    task_type: str = Field(examples=["engine_feature_extractor_run"])
    status: Status
    inputs: list[str] = Field(description="The object, or nothing for a batch.")
    outputs: list[str]
    error: str | None = None
    error_code: str | None = None
    collection_id: str | None = None
    object_id: str | None = None
    batch_id: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    progress: Progress
    additional_data: dict[str, Any] = Field(
        description="`view` is the task as the library has it; a batch has `counts` by state."
    )


def of_task(view: TaskView) -> TaskAnswer:
    """One of the ledger's."""
    done = view.tokens_done / view.tokens if view.tokens else 0.0
    percent = 100.0 if view.state.terminal else round(100 * done, 1)
    return TaskAnswer(
        task_id=view.task_id,
        task_type=TYPE_OF[view.kind],
        status=STATUS_OF[view.state],
        inputs=[view.object_id],
        outputs=[view.manifest_key] if view.manifest_key else [],
        error=f"{view.error.message} {view.error.hint}".strip() if view.error else None,
        error_code=view.error.code if view.error else None,
        collection_id=collection_id(view.namespace, view.collection),
        object_id=view.object_id,
        created_at=timestamp(view.created_at),
        updated_at=timestamp(view.updated_at),
        progress=Progress(
            shards=view.shards,
            shards_done=view.shards_done,
            tokens=view.tokens,
            tokens_done=view.tokens_done,
            percent=percent,
        ),
        additional_data={"view": view.model_dump(mode="json"), "reason": view.reason},
    )


def of_batch(context: Context, namespace: str, batch_id: str, batch: batching.KeptBatch) -> TaskAnswer:
    """A batch as a whole."""
    found = batching.standing(context, namespace, batch_id, batch)
    open_ = ("waiting", "queued", "preparing", "embedding", "committing")
    left = sum(found.counts.get(state, 0) for state in open_)
    failed = found.counts.get("failed", 0) + found.counts.get("refused", 0)
    total = found.total or 1
    return TaskAnswer(
        task_id=batching.task_of(batch_id),
        task_type=BATCH_TYPE,
        status=found.status,
        inputs=[],
        outputs=[],
        error=f"{failed} of {found.total} failed; see the batch's failed documents." if failed else None,
        error_code="items_failed" if failed else None,
        collection_id=collection_id(namespace, batch.collections[0]) if batch.collections else None,
        batch_id=batch_id,
        created_at=timestamp(batch.created_at),
        progress=Progress(percent=0.0 if found.status is Status.DRAFT else round(100 * (total - left) / total, 1)),
        additional_data={"counts": found.counts, "total": found.total, "bucket_id": batch.bucket_id},
    )


def task_answer(context: Context, namespace: str, task_id: str) -> TaskAnswer:
    """Either, by id. Raises `UnknownTask`; also for a task of another namespace."""
    batch_id = batching.batch_of(task_id)
    if batch_id is not None:
        found = batching.shelf(context, namespace).find(batch_id)
        if found is None:
            raise unknown_task(task_id)
        return of_batch(context, namespace, *found)
    return of_task(view_of(context, namespace, task_id))


def view_of(context: Context, namespace: str, task_id: str) -> TaskView:
    """A task of the ledger. Raises `UnknownTask`; also for one of another namespace."""
    view = context.ledger.task(task_id)
    if view is None or view.namespace != namespace:
        raise unknown_task(task_id)
    return view


def has_ended(answer: TaskAnswer) -> bool:
    """Whether nothing more will happen by itself."""
    return answer.status not in (Status.PENDING, Status.QUEUED, Status.PROCESSING, Status.DRAFT)
