"""Batches: objects of a bucket that are taken in together."""

from __future__ import annotations

from fastapi import Request

from producers.http import batching
from producers.http.answers import Deleted, Status, timestamp
from producers.http.batching import KeptBatch, draft, shelf, submit
from producers.http.batchviews import (
    AuditAnswer,
    BatchAnswer,
    BatchRequest,
    FailedAnswer,
    FailedDocument,
    SubmitRequest,
)
from producers.http.buckets import buckets
from producers.http.caller import Caller, CallerOf
from producers.http.collections import enabled, kept_of
from producers.http.context import Context, ContextOf
from producers.http.edge.quota import charge
from producers.http.naming import collection_id, collection_named
from producers.http.once import new_id
from producers.http.paging import Page, PageBody, PageQuery, PageRequest, cursor_to, number_from, page_of
from producers.http.route import router as make_router
from producers.http.routes import tasks
from producers.http.taskviews import TaskAnswer, of_batch
from trivet.errors import Conflict, InvalidRequest
from trivet.resources.refusals import unknown_resource
from trivet.values import TaskState

router = make_router("batches")
_ERROR = "failed"


@router.post("/buckets/{bucket_identifier}/batches", operation_id="create_batch", summary="Create a batch")
def create(
    context: ContextOf, who: CallerOf, request: Request, bucket_identifier: str, asked: BatchRequest
) -> BatchAnswer:
    """It stays a draft until it is submitted, unless `auto_submit`."""
    if asked.filters:
        raise InvalidRequest("Objects cannot be chosen by filters.", hint="Name them in object_ids.")
    bucket_id, _ = buckets(context, who.namespace).get(bucket_identifier)
    object_ids = batching.chosen_objects(context, who.namespace, bucket_id, asked.object_ids)
    names = tuple(collection_named(context, who.namespace, each).name for each in asked.collection_ids or ())
    batch_id = new_id(request, "btch", 12)
    value = KeptBatch(
        created_at=context.clock.now(),
        bucket_id=bucket_id,
        collections=names,
        batch_name=asked.batch_name,
        object_count=len(object_ids),
    )
    kept = draft(context, who.namespace, batch_id, value, object_ids)
    if asked.auto_submit or asked.trigger_processing:
        kept = _submitted(context, who, batch_id, kept, None)
    return _answer(context, who, batch_id, kept, with_objects=True)


@router.get("/buckets/{bucket_identifier}/batches", operation_id="list_batches", summary="List batches of a bucket")
def list_by_query(context: ContextOf, who: CallerOf, bucket_identifier: str, asked: PageQuery) -> Page[BatchAnswer]:
    """The newest first."""
    return _page(context, who, bucket_identifier, asked)


@router.post(
    "/buckets/{bucket_identifier}/batches/list", operation_id="list_batches_post", summary="List batches of a bucket"
)
def list_by_body(context: ContextOf, who: CallerOf, bucket_identifier: str, asked: PageBody) -> Page[BatchAnswer]:
    """The same, asked in a body."""
    return _page(context, who, bucket_identifier, asked)


@router.get("/buckets/{bucket_identifier}/batches/{batch_id}", operation_id="get_batch", summary="Get a batch")
def get(context: ContextOf, who: CallerOf, bucket_identifier: str, batch_id: str) -> BatchAnswer:
    """How it stands now."""
    return _answer(context, who, batch_id, _of_bucket(context, who, bucket_identifier, batch_id), with_objects=True)


@router.get("/batches/{batch_id}", operation_id="get_any_batch", summary="Get a batch by its id alone")
def get_any(context: ContextOf, who: CallerOf, batch_id: str) -> BatchAnswer:
    """Also one of sources that were ingested without a bucket."""
    return _answer(context, who, *shelf(context, who.namespace).get(batch_id), with_objects=True)


