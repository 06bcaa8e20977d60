"""Tasks: one run of the pipeline for one object, or a batch as a whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
from fastapi import Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from producers.http import batching
from producers.http.answers import STATUS_OF, Status
from producers.http.caller import Caller, CallerOf
from producers.http.context import Context, ContextOf
from producers.http.naming import collection_named
from producers.http.paging import Page, PageQuery, PageRequest, QueryOfPost, cursor_from, cursor_to, page_of
from producers.http.route import router as make_router
from producers.http.taskviews import TYPE_OF, TaskAnswer, has_ended, of_task, task_answer, view_of
from producers.http.waiting import WaitSeconds, wait_until
from trivet.errors import InvalidRequest, NotRetryable, TooLate, TrivetError, UnknownTask
from trivet.values import TaskState, TaskView

router = make_router("tasks")
_LOOK_SECONDS = 0.25
_FILTERED_STEP = 500
_HEARTBEAT_SECONDS = 15.0
#: A stream's schema is that of each event, as FastAPI describes its own.
_EVENT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": ["progress", "end", "error"]},
        "data": {"type": "string", "description": "A task as JSON; of an error, a sentence."},
    },
    "required": ["event", "data"],
}
_STREAM = {
    200: {
        "description": "Server-sent events: `progress` with a task after every change, `end` with the last one.",
        "content": {"text/event-stream": {"itemSchema": _EVENT, "example": "event: end\ndata: {}\n\n"}},
    }
}


class TasksRequest(PageRequest):
    """Which tasks."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"example": {"limit": 100, "status": "FAILED"}})

    status: Status | None = None
    state: TaskState | None = Field(None, description="The library's word, which says more than `status`.")
    collection_id: str | None = Field(None, max_length=100)
    task_type: str | None = Field(None, max_length=100)


class RetryRequest(BaseModel):
    """The source again, where its URL had a query that is no longer known."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"example": {}})

    url: str = Field("", max_length=8192)


@router.get("/tasks", operation_id="list_tasks", summary="List tasks")
def list_by_query(
    context: ContextOf,
    who: CallerOf,
    asked: PageQuery,
    status: Status | None = None,
    state: TaskState | None = None,
    collection_id: str | None = None,
) -> Page[TaskAnswer]:
    """Those of the ledger, the newest first; a batch is asked for by its own id."""
    more = {"status": status, "state": state, "collection_id": collection_id}
    return _page(context, who, TasksRequest.model_validate({**asked.model_dump(), **more}))


@router.post("/tasks/list", operation_id="list_tasks_post", summary="List tasks")
def list_by_body(
    context: ContextOf, who: CallerOf, query: QueryOfPost, asked: TasksRequest | None = None
) -> Page[TaskAnswer]:
    """The same, asked in a body."""
    return _page(context, who, query.over(asked or TasksRequest()))


@router.get("/tasks/{task_id}", operation_id="get_task", summary="Get a task")
async def get(context: ContextOf, who: CallerOf, response: Response, task_id: str, seconds: WaitSeconds) -> TaskAnswer:
    """How it stands now; with `Prefer: wait=N` once it has ended, or after N seconds."""
    if seconds:
        await run_in_threadpool(task_answer, context, who.namespace, task_id)
        await wait_until(
            context, who, lambda: has_ended(task_answer(context, who.namespace, task_id)), seconds, response
        )
    return await run_in_threadpool(task_answer, context, who.namespace, task_id)


@router.get("/tasks/{task_id}/why", operation_id="why_task", summary="Why a task is where it is")
def why(context: ContextOf, who: CallerOf, task_id: str) -> dict[str, Any]:
    """Who has it, what is before it, what comes next."""
    view_of(context, who.namespace, task_id)
    return context.ledger.why(task_id).model_dump(mode="json")


@router.get(
    "/tasks/{task_id}/events",
    operation_id="follow_task",
    summary="Follow a task (server-sent events)",
    response_class=StreamingResponse,
    responses=_STREAM,  # type: ignore[arg-type]  # FastAPI's type has no room for integers as keys alone
)
async def follow(context: ContextOf, who: CallerOf, task_id: str) -> StreamingResponse:
    """From how it stands now until it has ended. Whoever loses the connection asks again, and misses nothing."""
    first = await run_in_threadpool(task_answer, context, who.namespace, task_id)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return _Followed(context, who, first, headers)


@router.post("/tasks/{task_id}/cancel", operation_id="cancel_task", summary="Cancel a task")
def cancel(context: ContextOf, who: CallerOf, task_id: str) -> TaskAnswer:
    """Of a batch every task that can be; one that commits, or has ended, stays as it is."""
    batch_id = batching.batch_of(task_id)
    if batch_id is None:
        view_of(context, who.namespace, task_id)
        context.ledger.cancel(task_id)
    else:
        task_answer(context, who.namespace, task_id)
        _each(context, who, batch_id, context.ledger.cancel)
    return task_answer(context, who.namespace, task_id)


@router.delete("/tasks/{task_id}", operation_id="delete_task", summary="Cancel a task")
def delete(context: ContextOf, who: CallerOf, task_id: str) -> TaskAnswer:
    """The same, as Mixpeek's clients ask for it."""
    return cancel(context, who, task_id)


