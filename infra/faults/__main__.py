"""python -m infra.faults [--row NAME] [--list] [--tasks N] [--markdown FILE]"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from infra.faults import report
from infra.faults.rows import ROWS, named
from infra.faults.run import run_row, shared_servers
from infra.faults.scene import Result


def main() -> int:
    """Run the rows; exit status 1 where anything was violated, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(prog="infra.faults", description="What Trivet loses under each fault.")
    parser.add_argument("--row", action="append", default=[], help="one row (may be given again); default: all")
    parser.add_argument("--list", action="store_true", help="say which rows there are")
    parser.add_argument("--tasks", type=int, default=0, help="tasks of each row, in place of its own number")
    parser.add_argument("--markdown", type=Path, help="write the table here too")
    options = parser.parse_args()
    if options.list:
        for row in ROWS:
            _say(f"{row.name:22} {row.what}")
        return 0
    rows = []
    for name in options.row or [row.name for row in ROWS]:
        row = named(name, options.tasks)
        if row is None:
            parser.error(f"There is no row {name!r}; --list says which there are.")
        rows.append(row)
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="trivet-faults-") as folder, shared_servers(Path(folder)) as base:
        for row in rows:
            _say(f"{row.name}: {row.what}")
            result = run_row(row, base, Path(folder) / row.name)
            results.append(result)
            _say(f"  {report.line(result)}")
            for violation in result.violations:
                _say(f"  VIOLATED: {violation}")
    _say(f"\n{report.table(results)}")
    return 1 if any(result.violations for result in results) else 0


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - what the command is for


if __name__ == "__main__":
    sys.exit(main())
