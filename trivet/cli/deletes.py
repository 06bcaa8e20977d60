"""`trivet delete`, `deletes` and `purge`: what shall no longer be found, and what shall no longer be there."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trivet.cli.common import Common, JsonFlag
from trivet.cli.console import counted, number, print_json, print_table, say
from trivet.errors import InvalidRequest

if TYPE_CHECKING:
    from trivet.client import Trivet
    from trivet.deleting.purge import PurgeReceipt
    from trivet.deleting.values import Deleted
    from trivet.values import TaskView

Objects = Annotated[list[str] | None, typer.Argument(metavar="[OBJECT]...", help="Ids of objects.")]
CollectionOption = Annotated[str, typer.Option("--collection", "-c", help="Name of the collection.")]
Wait = Annotated[bool, typer.Option("--wait", help="Until it is done.")]
Timeout = Annotated[float | None, typer.Option("--timeout", min=0, help="With --wait: seconds at most.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (delete, deletes, purge):
        app.command()(command)


def delete(
    ctx: typer.Context,
    collection: CollectionOption,
    objects: Objects = None,
    prefix: Annotated[str, typer.Option(metavar="URL", help="What was ingested from this URL or below it.")] = "",
    missing_from: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What a full listing, one object id per line, no longer has.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="The whole collection, which takes no more requests.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="At once, however many objects it is.")] = False,
    key: Annotated[str, typer.Option(help="Idempotency key; with one object.")] = "",
    wait: Wait = False,
    timeout: Timeout = None,
    json_: JsonFlag = False,
) -> None:
    """Hide objects: readers no longer see them once their tasks have ended.

    Much of a collection at once is held until it is confirmed (exit status 1; see `trivet deletes`).
    """
    common: Common = ctx.obj
    if sum((bool(objects), bool(prefix), missing_from is not None, all_)) != 1:
        raise InvalidRequest("Name objects, or say one of --prefix, --missing-from and --all.")
    if key and (objects is None or len(objects) != 1):
        raise InvalidRequest("--key goes with one object.")
    if yes and missing_from is not None:
        raise InvalidRequest("--yes does not go with --missing-from.", hint="A listing that looks cut short is held.")
    client = common.client()
    if objects:
        from trivet.deleting.values import Deleted
        from trivet.ids import check_object_id

        # A wrong id among many leaves nothing half done.
        for name in objects:
            check_object_id(name)
        done = Deleted(
            tuple(client.delete(name, collection=collection, idempotency_key=key).task_id for name in objects)
        )
    elif prefix:
        done = client.deletes().delete_prefix(collection, prefix, confirm=yes)
    elif missing_from is not None:
        done = client.deletes().delete_missing(collection, _listing(missing_from))
    else:
        done = client.deletes().delete_collection(collection, confirm=yes)
    _report(client, done, wait=wait, timeout=timeout, as_json=json_)


def _listing(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why_not = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise InvalidRequest(f"{str(path)!r} cannot be read: {why_not}.") from None
    return [line.strip() for line in lines if line.strip()]


def _report(client: Trivet, done: Deleted, *, wait: bool, timeout: float | None, as_json: bool) -> None:
    views: list[TaskView] = []
    if wait:
        deadline = None if timeout is None else time.monotonic() + timeout
        for task_id in done.task_ids:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            views.append(client.task(task_id).wait(left))
    if as_json:
        ended = {view.task_id: view.state for view in views}
        print_json({"task_ids": done.task_ids, "renewed": done.renewed, "states": ended})
    elif wait:
        counts = {state: sum(view.state == state for view in views) for state in {view.state for view in views}}
        say(", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "There is nothing to delete.")
        if any(view.state == "skipped" for view in views):
            say("Skipped is what was not there, or deleted already.")
    elif len(done.task_ids) == 1:
        say(f"Task {done.task_ids[0]} deletes it.")
    else:
        say(f"{len(done.task_ids)} tasks delete them." if done.task_ids else "There is nothing to delete.")
    if done.renewed and not as_json:
        say(f"{counted(len(done.renewed), 'object')} ingested anew since: not deleted.")
    if any(view.state not in ("deleted", "skipped") for view in views):
        raise typer.Exit(1)


def deletes(
    ctx: typer.Context,
    confirm: Annotated[str, typer.Option(metavar="ID", help="Go on with a held batch.")] = "",
    drop: Annotated[str, typer.Option(metavar="ID", help="Forget a held batch; its objects stay.")] = "",
    wait: Wait = False,
    timeout: Timeout = None,
    json_: JsonFlag = False,
) -> None:
    """List the deletes that wait for a confirmation, confirm one or drop it."""
    common: Common = ctx.obj
    if confirm and drop:
        raise InvalidRequest("--confirm does not go with --drop.")
    if wait and not confirm:
        raise InvalidRequest("--wait goes with --confirm.")
    client = common.client()
    if confirm:
        _report(client, client.deletes().confirm(confirm), wait=wait, timeout=timeout, as_json=json_)
        return
    if drop:
        dropped = client.deletes().drop(drop)
        if json_:
            print_json(dropped.model_dump(mode="json"))
        else:
            say(f"The delete of {counted(dropped.count, 'object')} is forgotten: nothing is deleted.")
        return
    found = client.deletes().held()
    if json_:
        print_json([batch.model_dump(mode="json") for batch in found])
    elif found:
        print_table(
            ("held", "collection", "what", ">objects", ">of", "since", "reason"),
            [(b.id, b.collection, b.prefix or b.what, b.count, b.visible, _time(b.created), b.reason) for b in found],
        )
        say("Go on with one: trivet deletes --confirm ID")
    else:
        say("No delete waits for a confirmation.")


def purge(
    ctx: typer.Context,
    collection: CollectionOption = "",
    object_id: Annotated[str, typer.Argument(metavar="[OBJECT]", help="None: all deleted ones, with --all.")] = "",
    all_: Annotated[bool, typer.Option("--all", help="The whole collection; all of it must be deleted.")] = False,
    receipt: Annotated[str, typer.Option(metavar="ID", help="Show the receipt of an earlier purge.")] = "",
    wait: Wait = False,
    timeout: Timeout = None,
    json_: JsonFlag = False,
) -> None:
    """Remove from S3 what a deleted object has left there, and give a receipt. A process of the role gc does it."""
    common: Common = ctx.obj
    if sum((bool(object_id), all_, bool(receipt))) != 1:
        raise InvalidRequest("Name one object, or say --all or --receipt.")
    if bool(collection) == bool(receipt):
        raise InvalidRequest("Name the collection with --collection, or a purge with --receipt.")
    client = common.client()
    asked = client.purge_receipt(receipt) if receipt else client.purge(object_id, collection=collection)
    deadline = None if timeout is None else time.monotonic() + timeout
    while wait and asked.state == "waiting":
        if deadline is not None and time.monotonic() >= deadline:
            raise TimeoutError(f"Purge {asked.id} still waits: {asked.reason}.")
        time.sleep(0.2)
        asked = client.purge_receipt(asked.id)
    if json_:
        print_json(asked.model_dump(mode="json"))
    else:
        _show(asked)
    if asked.state == "refused":
        raise typer.Exit(1)


def _show(asked: PurgeReceipt) -> None:
    facts: list[tuple[str, object]] = [
        ("purge", asked.id),
        ("of", f"{asked.namespace}/{asked.collection}/{asked.object_id or '*'}"),
        ("state", asked.state),
        ("reason", asked.reason),
        ("asked for", _time(asked.requested)),
        ("ended", _time(asked.ended) if asked.ended else ""),
        ("by", asked.by),
    ]
    facts += [
        (kind, f"{counted(count, 'key')}, {number(asked.bytes[kind], 'B')}") for kind, count in asked.keys.items()
    ]
    print_table(("", ""), [(name, value) for name, value in facts if value != ""])


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
