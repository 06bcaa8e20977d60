"""python -m infra.faults [--row NAME] [--list] [--tasks N] [--plain] [--markdown FILE]"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from infra.faults import plain, report
from infra.faults.rows import ROWS, named
from infra.faults.run import run_row, shared_servers
from infra.faults.scene import Result, Row
from infra.faults.worker_rows import KILL_SECONDS
from trivet.errors import TrivetError

#: The rows that are compared with plain Celery.
_COMPARED = ("kill-prepare", "kill-embed", "kill-commit")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rows; exit status 1 where anything was violated, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(prog="infra.faults", description="What Trivet loses under each fault.")
    parser.add_argument("--row", action="append", default=[], help="one row (may be given again); default: all")
    parser.add_argument("--list", action="store_true", help="say which rows there are")
    parser.add_argument("--tasks", type=int, default=0, help="tasks of each row, in place of its own number")
    parser.add_argument("--plain", action="store_true", help="the kill rows, and the same kills against plain Celery")
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="write the tables into this page too; rows that did not run now stay",
    )
    options = parser.parse_args(arguments)
    if options.list:
        for row in ROWS:
            _say(f"{row.name:22} {row.what}")
        return 0
    rows: list[Row] = []
    for name in options.row or (_COMPARED if options.plain else [row.name for row in ROWS]):
        found = named(name, options.tasks)
        if found is None:
            parser.error(f"There is no row {name!r}; --list says which there are.")
        rows.append(found)
    for variable in [name for name in os.environ if name.startswith(("TRIVET_", "AWS_"))]:
        # Settings of a system that stands elsewhere.
        del os.environ[variable]
    with tempfile.TemporaryDirectory(prefix="trivet-faults-") as folder:
        return _run(rows, Path(folder), options.markdown, compare=options.plain)


def _run(rows: Sequence[Row], folder: Path, page: Path | None, *, compare: bool) -> int:
    results: list[Result] = []
    broken = False
    with shared_servers(folder) as base:
        for row in rows:
            _say(f"{row.name}: {row.what}")
            try:
                result = run_row(row, base, folder / row.name)
            except (RuntimeError, TrivetError) as error:
                # The other rows have something to show all the same.
                _say(f"  BROKEN: {error}")
                broken = True
                continue
            results.append(result)
            _say(f"  {report.line(result)}")
            for violation in result.violations:
                _say(f"  VIOLATED: {violation}")
        lines = report.rows(results)
        order = [row.name for row in ROWS]
        _say(f"\n{report.table(lines, order)}")
        if page is not None:
            kept = {**report.written(page, "faults"), **lines}
            missing = ", ".join(name for name in order if name not in kept) or "none"
            head = f"{_machine()}; the newest run of each row. Rows that never ran to their end: {missing}."
            report.write(page, "faults", f"{head}\n\n{report.table(kept, order)}")
        if compare:
            tasks = sum(result.verdict.tasks for result in results)
            _say(f"plain Celery: {tasks} tasks, `kill -9` of one of two workers every {KILL_SECONDS:g} s.")
            found = plain.run_plain(base.redis_url, folder / "plain", tasks, KILL_SECONDS)
            beside = plain.table(found, results)
            _say(f"\n{beside}")
            if page is not None:
                report.write(page, "plain", f"{_machine()}.\n\n{beside}")
    return 1 if broken or any(result.violations for result in results) else 0


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - what the command is for


if __name__ == "__main__":
    sys.exit(main())
