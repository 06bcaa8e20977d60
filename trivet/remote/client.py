"""The synchronous client over HTTP."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from trivet.client import Trivet
from trivet.clock import Clock, SystemClock
from trivet.errors import AlreadyExists, Forbidden, InvalidRequest, MissingDependency, UnknownCollection, UnknownTask
from trivet.handles import TaskHandle
from trivet.ids import check_name
from trivet.ledger import Accepted
from trivet.remote import calls
from trivet.remote.calls import Call
from trivet.settings import Settings
from trivet.values import Collection, IngestRequest, TaskState, TaskView, Waiting

if TYPE_CHECKING:
    import httpx2

    from trivet.ledger.redis import RedisLedger
    from trivet.remote.found import RemoteFound
    from trivet.retrieval import SearchRequest

T = TypeVar("T")
TIMEOUT_SECONDS = 90.0


def http_library() -> Any:
    """httpx2. Raises `MissingDependency`."""
    try:
        import httpx2
    except ModuleNotFoundError:
        raise MissingDependency(
            "The client over HTTP needs the package httpx2.", hint="Run: pip install 'trivet[http]'"
        ) from None
    return httpx2


class HttpLedger:
    """What the client asks of a ledger, asked of the API. Thread-safe."""

    def __init__(self, url: str, namespace: str | None, api_key: str | None, http: httpx2.Client | None = None) -> None:
        self._library = http_library()
        self._url = calls.base_url(url)
        self._headers = calls.headers(namespace, api_key)
        self._http = http or self._library.Client(timeout=TIMEOUT_SECONDS)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(self, call: Call[T]) -> T:
        """The call's result. Raises the error that the API answers with, and `LedgerUnavailable` where none does."""
        attempt = 1
        while True:
            try:
                answer = self._http.request(
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
            time.sleep(pause or 0.0)
            attempt += 1

    def put_collection(self, collection: Collection, *, replace: bool) -> bool:
        """False where it is there already and `replace` is off."""
        if replace:
            self.send(calls.update_collection(collection))
            return True
        try:
            self.send(calls.create_collection(collection))
        except AlreadyExists:
            return False
        except Forbidden:
            # A key that may not make collections may use one that is there.
            if self.get_collection("", collection.name) is None:
                raise
            return False
        return True

    def get_collection(self, _namespace: str, name: str) -> Collection | None:
        """One, or None."""
        try:
            return self.send(calls.get_collection(name))
        except UnknownCollection:
            return None

    def collections(self, _namespace: str) -> list[Collection]:
        """All, by name."""
        found, cursor = self.send(calls.list_collections(None))
        while cursor:
            page, cursor = self.send(calls.list_collections(cursor))
            found += page
        return found

    def task(self, task_id: str) -> TaskView | None:
        """One, or None."""
        try:
            return self.send(calls.get_task(task_id))
        except UnknownTask:
            return None

    def tasks(self, _namespace: str, *, collection: str | None, state: TaskState | None, limit: int) -> list[TaskView]:
        """The newest first."""
        found, cursor = self.send(calls.list_tasks(collection, state, limit, None))
        while cursor and len(found) < limit:
            page, cursor = self.send(calls.list_tasks(collection, state, limit - len(found), cursor))
            found += page
        return found

    def dead(self, namespace: str, limit: int) -> list[TaskView]:
        """Failed tasks, the newest first."""
        return self.tasks(namespace, collection=None, state=TaskState.FAILED, limit=limit)

    def why(self, task_id: str) -> Waiting:
        """Why a task is where it is."""
        return self.send(calls.why_task(task_id))

    def retry(self, task_id: str, *, secret_url: str = "") -> TaskState:
        """Run it again."""
        return self.send(calls.retry_task(task_id, secret_url)).state

    def cancel(self, task_id: str) -> TaskState:
        """Cancel it."""
        return self.send(calls.cancel_task(task_id)).state


class HttpTrivet(Trivet):
    """`Trivet` over HTTP. What only operators do is not served there, and says so."""

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
        if url is None or ledger is not None:
            raise InvalidRequest("The client over HTTP takes a URL, and no ledger.")
        self.settings = settings or Settings.load()
        self.namespace = check_name(namespace or self.settings.namespace, "Namespace")
        self.clock = clock or SystemClock()
        self._api = HttpLedger(url, namespace, api_key)
        # It has what the methods that are not overridden here ask of a ledger.
        self._ledger = cast("RedisLedger", self._api)

    def _accept(self, request: IngestRequest) -> Accepted:
        # Without a key, a repeated attempt of this very call makes no second task either.
        return self._api.send(calls.ingest(request))

    def delete(self, object_id: str, *, collection: str, idempotency_key: str = "") -> TaskHandle:
        """As over Redis, but that a delete has no key: a second one finds nothing to delete."""
        if idempotency_key:
            raise InvalidRequest("A delete over HTTP takes no idempotency key.", hint="Leave it out.")
        accepted = self._api.send(calls.delete(collection, object_id))
        return TaskHandle(self._ledger, accepted.task_id, self.clock)

    def search(  # type: ignore[override]  # what was found over HTTP has no vectors of the query
        self,
        collection: str,
        queries: str | Sequence[str],
        request: SearchRequest | None = None,
        weights: Sequence[float] = (),
        *,
        explain: bool = False,
    ) -> RemoteFound:
        """Hits for a query, or for several that are fused; the API's process has the model.

        Raises `UnknownCollection`, and `InvalidRequest` for what cannot be searched for.
        """
        return self._api.send(calls.search(collection, queries, request, weights, explain))

    def __getattribute__(self, name: str) -> Any:
        if name in _OVER_REDIS:
            _not_here(name)
        return super().__getattribute__(name)


#: What is asked of Redis or S3 itself.
_OVER_REDIS = frozenset(
    {
        "backlog",
        "consume",
        "deletes",
        "endpoints",
        "events",
        "last_event",
        "pause",
        "paused",
        "purge",
        "purge_receipt",
        "resume",
        "searcher",
        "set_weight",
    }
)


def _not_here(name: str) -> NoReturn:
    raise InvalidRequest(f"{name}() is not served over HTTP.", hint="Connect to Redis for it: Trivet('redis://…').")


def _json(answer: Any) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None
