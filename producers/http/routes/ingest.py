"""Ingest: sources into a collection, directly or from its buckets."""

from __future__ import annotations

from typing import Literal

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from producers.http.answers import STATUS_OF, Status
from producers.http.batching import (
    Item,
    KeptBatch,
    batch_of,
    chosen_objects,
    draft,
    note,
    shelf,
    standing,
    submit,
    task_of,
)
from producers.http.caller import Caller, CallerOf
from producers.http.collections import agree, enabled, say
from producers.http.context import Context, ContextOf
from producers.http.edge.quota import charge
from producers.http.ingesting import IngestBody, take_in, take_in_many
from producers.http.naming import collection_id, collection_named
from producers.http.once import key_of, new_id
from producers.http.route import router as make_router
from producers.http.waiting import WaitSeconds, wait_until
from trivet.errors import InvalidRequest
from trivet.values import Collection

router = make_router("ingest")
_DIGITS = 12


class SourceOutcome(BaseModel):
    """What became of one of many sources."""

    index: int
    status: Literal["accepted", "refused"]
    object_id: str | None = None
    task_id: str | None = None
    error: str | None = None
    code: str | None = None


class IngestAnswer(BaseModel):
    """What was taken in. Ask for the task, or wait with `Prefer: wait=N`."""

    task_id: str = Field(examples=["task_0199a1b2c3d40123456789abcdef0123"])
    batch_id: str | None = Field(None, description="Of many sources.")
    object_id: str | None = Field(None, description="Of one source.")
    collection_id: str
    status: Status
    new: bool = Field(True, description="False where the idempotency key had been used before.")
    model: str = Field(description="The model that was asked for; the documents name the one that ran.")
    accepted: int = 1
    refused: int = 0
    results: list[SourceOutcome] | None = Field(None, description="Of many sources, in their order.")