@router.post(
    "/buckets/{bucket_identifier}/batches/{batch_id}/submit", operation_id="submit_batch", summary="Submit a batch"
)
def submit_batch(
    context: ContextOf, who: CallerOf, bucket_identifier: str, batch_id: str, asked: SubmitRequest | None = None
) -> TaskAnswer:
    """A task per object and collection. Submitted again, it answers how it stands."""
    kept = _of_bucket(context, who, bucket_identifier, batch_id)
    kept = _submitted(context, who, batch_id, kept, asked.collection_ids if asked else None)
    return of_batch(context, who.namespace, batch_id, kept)


@router.get(
    "/buckets/{bucket_identifier}/batches/{batch_id}/audit", operation_id="audit_batch", summary="Audit a batch"
)
def audit(context: ContextOf, who: CallerOf, bucket_identifier: str, batch_id: str) -> AuditAnswer:
    """Is every object accounted for? An object is lost where neither a task nor a refusal stands for it."""
    kept = _of_bucket(context, who, bucket_identifier, batch_id)
    found = batching.standing(context, who.namespace, batch_id, kept)
    lost: list[str] = []
    if kept.submitted_at is not None:
        wanted = [(n, o) for n in kept.collections for o in context.resources.links(who.namespace, batch_id)]
        there = {(item.collection, item.object_id) for item in batching.items_of(context, who.namespace, batch_id)}
        lost = [object_id for name, object_id in wanted if (name, object_id) not in there]
    return AuditAnswer(
        batch_id=batch_id,
        status=found.status,
        all_balanced=not lost,
        has_lost_objects=bool(lost),
        total_objects=kept.object_count,
        counts=found.counts,
        lost_object_ids=lost,
    )


@router.get(
    "/buckets/{bucket_identifier}/batches/{batch_id}/failed-documents",
    operation_id="list_failed_documents",
    summary="What of a batch failed, and why",
)
def failed(
    context: ContextOf, who: CallerOf, bucket_identifier: str, batch_id: str, limit: int = 100, offset: int = 0
) -> FailedAnswer:
    """Objects that were refused at once as well."""
    _of_bucket(context, who, bucket_identifier, batch_id)
    every = _failures(context, who, batch_id)
    limit, offset = min(max(limit, 1), 1000), max(offset, 0)
    page = every[offset : offset + limit]
    return FailedAnswer(
        batch_id=batch_id, results=page, failed_documents=page, total=len(every), limit=limit, offset=offset
    )


@router.post(
    "/buckets/{bucket_identifier}/batches/{batch_id}/retry", operation_id="retry_batch", summary="Run again what failed"
)
def retry(context: ContextOf, who: CallerOf, bucket_identifier: str, batch_id: str) -> TaskAnswer:
    """Every task that failed or was cancelled."""
    _of_bucket(context, who, bucket_identifier, batch_id)
    return tasks.retry(context, who, batching.task_of(batch_id))


@router.post(
    "/buckets/{bucket_identifier}/batches/{batch_id}/cancel", operation_id="cancel_batch", summary="Cancel a batch"
)
def cancel(context: ContextOf, who: CallerOf, bucket_identifier: str, batch_id: str) -> TaskAnswer:
    """Every task that can be."""
    _of_bucket(context, who, bucket_identifier, batch_id)
    return tasks.cancel(context, who, batching.task_of(batch_id))


@router.delete("/buckets/{bucket_identifier}/batches/{batch_id}", operation_id="delete_batch", summary="Forget a batch")
def delete(context: ContextOf, who: CallerOf, bucket_identifier: str, batch_id: str) -> Deleted:
    """Its tasks go on; only one that has ended, or is a draft, can be forgotten."""
    kept = _of_bucket(context, who, bucket_identifier, batch_id)
    found = batching.standing(context, who.namespace, batch_id, kept)
    if found.status in (Status.QUEUED, Status.PROCESSING):
        raise Conflict(f"Batch {batch_id} is on its way.", hint="Cancel it first.")
    shelf(context, who.namespace).delete(batch_id)
    context.resources.unlink(who.namespace, f"{batch_id}.tasks")
    return Deleted()


