"""`trivet audit`: whether what must always hold does hold, and repairs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from trivet.cli.common import Common, JsonFlag
from trivet.cli.console import counted, print_json, print_table, say

#: One repair may bring to light another: a task that is put right has items that are looked at next.
_ROUNDS = 5


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(audit)


def audit(
    ctx: typer.Context,
    repair: Annotated[bool, typer.Option("--repair", help="Set right what can be.")] = False,
    ledger: Annotated[bool, typer.Option("--ledger", help="Redis alone: S3 takes long where it holds much.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Check that nothing is lost, doubled or without a next step.

    Exit status 1 where something is found that is not repaired.
    """
    from trivet import audit as audits

    common: Common = ctx.obj
    settings = common.settings()
    found: list[audits.Finding] = []
    report = audits.audit(settings, repair=repair, only_ledger=ledger)
    for _ in range(_ROUNDS):
        found += [one for one in report.findings if one.repaired]
        if not any(one.repaired for one in report.findings):
            break
        report = audits.audit(settings, repair=repair, only_ledger=ledger)
    found += [one for one in report.findings if not one.repaired]
    if json_:
        facts = {**asdict(report), "findings": [one.model_dump(mode="json") for one in found], "repaired": repair}
        print_json(facts)
    else:
        if found:
            rows = [(one.code, one.where, one.detail, "repaired" if one.repaired else "") for one in found]
            print_table(("finding", "where", "what", ""), rows)
        for note in report.notes:
            say(note)
        say(_sum(report.tasks, report.objects, len(found), report.left, repair=repair, ledger=ledger))
    if report.left:
        raise typer.Exit(1)


def _sum(tasks: int, objects: int, found: int, left: int, *, repair: bool, ledger: bool) -> str:
    looked = counted(tasks, "task") + ("" if ledger else f" and {counted(objects, 'object')}")
    if not found and not left:
        return f"{looked}: all is as it must be."
    advice = "" if repair else " Repair what can be: trivet audit --repair"
    return f"{looked}: {counted(found, 'finding')}, {left} of them not repaired.{advice}"