class TriggerRequest(BaseModel):
    """Which objects; all of the collection's buckets where nothing is said."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"example": {}})

    object_ids: list[str] | None = Field(None, min_length=1, max_length=10_000)
    include_buckets: list[str] | None = Field(None, max_length=100)
    dedup_strategy: Literal["skip", "replace", "force"] | None = Field(
        None, description="Unchanged objects are skipped in any case."
    )


class TriggerAnswer(BaseModel):
    """The batches that were made, one per bucket."""

    task_id: str
    batch_id: str
    collection_id: str
    task_ids: list[str]
    batch_ids: list[str]
    batch_count: int
    source_bucket_ids: list[str]
    object_count: int
    total_tiers: int = 1
    message: str


@router.post(
    "/collections/{collection_identifier}/ingest",
    operation_id="ingest",
    summary="Ingest one source, or up to 10,000",
    status_code=202,
)
async def ingest(
    context: ContextOf,
    who: CallerOf,
    request: Request,
    response: Response,
    collection_identifier: str,
    asked: IngestBody,
    seconds: WaitSeconds,
) -> IngestAnswer:
    """Once this answers, every accepted source is written down, and is done whatever process dies.

    With an `Idempotency-Key` a repeated request makes no second task.
    """
    answer = await run_in_threadpool(_ingest, context, who, request, collection_identifier, asked)
    if seconds:
        await wait_until(context, who, lambda: _ended(context, who, answer.task_id), seconds, response)
        answer = answer.model_copy(update={"status": await run_in_threadpool(_status, context, who, answer.task_id)})
    return answer


@router.post(
    "/collections/{collection_identifier}/trigger",
    operation_id="trigger_collection",
    summary="Take in the objects of the collection's buckets",
    status_code=202,
)
async def trigger(
    context: ContextOf,
    who: CallerOf,
    request: Request,
    response: Response,
    collection_identifier: str,
    seconds: WaitSeconds,
    asked: TriggerRequest | None = None,
) -> TriggerAnswer:
    """A batch per bucket, submitted at once."""
    answer = await run_in_threadpool(_trigger, context, who, request, collection_identifier, asked or TriggerRequest())
    await wait_until(
        context, who, lambda: all(_ended(context, who, each) for each in answer.task_ids), seconds, response
    )
    return answer


def _ingest(context: Context, who: Caller, request: Request, identifier: str, asked: IngestBody) -> IngestAnswer:
    if (asked.source is None) == (asked.sources is None):
        raise InvalidRequest("The request has either source or sources.", hint='Send {"source": {"url": …}}.')
    found = collection_named(context, who.namespace, identifier)
    enabled(context, found)
    collection = agree(context, who, found, asked.extractors())
    request.state.noted = collection != found
    key = key_of(request)
    where = collection_id(who.namespace, collection.name)
    charge(context, who, 1 if asked.sources is None else len(asked.sources))
    if asked.source is not None:
        accepted = take_in(context, collection, asked, asked.source, key)
        say(context, found, collection, asked.extractors())
        view = context.ledger.task(accepted.task_id)
        return IngestAnswer(
            task_id=accepted.task_id,
            object_id=view.object_id if view else None,
            collection_id=where,
            status=STATUS_OF[view.state] if view else Status.PENDING,
            new=accepted.new,
            model=collection.pipeline.model_id,
        )
    answer = _many(context, who, request, collection, asked)
    say(context, found, collection, asked.extractors())
    return answer


def _many(context: Context, who: Caller, request: Request, collection: Collection, asked: IngestBody) -> IngestAnswer:
    items = take_in_many(context, collection, asked, key_of(request))
    batch_id = new_id(request, "btch", _DIGITS)
    note(context, who.namespace, batch_id, items)
    now = context.clock.now()
    value = KeptBatch(created_at=now, submitted_at=now, collections=(collection.name,), object_count=len(items))
    _, new = shelf(context, who.namespace).make(batch_id, value)
    refused = sum(1 for item in items if not item.task_id)
    return IngestAnswer(
        task_id=task_of(batch_id),
        batch_id=batch_id,
        collection_id=collection_id(who.namespace, collection.name),
        status=_status(context, who, task_of(batch_id)),
        new=new,
        model=collection.pipeline.model_id,
        accepted=len(items) - refused,
        refused=refused,
        results=[_outcome(index, item) for index, item in enumerate(items)],
    )


def _outcome(index: int, item: Item) -> SourceOutcome:
    if item.task_id:
        return SourceOutcome(index=index, status="accepted", object_id=item.object_id, task_id=item.task_id)
    code, _, error = item.error.partition(": ")
    return SourceOutcome(index=index, status="refused", error=error, code=code)


def _trigger(context: Context, who: Caller, request: Request, identifier: str, asked: TriggerRequest) -> TriggerAnswer:
    collection = collection_named(context, who.namespace, identifier)
    kept = enabled(context, collection)
    wanted = [each for each in kept.bucket_ids if asked.include_buckets is None or each in asked.include_buckets]
    if not wanted:
        raise InvalidRequest(
            f"Collection {collection.name!r} takes in no bucket that could be triggered.",
            hint="Create it with source.bucket_ids, or ingest into it directly.",
        )
    notes = ("dedup_strategy force: unchanged objects are skipped.",) if asked.dedup_strategy == "force" else ()
    batch_ids, count = [], 0
    chosen = _per_bucket(context, who, wanted, asked.object_ids)
    charge(context, who, sum(map(len, chosen.values())))
    for bucket_id, object_ids in chosen.items():
        batch_id = new_id(request, "btch", _DIGITS, bucket_id)
        value = KeptBatch(
            created_at=context.clock.now(),
            bucket_id=bucket_id,
            collections=(collection.name,),
            object_count=len(object_ids),
            notes=notes,
        )
        draft(context, who.namespace, batch_id, value, object_ids)
        submit(context, who.namespace, batch_id, (collection.name,))
        batch_ids.append(batch_id)
        count += len(object_ids)
    return TriggerAnswer(
        task_id=task_of(batch_ids[0]),
        batch_id=batch_ids[0],
        collection_id=collection_id(who.namespace, collection.name),
        task_ids=[task_of(each) for each in batch_ids],
        batch_ids=batch_ids,
        batch_count=len(batch_ids),
        source_bucket_ids=wanted,
        object_count=count,
        message=" ".join((f"{count} objects are being taken in.", *notes)),
    )


def _per_bucket(
    context: Context, who: Caller, bucket_ids: list[str], object_ids: list[str] | None
) -> dict[str, list[str]]:
    """Bucket → its objects that are wanted. Raises `UnknownResource` for one that is in none."""
    from producers.http.buckets import objects

    if object_ids is None:
        return {each: chosen_objects(context, who.namespace, each, None) for each in bucket_ids}
    found: dict[str, list[str]] = {}
    for object_id in dict.fromkeys(object_ids):
        home = next((b for b in bucket_ids if objects(context, who.namespace, b).find(object_id)), bucket_ids[0])
        found.setdefault(home, []).append(object_id)
    return {home: chosen_objects(context, who.namespace, home, ids) for home, ids in found.items()}


def _status(context: Context, who: Caller, task_id: str) -> Status:
    batch_id = batch_of(task_id)
    if batch_id:
        return standing(context, who.namespace, *shelf(context, who.namespace).get(batch_id)).status
    view = context.ledger.task(task_id)
    return STATUS_OF[view.state] if view else Status.UNKNOWN


def _ended(context: Context, who: Caller, task_id: str) -> bool:
    return _status(context, who, task_id) not in (Status.PENDING, Status.QUEUED, Status.PROCESSING, Status.DRAFT)
