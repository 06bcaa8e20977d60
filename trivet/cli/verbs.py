"""`trivet why`, `retry`, `dead`, `pause`, `resume`, `paused`, `weight` and `migrate`: what operators do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from trivet.cli.common import Common, JsonFlag
from trivet.cli.console import counted, print_json, print_table, say
from trivet.cli.tasks import TaskId, print_tasks
from trivet.errors import InvalidRequest, NotRetryable, UnknownTask

if TYPE_CHECKING:
    from trivet.client import Trivet
    from trivet.handles import Retried
    from trivet.values import ItemView, Waiting

CollectionName = Annotated[str, typer.Argument(metavar="[COLLECTION]", help="None: the whole namespace.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (why, retry, dead, pause, resume, paused, weight, migrate):
        app.command()(command)


def why(ctx: typer.Context, task_id: TaskId, json_: JsonFlag = False) -> None:
    """Say why a task is where it is, and what comes next."""
    common: Common = ctx.obj
    found = common.client().task(task_id).why()
    if json_:
        print_json(found.model_dump(mode="json"))
        return
    print_table(("", ""), _facts(found))
    if found.first:
        print_table(
            ("stage", ">shard", "state", "queue", "worker", ">errors", ">crashes", "next"),
            [(i.stage, i.n, i.state, i.queue, i.worker or "", i.attempts, i.expiries, _next(i)) for i in found.first],
        )


def _facts(found: Waiting) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = [
        ("task", found.task_id),
        ("state", found.state),
        ("lane", found.lane),
        ("reason", found.reason),
        ("next", found.next_step),
    ]
    if found.items:
        facts.append(("work items", ", ".join(f"{count} {state}" for state, count in sorted(found.items.items()))))
        facts.append(("waiting at this stage", f"{counted(found.waiting_at_stage, 'item')} of all namespaces"))
    return facts


def _next(item: ItemView) -> str:
    if item.lease_seconds is not None:
        return f"lease ends in {item.lease_seconds:.0f} s unless renewed"
    if item.retry_seconds is not None:
        return f"tried again in {max(0.0, item.retry_seconds):.0f} s"
    if item.suspect:
        return "leased with few others, or alone"
    return f"{item.ahead} before it" if item.ahead else ""


def retry(
    ctx: typer.Context,
    task_ids: Annotated[list[str] | None, typer.Argument(metavar="[TASK]...", help="Ids of tasks.")] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Of the 10,000 newest failed tasks, those whose error was transient.")
    ] = False,
    all_: Annotated[bool, typer.Option("--all", help="With --failed: whatever their error was.")] = False,
    collection: Annotated[str, typer.Option("--collection", "-c", help="With --failed: of this one alone.")] = "",
    url: Annotated[str, typer.Option(help="The task's URL, where its query is no longer known.")] = "",
    json_: JsonFlag = False,
) -> None:
    """Run failed or cancelled tasks again: the same task, its next run.

    Exit status 1 where one of several cannot be run again.
    """
    from trivet.handles import Retried

    common: Common = ctx.obj
    if failed == bool(task_ids):
        raise InvalidRequest("Name tasks, or say --failed for all that failed.", hint="See: trivet dead")
    if url and (failed or len(task_ids or ()) != 1):
        raise InvalidRequest("--url goes with one task.")
    if (all_ or collection) and not failed:
        raise InvalidRequest("--all and --collection go with --failed.")
    client = common.client()
    if task_ids and len(task_ids) == 1:
        view = client.task(task_ids[0]).retry(url=url)
        done = Retried((view.task_id,), {})
    elif task_ids:
        done = _retry(client, task_ids)
    else:
        done = client.retry_failed(collection or None, transient_only=not all_)
        if collection and not done.task_ids and not done.refused:
            client.collection(collection)
    if json_:
        print_json({"retried": done.task_ids, "refused": done.refused})
    else:
        say(f"{counted(len(done.task_ids), 'task')} will be run again.")
        for why_not in done.refused.values():
            say(why_not)
    if done.refused:
        raise typer.Exit(1)


def _retry(client: Trivet, task_ids: list[str]) -> Retried:
    """One that cannot be run again keeps none of the others from it."""
    from trivet.handles import Retried

    retried, refused = [], {}
    for task_id in dict.fromkeys(task_ids):
        try:
            client.task(task_id).retry()
        except (NotRetryable, UnknownTask) as error:
            refused[task_id] = str(error)
        else:
            retried.append(task_id)
    return Retried(tuple(retried), refused)


def dead(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, newest first.")] = 100,
    json_: JsonFlag = False,
) -> None:
    """List failed tasks with their reasons: the dead-letter list."""
    common: Common = ctx.obj
    views = common.client().dead(limit)
    if json_:
        print_json([view.model_dump(mode="json") for view in views])
    elif views:
        print_tasks(views)
    else:
        say("No task has failed.")


def pause(
    ctx: typer.Context,
    collection: CollectionName = "",
    reason: Annotated[str, typer.Option("--reason", help="Shown to whoever asks why a task waits.")] = "by an operator",
    json_: JsonFlag = False,
) -> None:
    """Start no more work of a collection or namespace; what has started goes on."""
    common: Common = ctx.obj
    client = common.client()
    client.pause(collection or None, reason=reason)
    scope = _scope(client.namespace, collection)
    if json_:
        print_json({"paused": scope, "reason": reason})
    else:
        say(f"{scope} is paused.")


def resume(ctx: typer.Context, collection: CollectionName = "", json_: JsonFlag = False) -> None:
    """Go on with a paused collection or namespace, where it stood."""
    common: Common = ctx.obj
    client = common.client()
    was = client.resume(collection or None)
    scope = _scope(client.namespace, collection)
    if json_:
        print_json({"resumed": scope, "was_paused": was})
    else:
        say(f"{scope} {'goes on' if was else 'was not paused'}.")


def paused(ctx: typer.Context, json_: JsonFlag = False) -> None:
    """List what is paused, and why."""
    common: Common = ctx.obj
    found = common.client().paused()
    if json_:
        print_json(found)
    elif found:
        print_table(("paused", "reason"), list(found.items()))
    else:
        say("Nothing is paused.")


def weight(
    ctx: typer.Context, share: Annotated[float, typer.Argument(help="1 unless set.")], json_: JsonFlag = False
) -> None:
    """Set the namespace's share of the workers where several namespaces wait."""
    common: Common = ctx.obj
    client = common.client()
    client.set_weight(share)
    if json_:
        print_json({"namespace": client.namespace, "weight": share})
    else:
        say(f"{client.namespace} has the weight {share:g}.")


def migrate(ctx: typer.Context, json_: JsonFlag = False) -> None:
    """Bring a ledger that an older Trivet has written to this version. End its workers first."""
    from trivet.ledger.migration import Migration
    from trivet.ledger.refusals import SCHEMA_VERSION

    common: Common = ctx.obj
    began, rewritten = Migration(common.settings()).run()
    if json_:
        print_json({"from": began, "to": SCHEMA_VERSION, "tasks": rewritten})
    elif began == SCHEMA_VERSION:
        say(f"The ledger has schema {began} already.")
    else:
        say(f"The ledger had schema {began}; rewritten: {counted(rewritten, 'task')}.")


def _scope(namespace: str, collection: str) -> str:
    return f"{namespace}/{collection}" if collection else namespace
