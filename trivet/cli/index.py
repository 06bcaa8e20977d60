"""`trivet index`: how it stands, compared with S3, and made anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from trivet.cli.common import JsonFlag
from trivet.cli.console import counted, print_json, print_table, say
from trivet.cli.repair import library_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from trivet.index.serving import Parts
    from trivet.index.sync import Trouble
    from trivet.settings import Settings

T = TypeVar("T")

_FAILED = 1
_Collection = Annotated[str, typer.Argument(metavar="[COLLECTION]", help="This one alone; else all of all namespaces.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The search index: status, verify, rebuild.")
    group.command()(status)
    group.command()(verify)
    group.command()(rebuild)
    app.add_typer(group, name="index")


def status(ctx: typer.Context, json_: JsonFlag = False) -> None:
    """Show what the index holds and how far it is behind. Exit status 3 if no search process answers."""
    from trivet.retrieval.remote import caller, standing

    settings = library_settings(ctx)
    found = standing(settings)
    held = caller(settings).ask(lambda values: list(values["collections"]), "held")
    if json_:
        print_json({"standing": asdict(found), "collections": held})
        return
    say(describe(asdict(found)))
    if held:
        rows = [(f"{one['namespace']}/{one['collection']}", one["objects"], f"{one['chunks']:,}") for one in held]
        print_table(("collection", ">objects", ">chunks"), rows)


def verify(
    ctx: typer.Context,
    collection: _Collection = "",
    deep: Annotated[bool, typer.Option("--deep", help="Compare every chunk id, not their number alone.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Compare the index with the manifests on S3. Exit status 1 if anything differs."""
    from trivet.index.sync import VerifyReport, trouble_of

    namespace, body = _scope(ctx, collection)

    def read(values: Mapping[str, Any]) -> VerifyReport:
        return VerifyReport(**{**values, "troubles": tuple(map(trouble_of, values["troubles"]))})

    report = _do(
        library_settings(ctx),
        "verify",
        {**body, "deep": deep},
        read,
        lambda parts: parts.sync.verify(namespace, collection, deep=deep),
    )
    if json_:
        print_json(asdict(report))
    else:
        _print_troubles(report.troubles, report.differences)
        say(f"{counted(report.objects, 'object')} with {counted(report.chunks, 'chunk')} compared.")
        say(
            f"{counted(report.differences, 'difference')}." if report.differences else "The index equals the manifests."
        )
    if report.differences:
        raise typer.Exit(_FAILED)


def rebuild(ctx: typer.Context, collection: _Collection = "", json_: JsonFlag = False) -> None:
    """Write every object into the index again from S3; searches go on. Exit status 1 if one cannot be read."""
    from trivet.index.sync import FillReport, trouble_of

    namespace, body = _scope(ctx, collection)

    def read(values: Mapping[str, Any]) -> FillReport:
        return FillReport(**{**values, "troubles": tuple(map(trouble_of, values["troubles"]))})

    report = _do(library_settings(ctx), "rebuild", body, read, lambda parts: parts.sync.remade(namespace, collection))
    if json_:
        print_json(asdict(report))
    else:
        _print_troubles(report.troubles, report.damaged)
        say(f"{counted(report.indexed, 'object')} indexed, {report.removed} removed, {report.known} as they were.")
    if report.damaged:
        raise typer.Exit(_FAILED)


def describe(standing: Mapping[str, Any]) -> str:
    """How far the index is, in one sentence."""
    healed = ", ".join(standing["healed"])
    note = f" It was damaged ({healed}) and is filled anew from S3 by itself." if healed else ""
    if standing["waiting"]:
        return f"The index waits: {standing['waiting']}{note}"
    if not standing["filled"]:
        return f"The index is being filled from S3; until then searches read the parts themselves.{note}"
    behind = standing["behind"]
    how = "cannot tell how far it is behind" if behind is None else f"is {counted(behind, 'event')} behind"
    damaged = standing["damaged"]
    bad = f"; {counted(damaged, 'object')} could not be read" if damaged else ""
    return f"The index {how}{bad}.{note}"


def judged(settings: Settings) -> tuple[bool, str]:
    """Whether all is well with the index, and how it stands. Raises `IndexUnavailable`."""
    from trivet.retrieval.remote import standing

    found = standing(settings)
    return found.filled and not found.waiting and not found.damaged, describe(asdict(found))


def _scope(ctx: typer.Context, collection: str) -> tuple[str, dict[str, Any]]:
    """A collection is one of the namespace; without one it is all of all namespaces."""
    namespace = library_settings(ctx).namespace if collection else ""
    return namespace, {"namespace": namespace, "collection": collection}


def _do(
    settings: Settings,
    what: str,
    body: Mapping[str, Any],
    read: Callable[[Mapping[str, Any]], T],
    here: Callable[[Parts], T],
) -> T:
    """By the process that owns the index where one answers, else in this one."""
    from trivet.index.serving import opened
    from trivet.retrieval.remote import caller, reachable

    if reachable(settings):
        return caller(settings).ask(read, what, body, patient=True)
    with opened(settings) as parts:
        return here(parts)


def _print_troubles(troubles: Sequence[Trouble], total: int) -> None:
    for one in troubles:
        say(f"{one.namespace}/{one.collection} {one.object_id}: {one.reason}.")
    if total > len(troubles):
        say(f"… and {total - len(troubles)} more.")
