"""Requests to the API as values, and what their answers mean. Pure: the two clients differ in how they wait alone."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

from trivet import errors
from trivet.errors import InvalidRequest, LedgerUnavailable, TrivetError
from trivet.ledger import Accepted
from trivet.remote.found import RemoteFound, read_found
from trivet.retrieval.requests import SearchRequest
from trivet.values import Collection, IngestRequest, Pipeline, TaskState, TaskView, Waiting

T = TypeVar("T")

#: Seconds that a refused request waits where the answer does not say, and the longest that it heeds.
_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
#: How often a request is sent in all, where the server is too busy or away.
ATTEMPTS = 4
_PAGE = 500
_TOO_MANY, _AWAY, _NOT_FOUND, _CONFLICT = 429, 503, 404, 409


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request. `read` makes its result of the JSON that came back."""

    method: str
    path: str
    read: Callable[[Any], T]
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: A POST that changes nothing.
    reads: bool = False

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent again where nobody knows if it has arrived."""
        return self.reads or self.method in ("GET", "DELETE", "PATCH") or "Idempotency-Key" in self.headers


def base_url(url: str) -> str:
    """The address without `/v1` and slashes at its end."""
    return url.strip().rstrip("/").removesuffix("/v1").rstrip("/")


def headers(namespace: str | None, api_key: str | None) -> dict[str, str]:
    """What every request carries."""
    found = {"Accept": "application/json"}
    if api_key:
        found["Authorization"] = f"Bearer {api_key}"
    if namespace:
        found["X-Namespace"] = namespace
    return found


def pause_after(status: int, retry_after: str | None, attempt: int) -> float | None:
    """Seconds until a refused request is sent again; None where it is not."""
    if status not in (_TOO_MANY, _AWAY) or attempt >= ATTEMPTS:
        return None
    try:
        return min(max(float(retry_after or ""), 0.0), _LONGEST_PAUSE)
    except ValueError:
        return min(_PAUSE * 2.0 ** (attempt - 1), _LONGEST_PAUSE)


def error_of(status: int, body: Any) -> TrivetError:
    """The error that the API answered with, as the library has it."""
    given = body.get("error") if isinstance(body, dict) else None
    given = given if isinstance(given, dict) else {}
    message = str(given.get("message") or f"The API answered {status}.")
    hint = str((given.get("details") or {}).get("hint") or "")
    kind = _by_code().get(str(given.get("code") or "")) or (
        LedgerUnavailable if status >= _AWAY else InvalidRequest if status < 500 else TrivetError
    )
    return kind(message.removesuffix(hint).strip(), hint=hint)


def _by_code() -> dict[str, type[TrivetError]]:
    found = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TrivetError)]
    return {kind.code: kind for kind in found}


def unreachable(url: str, error: Exception) -> LedgerUnavailable:
    """Nobody answers there."""
    return LedgerUnavailable(
        f"The API at {base_url(url)} does not answer ({type(error).__name__}).", hint="See that `trivet serve` runs."
    )


# ---------------------------------------------------------------- collections


def create_collection(collection: Collection) -> Call[Collection]:
    """Raises `AlreadyExists` by its answer."""
    body = {"collection_name": collection.name, "feature_extractors": [_extractor(collection.pipeline)]}
    return Call("POST", "/v1/collections", _collection, body, _key(None))


def update_collection(collection: Collection) -> Call[Collection]:
    """Another pipeline."""
    body = {"feature_extractor": _extractor(collection.pipeline)}
    return Call("PATCH", f"/v1/collections/{quote(collection.name, safe='')}", _collection, body)


def get_collection(name: str) -> Call[Collection]:
    """One, by name or id."""
    return Call("GET", f"/v1/collections/{quote(name, safe='')}", _collection)


def list_collections(cursor: str | None) -> Call[tuple[list[Collection], str | None]]:
    """A page, and the cursor to the next."""
    return Call("GET", "/v1/collections?" + _query(limit=_PAGE, cursor=cursor), _paged(_collection))


def _extractor(pipeline: Pipeline) -> dict[str, Any]:
    given = pipeline.model_dump(mode="json")
    return {"name": given.pop("extractor"), "version": given.pop("version"), "params": given}


def _collection(answer: Any) -> Collection:
    return Collection(
        namespace=answer["namespace"],
        name=answer["collection_name"],
        pipeline=Pipeline.model_validate(answer["pipeline"]),
    )


# ---------------------------------------------------------------- tasks


def ingest(request: IngestRequest) -> Call[Accepted]:
    """One source. Without a key of the caller's it has one of its own, so that it can be sent again."""
    source = {"url": request.url, "object_id": request.object_id, "media_type": request.media_type}
    body = {"source": source, "metadata": request.metadata, "lane": request.lane}
    path = f"/v1/collections/{quote(request.collection, safe='')}/ingest"
    return Call("POST", path, _accepted, body, _key(request.idempotency_key))


def delete(collection: str, object_id: str) -> Call[Accepted]:
    """Hide an object."""
    path = f"/v1/collections/{quote(collection, safe='')}/objects/{quote(object_id, safe='')}"
    return Call("DELETE", path, lambda answer: Accepted(answer["task_ids"][0], TaskState.QUEUED, new=True))


def get_task(task_id: str) -> Call[TaskView]:
    """How it stands."""
    return Call("GET", f"/v1/tasks/{quote(task_id, safe='')}", _view)


def why_task(task_id: str) -> Call[Waiting]:
    """Why it is where it is."""
    return Call("GET", f"/v1/tasks/{quote(task_id, safe='')}/why", Waiting.model_validate)


def cancel_task(task_id: str) -> Call[TaskView]:
    """Cancel it."""
    return Call("POST", f"/v1/tasks/{quote(task_id, safe='')}/cancel", _view)


def retry_task(task_id: str, url: str = "") -> Call[TaskView]:
    """Run it again."""
    return Call("POST", f"/v1/tasks/{quote(task_id, safe='')}/retry", _view, {"url": url} if url else None)


def list_tasks(
    collection: str | None, state: TaskState | None, limit: int, cursor: str | None
) -> Call[tuple[list[TaskView], str | None]]:
    """A page, and the cursor to the next."""
    query = _query(limit=min(limit, _PAGE), cursor=cursor, collection_id=collection, state=state)
    return Call("GET", f"/v1/tasks?{query}", _paged(_view))


# ---------------------------------------------------------------- searching


def search(
    collection: str,
    queries: str | Sequence[str],
    request: SearchRequest | None,
    weights: Sequence[float],
    explain: bool,
) -> Call[RemoteFound]:
    """Hits for a query, or for several that are fused."""
    asked = request.model_dump(mode="json", exclude_defaults=True) if request else {}
    texts = [queries] if isinstance(queries, str) else list(queries)
    body = {**asked, "queries": texts, "weights": list(weights), "explain": explain}
    path = f"/v1/collections/{quote(collection, safe='')}/search"
    return Call("POST", path, read_found, body, reads=True)


def _accepted(answer: Any) -> Accepted:
    return Accepted(answer["task_id"], answer["status"], new=bool(answer["new"]))


def _view(answer: Any) -> TaskView:
    return TaskView.model_validate(answer["additional_data"]["view"])


def _paged(read: Callable[[Any], T]) -> Callable[[Any], tuple[list[T], str | None]]:
    return lambda answer: ([read(one) for one in answer["results"]], answer["pagination"]["next_cursor"])


def _query(**values: object) -> str:
    return urlencode({name: str(value) for name, value in values.items() if value is not None})


def _key(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key or f"client:{uuid.uuid4()}"}