def _submitted(
    context: Context, who: Caller, batch_id: str, kept: KeptBatch, collection_ids: list[str] | None
) -> KeptBatch:
    if kept.submitted_at is not None:
        # Its sources are charged once.
        return kept
    named = [collection_named(context, who.namespace, each) for each in collection_ids or kept.collections]
    for collection in named:
        enabled(context, collection)
    names = tuple(one.name for one in named) or _takers(context, who, kept.bucket_id)
    if not names:
        raise InvalidRequest(
            f"No collection has the bucket {kept.bucket_id} as its source.", hint="Name one in collection_ids."
        )
    charge(context, who, kept.object_count * len(names))
    return submit(context, who.namespace, batch_id, names)


def _takers(context: Context, who: Caller, bucket_id: str) -> tuple[str, ...]:
    every = ((one.name, kept_of(context, who.namespace, one)) for one in context.ledger.collections(who.namespace))
    return tuple(name for name, kept in every if kept.enabled and bucket_id in kept.bucket_ids)


def _of_bucket(context: Context, who: Caller, bucket_identifier: str, batch_id: str) -> KeptBatch:
    bucket_id, _ = buckets(context, who.namespace).get(bucket_identifier)
    _, kept = shelf(context, who.namespace).get(batch_id)
    if kept.bucket_id != bucket_id:
        raise unknown_resource("batch", batch_id)
    return kept


def _failures(context: Context, who: Caller, batch_id: str) -> list[FailedDocument]:
    found = []
    items = sorted(
        batching.items_of(context, who.namespace, batch_id), key=lambda item: (item.object_id, item.collection)
    )
    views = context.ledger.views([item.task_id for item in items if item.task_id])
    for item in items:
        where = {"object_id": item.object_id, "collection_id": collection_id(who.namespace, item.collection)}
        if not item.task_id:
            code, _, message = item.error.partition(": ")
            found.append(FailedDocument(**where, error=message, error_type=code, retryable=False))
            continue
        view = views[item.task_id]
        if view is not None and view.state is TaskState.FAILED and view.error is not None:
            message = f"{view.error.message} {view.error.hint}".strip()
            found.append(
                FailedDocument(
                    **where,
                    task_id=item.task_id,
                    error=message,
                    error_type=view.error.code,
                    stage=view.error.stage,
                    retryable=True,
                )
            )
    return found


def _page(context: Context, who: Caller, bucket_identifier: str, asked: PageRequest) -> Page[BatchAnswer]:
    bucket_id, _ = buckets(context, who.namespace).get(bucket_identifier)
    after = number_from("batches", asked.cursor)
    results: list[BatchAnswer] = []
    rest = None
    while len(results) < asked.limit:
        # One at a time: batches of other buckets stand between them.
        found, rest = shelf(context, who.namespace).page(after, asked.limit - len(results))
        results += [_answer(context, who, each, kept) for each, kept in found if kept.bucket_id == bucket_id]
        if rest is None:
            break
        after = rest
    cursor = None if rest is None else cursor_to("batches", str(rest))
    return page_of(results, asked.limit, next_cursor=cursor)


def _answer(
    context: Context, who: Caller, batch_id: str, kept: KeptBatch, *, with_objects: bool = False
) -> BatchAnswer:
    found = batching.standing(context, who.namespace, batch_id, kept)
    failures = found.counts.get(_ERROR, 0) + found.counts.get("refused", 0)
    task = of_batch(context, who.namespace, batch_id, kept)
    return BatchAnswer(
        batch_id=batch_id,
        bucket_id=kept.bucket_id,
        batch_name=kept.batch_name,
        status=found.status,
        object_ids=list(context.resources.links(who.namespace, batch_id)) if with_objects else [],
        object_count=kept.object_count,
        collection_ids=[collection_id(who.namespace, name) for name in kept.collections],
        task_id=None if kept.submitted_at is None else batching.task_of(batch_id),
        counts=found.counts,
        progress={"total": found.total, "percent": task.progress.percent, "errors": failures},
        failed_object_count=failures,
        created_at=timestamp(kept.created_at),
        warnings=list(kept.notes),
    )
