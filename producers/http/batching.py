"""Batches: objects × collections that become tasks together, and how they stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from producers.http.answers import Status
from producers.http.buckets import KeptObject, objects
from producers.http.collections import kept_of
from producers.http.context import Context
from producers.http.kept import Kept, Shelf
from producers.http.naming import collection_named
from trivet.accept import accept, parse_request
from trivet.errors import InvalidRequest, TrivetError
from trivet.ids import digest
from trivet.names import Lane
from trivet.resources.refusals import unknown_resource
from trivet.values import Collection, IngestRequest, TaskState

TASK_PREFIX = "task_btch_"
MOST_OBJECTS = 50_000
#: Tasks that are noted in one go.
_PAGE = 200
_REFUSED = "!"
#: Whoever asks for it runs these again, one by one or together: a batch that has any may not have ended for good.
_RETRYABLE = (TaskState.FAILED, TaskState.CANCELLED)
_DONE = frozenset({TaskState.COMPLETED, TaskState.SKIPPED, TaskState.SUPERSEDED, TaskState.DELETED})


class KeptBatch(Kept):
    """A batch."""

    #: Empty for sources that came without a bucket.
    bucket_id: str = ""
    #: Names.
    collections: tuple[str, ...] = ()
    batch_name: str | None = None
    object_count: int
    submitted_at: float | None = None
    #: Once all have ended: their number by state, so that it is known after the tasks' own retention.
    ended: dict[str, int] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """One object that one collection takes in."""

    collection: str
    object_id: str
    #: Empty where it was refused.
    task_id: str
    #: `code: sentence` where it was refused.
    error: str = ""
    #: Where in a list of sources, which may name an object twice.
    index: int = 0

    @property
    def member(self) -> str:
        """Its name among the links of its batch; neither part has a slash."""
        return f"{self.collection}/{self.object_id}" + (f"/{self.index}" if self.index else "")


@dataclass(frozen=True, slots=True)
class Standing:
    """How a batch stands."""

    status: Status
    #: Items by state; `refused` beside those of tasks.
    counts: dict[str, int]
    total: int

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.status not in (Status.DRAFT, Status.QUEUED, Status.PROCESSING)


def shelf(context: Context, namespace: str) -> Shelf[KeptBatch]:
    """The batches of a namespace."""
    return Shelf(context, namespace, "batch", KeptBatch)


def task_of(batch_id: str) -> str:
    """The id under which a batch as a whole can be asked for as a task."""
    return f"task_{batch_id}"


def batch_of(task_id: str) -> str | None:
    """The batch that such an id means; None for a task of its own."""
    return task_id.removeprefix("task_") if task_id.startswith(TASK_PREFIX) else None


def draft(context: Context, namespace: str, batch_id: str, value: KeptBatch, object_ids: Iterable[str]) -> KeptBatch:
    """Keep a batch that is not submitted yet."""
    ids = iter(object_ids)
    while page := list(islice(ids, _PAGE)):
        context.resources.link(namespace, batch_id, dict.fromkeys(page, ""))
    kept, _ = shelf(context, namespace).make(batch_id, value)
    return kept


def chosen_objects(context: Context, namespace: str, bucket_id: str, object_ids: list[str] | None) -> list[str]:
    """The ids, checked; all of the bucket where none are named. Raises `UnknownResource`, `InvalidRequest`."""
    kept = objects(context, namespace, bucket_id)
    if object_ids is not None:
        for object_id in object_ids:
            if kept.find(object_id) is None:
                raise unknown_resource("object", object_id)
        return list(dict.fromkeys(object_ids))
    if kept.count() > MOST_OBJECTS:
        raise InvalidRequest(
            f"The bucket has {kept.count()} objects, and a batch takes {MOST_OBJECTS} at most.",
            hint="Name them in object_ids, in several batches.",
        )
    return [object_id for object_id, _ in kept.all()]


def submit(context: Context, namespace: str, batch_id: str, collections: tuple[str, ...]) -> KeptBatch:
    """Make a task for each object and collection. Killed on the way, it goes on where it stood when asked again."""
    _, batch = shelf(context, namespace).get(batch_id)
    if batch.submitted_at is not None:
        return batch
    found = [collection_named(context, namespace, name) for name in collections]
    object_ids = list(context.resources.links(namespace, batch_id))
    kept = objects(context, namespace, batch.bucket_id)

    def one(pair: tuple[Collection, str]) -> Item:
        return _accept(context, batch_id, pair[0], pair[1], kept.find(pair[1]))

    with ThreadPoolExecutor(context.settings.io_threads, "trivet-submit") as pool:
        pairs = ((collection, object_id) for collection in found for object_id in object_ids)
        note(context, namespace, batch_id, pool.map(one, pairs))
    done = {"submitted_at": context.clock.now(), "collections": tuple(one.name for one in found)}
    return shelf(context, namespace).change(batch_id, lambda value: value.model_copy(update=done))


def note(context: Context, namespace: str, batch_id: str, items: Iterable[Item]) -> None:
    """Write down what became of a batch's items, page by page. Transient errors have been raised before."""
    rest = iter(items)
    while page := list(islice(rest, _PAGE)):
        links = {item.member: item.task_id or _REFUSED + item.error for item in page}
        context.resources.link(namespace, f"{batch_id}.tasks", links)


