"""`trivet doctor`: is everything there, and what to do where it is not."""

from __future__ import annotations

from dataclasses import asdict

import typer

from trivet.cli.common import Common, JsonFlag
from trivet.cli.console import clean, out, print_json, say

_FAILED = 1
_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "red")}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(ctx: typer.Context, json_: JsonFlag = False) -> None:
    """Check Redis, S3, the model, workers and packages. Exit status 1 if anything is wrong."""
    from rich.text import Text

    from trivet.cli.checks import findings

    common: Common = ctx.obj
    found = []
    for finding in findings(common.settings()):
        found.append(finding)
        if not json_:
            mark, style = _MARKS[finding.result]
            line = Text.assemble((f"{mark} ", style), (f"{finding.check}: ", "bold"), clean(finding.detail))
            if finding.hint:
                line.append(f"\n    {clean(finding.hint)}", style="italic")
            out().print(line, soft_wrap=True)
    problems = sum(finding.result == "problem" for finding in found)
    if json_:
        print_json({"ok": not problems, "findings": [asdict(finding) for finding in found]})
    else:
        say("All is well." if not problems else f"{problems} {'thing is' if problems == 1 else 'things are'} wrong.")
    if problems:
        raise typer.Exit(_FAILED)
