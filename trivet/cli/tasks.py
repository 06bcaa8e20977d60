"""`trivet tasks`, `task` and `cancel`: what became of what was asked for."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from trivet.cli.common import Common, JsonFlag
from trivet.cli.console import print_json, print_table, say
from trivet.errors import InvalidRequest

if TYPE_CHECKING:
    from trivet.values import TaskView

TaskId = Annotated[str, typer.Argument(metavar="TASK", help="Id of the task.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("tasks")(list_tasks)
    app.command()(task)
    app.command()(cancel)


def list_tasks(
    ctx: typer.Context,
    collection: Annotated[str, typer.Option("--collection", "-c", help="Of this collection alone.")] = "",
    state: Annotated[str, typer.Option(help="In this state alone, such as failed.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, newest first.")] = 100,
    json_: JsonFlag = False,
) -> None:
    """List tasks, newest first."""
    from trivet.values import TaskState

    common: Common = ctx.obj
    if state and state not in set(TaskState):
        raise InvalidRequest(f"No state is called {state!r}.", hint=f"Choose one of {', '.join(TaskState)}.")
    client = common.client()
    if collection:
        client.collection(collection)
    views = client.tasks(collection or None, state or None, limit)
    if json_:
        print_json([view.model_dump(mode="json") for view in views])
    elif views:
        print_tasks(views)
    else:
        say("There is no such task.")


def task(ctx: typer.Context, task_id: TaskId, json_: JsonFlag = False) -> None:
    """Show one task."""
    common: Common = ctx.obj
    _show(common.client().task(task_id).status(), json_)


def cancel(ctx: typer.Context, task_id: TaskId, json_: JsonFlag = False) -> None:
    """Cancel a task. One that commits already cannot be cancelled (exit status 1)."""
    common: Common = ctx.obj
    handle = common.client().task(task_id)
    handle.status()
    view = handle.cancel()
    if json_:
        print_json(view.model_dump(mode="json"))
    else:
        say(f"Task {view.task_id} is {view.state}.")


def print_tasks(views: list[TaskView]) -> None:
    """A table of tasks."""
    now = time.time()
    print_table(
        ("task", "state", "collection", "object", "source", ">shards", ">tokens", ">age", "reason"),
        [
            (
                view.task_id,
                view.state,
                view.collection,
                view.object_id,
                view.url,
                f"{view.shards_done}/{view.shards}" if view.shards else "",
                f"{view.tokens:,}" if view.tokens else "",
                f"{now - view.created_at:.0f} s",
                reason(view),
            )
            for view in views
        ],
    )


def reason(view: TaskView) -> str:
    """One sentence: the error of a task that failed, else what it waits for."""
    if view.error and view.state.terminal:
        return (
            f"{view.error.code} in {view.error.stage}: {view.error.message}" if view.error.stage else view.error.message
        )
    return view.reason


def _show(view: TaskView, as_json: bool) -> None:
    if as_json:
        print_json(view.model_dump(mode="json"))
        return
    shown: list[tuple[str, object]] = [
        ("task", view.task_id),
        ("state", view.state),
        ("reason", reason(view)),
        ("hint", view.error.hint if view.error else ""),
        ("source", view.url),
        ("object", f"{view.namespace}/{view.collection}/{view.object_id}"),
        ("generation", view.generation or ""),
        ("lane", view.lane),
        ("run", view.run),
        ("pages", view.pages or ""),
        ("chunks", view.chunks or ""),
        ("tokens", f"{view.tokens_done:,} of {view.tokens:,} embedded" if view.tokens else ""),
        ("shards", f"{view.shards_done} of {view.shards}" if view.shards else ""),
        ("created", _time(view.created_at)),
        ("changed", f"{_time(view.updated_at)} ({view.updated_at - view.created_at:.1f} s later)"),
        ("manifest", view.manifest_key or ""),
    ]
    print_table(("", ""), [(name, value) for name, value in shown if value != ""])


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