def items_of(context: Context, namespace: str, batch_id: str) -> Iterator[Item]:
    """All that became of a batch."""
    for member, value in context.resources.links(namespace, f"{batch_id}.tasks").items():
        collection, object_id, *_ = member.split("/")
        if value.startswith(_REFUSED):
            yield Item(collection, object_id, "", value[1:])
        else:
            yield Item(collection, object_id, value)


def standing(context: Context, namespace: str, batch_id: str, batch: KeptBatch) -> Standing:
    """How a batch stands now."""
    if batch.submitted_at is None:
        return Standing(Status.DRAFT, {}, batch.object_count)
    ended = batch.ended and Standing(_status(Counter(batch.ended)), batch.ended, sum(batch.ended.values()))
    if ended and not any(ended.counts.get(state) for state in _RETRYABLE):
        return ended
    items = list(items_of(context, namespace, batch_id))
    task_ids = [item.task_id for item in items if item.task_id]
    states = context.ledger.states(task_ids)
    counts: Counter[str] = Counter(states.get(task_id, "unknown") for task_id in task_ids)
    counts["refused"] = len(items) - len(task_ids)
    counts = +counts
    if ended and counts["unknown"] > ended.counts.get("unknown", 0):
        # Their retention is over: what is kept says more.
        return ended
    found = Standing(_status(counts), dict(counts), len(items))
    if found.ended and found != ended:
        shelf(context, namespace).change(batch_id, lambda value: value.model_copy(update={"ended": dict(counts)}))
    return found


def _status(counts: Counter[str]) -> Status:
    total = sum(counts.values())
    done = sum(counts[state] for state in _DONE) + counts["unknown"]
    failed = counts[TaskState.FAILED] + counts["refused"]
    cancelled = counts[TaskState.CANCELLED]
    if done + failed + cancelled < total:
        waiting = counts[TaskState.WAITING] + counts[TaskState.QUEUED]
        return Status.QUEUED if waiting == total else Status.PROCESSING
    if total and cancelled == total:
        return Status.CANCELED
    if total and failed == total:
        return Status.FAILED
    return Status.COMPLETED_WITH_ERRORS if failed or cancelled else Status.COMPLETED


def _accept(context: Context, batch_id: str, collection: Collection, object_id: str, found: object) -> Item:
    """Take one object into one collection. What cannot be is an item with the reason; a transient error is raised."""
    try:
        request = request_of(context, collection, object_id, found[1] if isinstance(found, tuple) else None)
        key = "batch:" + digest([batch_id, collection.name, object_id], 32)
        accepted = accept(context.ledger, context.settings, request.model_copy(update={"idempotency_key": key}))
    except TrivetError as error:
        if error.transient:
            raise
        return Item(collection.name, object_id, "", f"{error.code}: {error}")
    return Item(collection.name, object_id, accepted.task_id)


def request_of(context: Context, collection: Collection, object_id: str, kept: KeptObject | None) -> IngestRequest:
    """The ingest request of an object. Raises `UnknownResource`, and `InvalidRequest` where it lacks the blob."""
    if kept is None:
        raise unknown_resource("object", object_id)
    extractors = kept_of(context, collection.namespace, collection).extractors
    wanted = next((found for one in extractors if (found := one.blob_property())), "")
    blob = kept.blob_for(wanted)
    if blob is None:
        have = ", ".join(one.property for one in kept.blobs)
        raise InvalidRequest(
            f"Object {object_id} has no blob {wanted!r}, which the collection maps.", hint=f"It has {have}."
        )
    return parse_request(
        {
            "url": blob.url,
            "collection": collection.name,
            "namespace": collection.namespace,
            "object_id": object_id,
            "lane": Lane.NORMAL,
            "metadata": {**kept.fields, **kept.metadata},
            "media_type": blob.media_type,
        }
    )
