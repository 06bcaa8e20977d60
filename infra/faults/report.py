"""The figures of all rows, as a table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from infra.faults.scene import Result

_HEAD = (
    "row",
    "stage",
    "tasks",
    "faults",
    "lost",
    "doubled",
    "stale",
    "terminal events per task",
    "healthy dead-lettered",
    "recovery s (p50 / max)",
    "s",
    "",
)


def table(results: Sequence[Result]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(_HEAD)} |", "|" + "---|" * len(_HEAD)]
    return "\n".join([*lines, *(f"| {' | '.join(_cells(result))} |" for result in results)])


def write(page: Path, name: str, text: str) -> None:
    """Put the text between `<!-- NAME -->` and `<!-- /NAME -->` of the page; without them, at its end."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    block = f"{begin}\n\n{text}\n\n{end}"
    before = page.read_text("utf-8") if page.exists() else ""
    head, found, rest = before.partition(begin)
    if found:
        page.write_text(head + block + rest.partition(end)[2], "utf-8")
    else:
        page.write_text(f"{before}{block}\n", "utf-8")


def line(result: Result) -> str:
    """The figures of one row in one line."""
    return ", ".join(f"{name} {cell}".strip() for name, cell in zip(_HEAD[2:], _cells(result)[2:], strict=True))


def _cells(result: Result) -> tuple[str, ...]:
    verdict = result.verdict
    least, most = verdict.terminal_min, verdict.terminal_max
    return (
        result.row.name,
        result.row.stage,
        str(verdict.tasks),
        f"{result.faults} ({result.holding} held work)" if result.holding else str(result.faults),
        str(verdict.lost),
        str(verdict.doubled),
        str(verdict.stale),
        str(least) if least == most else f"{least}–{most}",
        str(verdict.dead_healthy),
        _recovery(result.recoveries),
        f"{result.seconds:.0f}",
        "holds" if not result.violations else "**violated**",
    )


def _recovery(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.1f} / {max(seconds):.1f}" if seconds else "–"
