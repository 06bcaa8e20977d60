"""The client for web apps: talks to the ledger, imports no torch.

from trivet import Trivet

trivet = Trivet("redis://localhost:6380/0")
task = trivet.ingest("https://example.com/report.pdf", collection="docs")
print(task.wait().state)
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from trivet.accept import accept, parse_request
from trivet.broker import celery_ringer, make_app
from trivet.clock import Clock, SystemClock
from trivet.errors import InvalidRequest
from trivet.handles import Retried, TaskHandle, run_again
from trivet.ids import check_name
from trivet.ledger import Accepted
from trivet.ledger.redis import RedisLedger
from trivet.ledger.refusals import unknown_collection
from trivet.names import Lane
from trivet.settings import Settings
from trivet.supervisor.endpoints import connected_settings
from trivet.values import Collection, Event, IngestRequest, Pipeline, TaskState, TaskView

if TYPE_CHECKING:
    from trivet.deleting.deletes import Deletes
    from trivet.deleting.purge import PurgeReceipt
    from trivet.delivery.endpoints import Endpoints
    from trivet.retrieval import SearchRequest
    from trivet.retrieval.searching import Found, Searcher

_MOST_WEIGHT = 1000


class Trivet:
    """Enqueue sources and follow what becomes of them. Thread-safe; make one per process and keep it.

    `url` is that of Redis, or of an API (`trivet serve`), whose key is `api_key`. Without arguments: as the TRIVET_
    variables say, and where they say nothing, the system that `trivet up` has started from the same folder.
    """

    def __new__(cls, url: str | None = None, **_options: Any) -> Self:
        """With an http: or https: address, the client over HTTP."""
        if cls is Trivet and url is not None and url.strip().lower().startswith(("http://", "https://")):
            from trivet.remote.client import HttpTrivet

            cls = HttpTrivet  # type: ignore[assignment]  # a subclass, as the caller sees it
        return super().__new__(cls)

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str | None = None,
        api_key: str | None = None,
        settings: Settings | None = None,
        ledger: RedisLedger | None = None,
        clock: Clock | None = None,
    ) -> None:
        if api_key is not None:
            raise InvalidRequest("An API key is for an http: or https: address.", hint="Redis has its own in the URL.")
        settings = settings or connected_settings(Settings.load())
        if url is not None:
            settings = settings.model_copy(update={"redis_url": url})
        self.settings = settings
        self.namespace = check_name(namespace or settings.namespace, "Namespace")
        self.clock = clock or SystemClock()
        self._searcher: Searcher | None = None
        self._lock = threading.Lock()
        self._ledger = ledger or RedisLedger(settings, celery_ringer(make_app(settings)))

    def close(self) -> None:
        """Close the connections; `with Trivet() as trivet:` does so at its end."""
        self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ collections

    def create_collection(self, name: str, *, pipeline: Pipeline | None = None, exist_ok: bool = False) -> Collection:
        """Create a collection. Raises `InvalidRequest` if it exists, unless `exist_ok` (it then stays as it is)."""
        check_name(name, "Collection")
        collection = Collection(namespace=self.namespace, name=name, pipeline=pipeline or Pipeline())
        if self._ledger.put_collection(collection, replace=False):
            return collection
        if not exist_ok:
            raise InvalidRequest(f"Collection {name!r} exists already.", hint="Use another name, or exist_ok=True.")
        return self.collection(name)

    def update_collection(self, name: str, pipeline: Pipeline) -> Collection:
        """Change a collection's pipeline: for tasks accepted from now on, never for those that are on their way."""
        self.collection(name)
        collection = Collection(namespace=self.namespace, name=name, pipeline=pipeline)
        self._ledger.put_collection(collection, replace=True)
        return collection

    def collection(self, name: str) -> Collection:
        """One collection. Raises `UnknownCollection`."""
        found = self._ledger.get_collection(self.namespace, name)
        if found is None:
            raise unknown_collection(self.namespace, name)
        return found

    def collections(self) -> list[Collection]:
        """All collections of the namespace, by name."""
        return self._ledger.collections(self.namespace)

    # ------------------------------------------------------------ tasks

    def ingest(
        self,
        url: str,
        *,
        collection: str,
        object_id: str | None = None,
        idempotency_key: str | None = None,
        lane: Lane | str = Lane.NORMAL,
        metadata: dict[str, Any] | None = None,
        media_type: str | None = None,
    ) -> TaskHandle:
        """Enqueue one source. When this returns, the task is written down.

        Raises `InvalidRequest`, `UnknownCollection`, `IdempotencyConflict` and `LedgerUnavailable`.
        """
        request = parse_request(
            {
                "url": url,
                "collection": collection,
                "namespace": self.namespace,
                "object_id": object_id,
                "idempotency_key": idempotency_key,
                "lane": lane,
                "metadata": metadata or {},
                "media_type": media_type,
            }
        )
        accepted = self._accept(request)
        return TaskHandle(self._ledger, accepted.task_id, self.clock, new=accepted.new)

    def _accept(self, request: IngestRequest) -> Accepted:
        return accept(self._ledger, self.settings, request)

    def task(self, task_id: str) -> TaskHandle:
        """A handle for a task id; the task need not exist until it is asked."""
        return TaskHandle(self._ledger, task_id, self.clock)

    def tasks(
        self, collection: str | None = None, state: TaskState | str | None = None, limit: int = 100
    ) -> list[TaskView]:
        """Tasks of the namespace, newest first."""
        in_state = TaskState(state) if state else None
        return self._ledger.tasks(self.namespace, collection=collection, state=in_state, limit=limit)

    def dead(self, limit: int = 100) -> list[TaskView]:
        """Failed tasks of the namespace, newest first: the dead-letter list."""
        return self._ledger.dead(self.namespace, limit)

    def retry_failed(
        self, collection: str | None = None, *, transient_only: bool = True, limit: int = 10_000
    ) -> Retried:
        """Run failed tasks again, of the `limit` newest: those whose error was transient, or all."""
        views = [view for view in self.dead(limit) if collection in (None, view.collection)]
        passing = [view for view in views if view.error is not None and view.error.transient]
        return run_again(self._ledger, passing if transient_only else views)

    # ------------------------------------------------------------ searching

    def search(
        self,
        collection: str,
        queries: str | Sequence[str],
        request: SearchRequest | None = None,
        weights: Sequence[float] = (),
    ) -> Found:
        """Hits for a query, or for several that are fused. Needs `trivet[search]` and the settings of S3.

        The collection's model is loaded into this process at its first search. Raises `UnknownCollection`, and what
        `trivet.retrieval.searching.Searcher.search` raises.
        """
        return self.searcher().search(self.collection(collection), queries, request, weights)

    def searcher(self) -> Searcher:
        """What `search` searches with: one for the life of the client, so that models are loaded once."""
        from trivet.retrieval.searching import Searcher

        with self._lock:
            self._searcher = self._searcher or Searcher(self.settings)
            return self._searcher

    # ------------------------------------------------------------ deletes

    def delete(self, object_id: str, *, collection: str, idempotency_key: str = "") -> TaskHandle:
        """Hide one object: a task of its own, which waits for the object's active one.

        Raises `InvalidRequest`, `IdempotencyConflict`, `LedgerUnavailable`.
        """
        from trivet.deleting.deletes import delete_object

        place = self.namespace, collection, object_id
        accepted = delete_object(self._ledger, self.settings, *place, idempotency_key=idempotency_key)
        return TaskHandle(self._ledger, accepted.task_id, self.clock, new=accepted.new)

    def deletes(self) -> Deletes:
        """Deletes of many objects at once, and the batches that wait for a confirmation. Needs the settings of S3."""
        from trivet.deleting.deletes import Deletes

        return Deletes.open(self.settings, self._ledger, self.namespace)

    def purge(self, object_id: str = "", *, collection: str) -> PurgeReceipt:
        """Remove a deleted object, or all of a deleted collection, from S3 now. Needs the settings of S3.

        A gc process does it; `purge_receipt` says how it stands. Raises `InvalidRequest` for what is not deleted.
        """
        from trivet.deleting.purge import request_purge
        from trivet.stores import open_store

        return request_purge(self.settings, open_store(self.settings), self.namespace, collection, object_id)

    def purge_receipt(self, purge_id: str) -> PurgeReceipt:
        """What a purge has removed. Raises `InvalidRequest` for one that was never asked for."""
        from trivet.deleting.purge import receipt

        return receipt(self.settings, purge_id)

    # ------------------------------------------------------------ pauses and shares

    def pause(self, collection: str | None = None, *, reason: str) -> None:
        """Start no more work of a collection, or of the whole namespace; what has started goes on.

        Raises `UnknownCollection`, and `InvalidRequest` where no reason is given.
        """
        if not reason.strip():
            raise InvalidRequest("A pause needs a reason.", hint="It is shown to whoever asks why a task waits.")
        if collection is not None:
            self.collection(collection)
        self._ledger.pause(self.namespace, collection, reason)

    def resume(self, collection: str | None = None) -> bool:
        """Go on where it was paused; False where it was not."""
        return self._ledger.resume(self.namespace, collection)

    def paused(self) -> dict[str, str]:
        """What of this namespace is paused, and why: the namespace itself, or `namespace/collection`."""
        paused = self._ledger.paused().items()
        return {scope: reason for scope, reason in paused if scope.split("/")[0] == self.namespace}

    def set_weight(self, weight: float) -> None:
        """The namespace's share of the workers where several namespaces wait; 1 unless set."""
        if not 0 < weight <= _MOST_WEIGHT:
            raise InvalidRequest(f"The weight {weight:g} is not above 0 and at most {_MOST_WEIGHT}.")
        self._ledger.set_weight(self.namespace, weight)

    # ------------------------------------------------------------ looking

    def events(self, after: str = "0-0", count: int = 100, block_seconds: float = 0) -> list[tuple[str, Event]]:
        """(stream id, CloudEvent) after a stream id, oldest first; waits up to `block_seconds` (≤ 10) for the first.

        All namespaces share the stream: look at `event.data["namespace"]`.
        """
        return self._ledger.events(after, count, block_seconds)

    def consume(
        self, group: str, consumer: str, *, start: Literal["new", "oldest"] = "new", idle_seconds: float = 60.0
    ) -> Iterator[tuple[Event, Callable[[], None]]]:
        """Events of the namespace, each with the callable that acknowledges it; waits for the next, for ever.

        Consumers of one group share the events; what one has not acknowledged, it gets again when it comes back, or
        another after `idle_seconds`. The group is made where there is none, and holds events until they are
        acknowledged: drop one that nobody reads any more. Raises `LedgerUnavailable`.
        """
        from trivet.delivery.groups import consume

        return consume(self.settings, group, consumer, namespace=self.namespace, start=start, idle_seconds=idle_seconds)

    def endpoints(self) -> Endpoints:
        """Webhooks, SNS topics and SQS queues that get the namespace's events."""
        from trivet.delivery.endpoints import Endpoints

        return Endpoints(self.settings, self.namespace)

    def last_event(self) -> str:
        """Stream id to follow from, for events that are still to come."""
        return self._ledger.last_event()

    def backlog(self) -> dict[str, Any]:
        """Tasks by state, staged tokens by model, leases, retries that are due, dead letters and live workers."""
        return dataclasses.asdict(self._ledger.backlog())
