"""`trivet rebuild` and `gc`: a lost ledger written back from S3, and what nobody needs removed there."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from trivet.cli.common import Common, JsonFlag
from trivet.cli.console import counted, number, print_json, print_table, say

if TYPE_CHECKING:
    from trivet.gc import GcReport
    from trivet.rebuild import RebuildReport
    from trivet.settings import Settings

_FAILED = 1


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(rebuild)
    app.command()(gc)


def rebuild(ctx: typer.Context, json_: JsonFlag = False) -> None:
    """Write a lost ledger back from S3. Adds only what is missing; exit status 1 if a record could not be used."""
    from trivet.rebuild import rebuild as run

    report = run(library_settings(ctx))
    if json_:
        print_json(asdict(report))
    else:
        _show_rebuild(report)
    if report.damaged or report.busy:
        raise typer.Exit(_FAILED)


def gc(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing; say what would be removed.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Remove from S3 what neither readers nor tasks need, once it is old enough. Workers of the role gc do so too."""
    from trivet.gc import collect

    report = collect(library_settings(ctx), dry_run=dry_run)
    if json_:
        print_json(asdict(report))
    else:
        _show_gc(report)


def library_settings(ctx: typer.Context) -> Settings:
    """The settings; what the library logs goes to stderr, and only where somebody asked for more than its report."""
    from trivet.cli.debug import wanted
    from trivet.logs import configure

    common: Common = ctx.obj
    settings = common.settings()
    configure(settings if wanted() else settings.model_copy(update={"log_level": "ERROR"}))
    return settings


def _show_rebuild(report: RebuildReport) -> None:
    rows = [
        ("collections", report.collections, "written back"),
        ("completed", report.completed, "committed; their terminal events went out again under their old ids"),
        ("deleted", report.deleted, "tombstones; likewise"),
        ("staged", report.staged, "wait for an embed worker; nothing is fetched again"),
        ("accepted", report.accepted, "start from the beginning"),
        ("superseded", report.superseded, "a later task of the object took their place"),
        ("known", report.known, "were in the ledger already"),
        ("retired", report.retired, "committed before the retention: on S3 alone"),
        ("busy", report.busy, "their object's task commits just now: run this again"),
        ("damaged", report.damaged, "could not be used"),
    ]
    print_table(("", ">tasks", ""), [row for row in rows if row[1]])
    for one in report.reasons:
        say(f"{one.key}: {one.reason}")
    if not any(row[1] for row in rows):
        say("S3 remembers nothing under this prefix.")


def _show_gc(report: GcReport) -> None:
    rows = [
        ("generations replaced by newer ones", report.replaced),
        ("generations that never became visible", report.abandoned),
        ("plans", report.plans),
        ("raw contents", report.raw),
        ("records of staged tasks", report.staged),
        ("intents", report.intents),
        ("contents sent to an API", report.sent),
        ("unfinished uploads", report.uploads),
    ]
    if any(row[1] for row in rows):
        print_table(("", ">removed" if not report.dry_run else ">would go"), [row for row in rows if row[1]])
    verb = "would be removed" if report.dry_run else "removed"
    say(f"{counted(report.keys, 'key')}, {number(report.bytes, 'B')} {verb}.")
    if report.busy:
        say(f"{counted(report.busy, 'object')} left alone, since a task of each is active.")
