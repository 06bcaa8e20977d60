"""What every framework's integration needs, and no framework: requests, metadata of hits, texts as sources."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from pydantic import ValidationError

from trivet.client import Trivet
from trivet.errors import InvalidRequest, TrivetError
from trivet.handles import TaskHandle
from trivet.ids import check_object_id
from trivet.retrieval import Condition, Filters, Group, Hit, Leg, SearchRequest
from trivet.values import TaskState

#: Conditions on metadata: a dict of equal values, one condition, or several that must all hold.
Filter: TypeAlias = Mapping[str, Any] | Condition | Group | Sequence[Condition | Group]

_Value = TypeVar("_Value", Filters, SearchRequest)
_DONE = frozenset({TaskState.COMPLETED, TaskState.SKIPPED, TaskState.SUPERSEDED, TaskState.DELETED})


def request_for(request: SearchRequest, k: int, filter_: Filter | None) -> SearchRequest:
    """The request for k hits; the filter holds beside its own. Raises `InvalidRequest`."""
    if filter_ is None:
        return updated(request, top_k=k)
    more = _validated(Filters, {"metadata": filter_}).metadata
    both = request.filters.model_copy(update={"metadata": (*request.filters.metadata, *more)})
    return updated(request, top_k=k, filters=both)


def updated(request: SearchRequest, **changes: Any) -> SearchRequest:
    """The request with these fields changed. Raises `InvalidRequest`."""
    return _validated(SearchRequest, dict(request) | changes)


def hit_metadata(hit: Hit) -> dict[str, Any]:
    """What is told of a hit beside its text.

    The metadata of the object's ingest request, with `source` (the URL) and `page` (the first) where they have no such
    key, and under `trivet` all else: score and legs, object, position, headings, language, time of commit, and the
    section and neighbours where the request asks for them.
    """
    known = {
        "chunk_id": hit.chunk_id,
        "object_id": hit.object_id,
        "collection": hit.collection,
        "generation": hit.generation,
        "ordinal": hit.ordinal,
        "score": hit.score,
        "legs": {leg.value: score.score for leg in Leg if (score := getattr(hit, leg))},
        "heading_path": list(hit.heading_path),
        "page_start": hit.page_start,
        "page_end": hit.page_end,
        "char_start": hit.char_start,
        "char_end": hit.char_end,
        "language": hit.language,
        "committed_at": hit.committed_at,
    }
    if hit.before or hit.after:
        known |= {name: [passage.text for passage in getattr(hit, name)] for name in ("before", "after")}
    if hit.section:
        known |= {"section": hit.section.text, "section_cut": hit.section.cut}
    page = {"page": hit.page_start} if hit.page_start else {}
    return {"source": hit.source_url} | page | hit.metadata | {"trivet": known}


def data_url(text: str) -> str:
    """A text as a source. Raises `InvalidRequest` for one that has no UTF-8: half of a pair of surrogates."""
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"The text has half a character, {text[error.start]!a}, at {error.start}.",
            hint="Decode it with errors='replace'.",
        ) from None
    return "data:text/plain;charset=utf-8;base64," + base64.b64encode(encoded).decode()


def is_object_id(value: str) -> bool:
    """Whether an object can have this id."""
    try:
        check_object_id(value)
    except InvalidRequest:
        return False
    return True


def wait_for_texts(trivet: Trivet, tasks: Sequence[TaskHandle], seconds: float) -> None:
    """Wait until all tasks have ended and searches see it.

    Raises `TrivetError` where one of them failed, and `TimeoutError`.
    """
    from trivet.retrieval.remote import wait_level

    deadline = trivet.clock.monotonic() + seconds
    views = [task.wait(timeout=max(deadline - trivet.clock.monotonic(), 0)) for task in tasks]
    wait_level(trivet.settings, max(deadline - trivet.clock.monotonic(), 0), trivet.clock)
    failed = [view for view in views if view.state not in _DONE]
    if failed:
        first = failed[0]
        why = first.error.message if first.error else f"it is {first.state}."
        raise TrivetError(
            f"{len(failed)} of {len(views)} texts were not stored; {first.object_id}: {why}",
            hint=f"trivet task {first.task_id} says more.",
        )


def _validated(kind: type[_Value], values: Mapping[str, Any]) -> _Value:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InvalidRequest(f"This cannot be searched for: {message}.") from None