@router.post("/tasks/{task_id}/retry", operation_id="retry_task", summary="Run a failed task again")
def retry(context: ContextOf, who: CallerOf, task_id: str, asked: RetryRequest | None = None) -> TaskAnswer:
    """As the next run of the same task. Of a batch every one that failed or was cancelled."""
    batch_id = batching.batch_of(task_id)
    if batch_id is None:
        view_of(context, who.namespace, task_id)
        context.client(who.namespace).task(task_id).retry(url=asked.url if asked else "")
    else:
        task_answer(context, who.namespace, task_id)
        _each(context, who, batch_id, context.ledger.retry)
    return task_answer(context, who.namespace, task_id)


def _each(context: Context, who: Caller, batch_id: str, do: Any) -> None:
    for item in batching.items_of(context, who.namespace, batch_id):
        if item.task_id:
            try:
                do(item.task_id)
            except (NotRetryable, TooLate, UnknownTask):
                # It has ended, or commits: there is nothing to be done about it.
                continue


class _Followed(StreamingResponse):
    """A stream that holds one of the places of those that wait."""

    def __init__(self, context: Context, who: Caller, first: TaskAnswer, headers: dict[str, str]) -> None:
        super().__init__(_events(context, who, first), media_type="text/event-stream", headers=headers)
        self._place = context.edge.waits.place(who.key_id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._place:
            await super().__call__(scope, receive, send)


async def _events(context: Context, who: Caller, answer: TaskAnswer) -> AsyncIterator[str]:
    """Events from a first answer on; a comment now and then keeps proxies from closing the connection."""
    silent = 0.0
    last = ""
    while True:
        data = answer.model_dump_json()
        ended = has_ended(answer)
        if data != last or ended:
            yield f"event: {'end' if ended else 'progress'}\ndata: {data}\n\n"
            last, silent = data, 0.0
        elif silent >= _HEARTBEAT_SECONDS:
            yield ": still there\n\n"
            silent = 0.0
        if ended:
            return
        await anyio.sleep(_LOOK_SECONDS)
        silent += _LOOK_SECONDS
        try:
            answer = await run_in_threadpool(task_answer, context, who.namespace, answer.task_id)
        except TrivetError as error:
            if not error.transient:
                yield f"event: error\ndata: {error}\n\n"
                return


def _page(context: Context, who: Caller, asked: TasksRequest) -> Page[TaskAnswer]:
    wanted = (
        set(TaskState) if asked.status is None else {one for one, word in STATUS_OF.items() if word is asked.status}
    )
    wanted &= set(TaskState) if asked.state is None else {asked.state}
    types = set(TYPE_OF.values()) if asked.task_type is None else {asked.task_type}
    name = collection_named(context, who.namespace, asked.collection_id).name if asked.collection_id else None
    before = _before(asked.cursor)
    found: list[TaskView] = []
    more, filtered = True, len(wanted) < len(TaskState) or len(types) < len(TYPE_OF) or name is not None
    # What a filter leaves out is read too, and not one by one.
    step = max(asked.limit + 1, _FILTERED_STEP) if filtered else asked.limit + 1
    while len(found) < asked.limit + 1 and more:
        page = context.ledger.task_page(who.namespace, before=before, limit=step)
        more = len(page) == step
        found += [v for v in page if v.state in wanted and TYPE_OF[v.kind] in types and name in (None, v.collection)]
        if page:
            before = _place(page[-1])
    results = found[: asked.limit]
    there_is_more = len(found) > asked.limit
    cursor = cursor_to("tasks", "/".join(str(part) for part in _place(results[-1]))) if there_is_more else None
    return page_of([of_task(view) for view in results], asked.limit, next_cursor=cursor)


def _place(view: TaskView) -> tuple[int, str]:
    return round(view.created_at * 1000), view.task_id


def _before(cursor: str | None) -> tuple[int, str] | None:
    where = cursor_from("tasks", cursor)
    if not where:
        return None
    at, _, task_id = where.partition("/")
    if not at.isdecimal():
        raise InvalidRequest("The cursor is not one of this list.", hint="Leave it out for the first page.")
    return int(at), task_id
