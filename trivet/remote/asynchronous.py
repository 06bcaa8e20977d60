"""The client over HTTP for asyncio: the same methods, as coroutines.

async with AsyncTrivet("http://127.0.0.1:8000") as trivet:
    task = await trivet.ingest("https://example.com/report.pdf", collection="docs")
    print((await task.wait()).state)
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from trivet.accept import parse_request
from trivet.errors import AlreadyExists, Forbidden, InvalidRequest, UnknownCollection
from trivet.ids import check_name
from trivet.names import Lane
from trivet.remote import calls
from trivet.remote.calls import Call
from trivet.remote.client import TIMEOUT_SECONDS, http_library
from trivet.values import Collection, Pipeline, TaskState, TaskView, Waiting

if TYPE_CHECKING:
    import httpx2

    from trivet.remote.found import RemoteFound
    from trivet.retrieval import SearchRequest

T = TypeVar("T")
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0


class AsyncTrivet:
    """Enqueue sources and follow what becomes of them, without a thread. One per event loop; close it."""

    def __init__(
        self,
        url: str,
        *,
        namespace: str | None = None,
        api_key: str | None = None,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        self._library = http_library()
        self.namespace = check_name(namespace or "default", "Namespace")
        self._url = calls.base_url(url)
        self._headers = calls.headers(namespace, api_key)
        self._http = http or self._library.AsyncClient(timeout=TIMEOUT_SECONDS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(self, call: Call[T]) -> T:
        """The call's result. Raises the error that the API answers with, and `LedgerUnavailable` where none does."""
        attempt = 1
        while True:
            try:
                answer = await self._http.request(
                    call.method, self._url + call.path, json=call.body, headers={**self._headers, **call.headers}
                )
            except self._library.TransportError as error:
                if not call.repeatable or attempt >= calls.ATTEMPTS:
                    raise calls.unreachable(self._url, error) from None
                pause = calls.pause_after(503, None, attempt)
            else:
                if answer.is_success:
                    return call.read(answer.json())
                pause = calls.pause_after(answer.status_code, answer.headers.get("Retry-After"), attempt)
                if pause is None:
                    raise calls.error_of(answer.status_code, _json(answer))
            await asyncio.sleep(pause or 0.0)
            attempt += 1

    async def create_collection(
        self, name: str, *, pipeline: Pipeline | None = None, exist_ok: bool = False
    ) -> Collection:
        """Create a collection. Raises `InvalidRequest` if it exists, unless `exist_ok` (it then stays as it is)."""
        check_name(name, "Collection")
        collection = Collection(namespace=self.namespace, name=name, pipeline=pipeline or Pipeline())
        try:
            return await self.send(calls.create_collection(collection))
        except AlreadyExists:
            if not exist_ok:
                raise InvalidRequest(
                    f"Collection {name!r} exists already.", hint="Use another name, or exist_ok=True."
                ) from None
        except Forbidden as refused:
            # A key that may not make collections may use one that is there.
            if not exist_ok:
                raise
            try:
                return await self.collection(name)
            except UnknownCollection:
                raise refused from None
        return await self.collection(name)

    async def update_collection(self, name: str, pipeline: Pipeline) -> Collection:
        """Change a collection's pipeline, for tasks accepted from now on."""
        return await self.send(
            calls.update_collection(Collection(namespace=self.namespace, name=name, pipeline=pipeline))
        )

    async def collection(self, name: str) -> Collection:
        """One collection. Raises `UnknownCollection`."""
        return await self.send(calls.get_collection(name))

    async def collections(self) -> list[Collection]:
        """All collections of the namespace, by name."""
        found, cursor = await self.send(calls.list_collections(None))
        while cursor:
            page, cursor = await self.send(calls.list_collections(cursor))
            found += page
        return found

    async def ingest(
        self,
        url: str,
        *,
        collection: str,
        object_id: str | None = None,
        idempotency_key: str | None = None,
        lane: Lane | str = Lane.NORMAL,
        metadata: dict[str, Any] | None = None,
        media_type: str | None = None,
    ) -> AsyncTaskHandle:
        """Enqueue one source. When this returns, the task is written down."""
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
        accepted = await self.send(calls.ingest(request))
        return AsyncTaskHandle(self, accepted.task_id, new=accepted.new)

    def task(self, task_id: str) -> AsyncTaskHandle:
        """A handle for a task id; the task need not exist until it is asked."""
        return AsyncTaskHandle(self, task_id)

    async def tasks(
        self, collection: str | None = None, state: TaskState | str | None = None, limit: int = 100
    ) -> list[TaskView]:
        """Tasks of the namespace, the newest first."""
        wanted = TaskState(state) if state else None
        found, cursor = await self.send(calls.list_tasks(collection, wanted, limit, None))
        while cursor and len(found) < limit:
            page, cursor = await self.send(calls.list_tasks(collection, wanted, limit - len(found), cursor))
            found += page
        return found

    async def dead(self, limit: int = 100) -> list[TaskView]:
        """Failed tasks, the newest first."""
        return await self.tasks(state=TaskState.FAILED, limit=limit)

    async def search(
        self,
        collection: str,
        queries: str | Sequence[str],
        request: SearchRequest | None = None,
        weights: Sequence[float] = (),
        *,
        explain: bool = False,
    ) -> RemoteFound:
        """Hits for a query, or for several that are fused; the API's process has the model."""
        return await self.send(calls.search(collection, queries, request, weights, explain))

    async def delete(self, object_id: str, *, collection: str) -> AsyncTaskHandle:
        """Hide one object: a task of its own."""
        accepted = await self.send(calls.delete(collection, object_id))
        return AsyncTaskHandle(self, accepted.task_id)


class AsyncTaskHandle:
    """One task: ask, wait, retry, cancel."""

    def __init__(self, client: AsyncTrivet, task_id: str, *, new: bool = True) -> None:
        self.task_id = task_id
        #: False where the idempotency key had been used before: this is the task of that time.
        self.new = new
        self._client = client

    def __repr__(self) -> str:
        return f"AsyncTaskHandle({self.task_id!r})"

    async def status(self) -> TaskView:
        """The task as it stands. Raises `UnknownTask` once its retention is over."""
        return await self._client.send(calls.get_task(self.task_id))

    async def wait(self, timeout: float | None = None) -> TaskView:  # noqa: ASYNC109 - as the handle over Redis has it
        """Wait until the task has ended, or raise `TimeoutError`. A failed task is returned, not raised."""
        pause = _FIRST_PAUSE
        try:
            async with asyncio.timeout(timeout):
                while not (view := await self.status()).state.terminal:
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.5, _LONGEST_PAUSE)
        except TimeoutError:
            raise TimeoutError(f"Task {self.task_id} has not ended after {timeout:g} s.") from None
        return view

    async def why(self) -> Waiting:
        """Why the task is where it is, and what comes next."""
        return await self._client.send(calls.why_task(self.task_id))

    async def retry(self, *, url: str = "") -> TaskView:
        """Run a failed or cancelled task again, as the next run of the same task."""
        return await self._client.send(calls.retry_task(self.task_id, url))

    async def cancel(self) -> TaskView:
        """Cancel the task, wherever it is. Raises `TooLate` while it commits."""
        return await self._client.send(calls.cancel_task(self.task_id))


def _json(answer: Any) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None
