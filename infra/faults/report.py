"""The figures of all rows, as a table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
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


def rows(results: Sequence[Result]) -> dict[str, str]:
    """A line of a Markdown table for each result, by the row's name."""
    return {result.row.name: f"| {' | '.join(_cells(result))} |" for result in results}


def table(lines: Mapping[str, str], order: Sequence[str]) -> str:
    """A Markdown table of the lines in the order of these names; others are left out."""
    head = [f"| {' | '.join(_HEAD)} |", "|" + "---|" * len(_HEAD)]
    return "\n".join([*head, *(lines[name] for name in order if name in lines)])


def written(page: Path, name: str) -> dict[str, str]:
    """The lines of the table that stands between the marks of the page, by their first cell."""
    text = page.read_text("utf-8") if page.exists() else ""
    block = text.partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0]
    return {line.split("|")[1].strip(): line for line in block.splitlines() if line.startswith("| ")}


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
