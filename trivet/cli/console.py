"""What is printed, and where: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

#: Wide enough that nothing is cut where no terminal says how wide it is.
_PIPE_WIDTH = 240
#: Control characters, and those that turn the direction of writing: texts come from strangers.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@cache
def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _PIPE_WIDTH, highlight=False, markup=False)


def out() -> Console:
    """Results."""
    return _console(stderr=False)


def err() -> Console:
    """Progress, notes and errors."""
    return _console(stderr=True)


def clean(text: str) -> str:
    """The text without characters that could steer a terminal."""
    return _CONTROL.sub("", text)


def say(text: str) -> None:
    """One line for the reader, on stderr."""
    err().print(clean(text), soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout, keys as they are."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")


def print_json_line(value: Any) -> None:
    """One JSON document on one line, and out with it."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def print_error(code: str, message: str, hint: str = "", *, as_json: bool = False) -> None:
    """One sentence, and what to do, on stderr; with `as_json` the same as an object on stdout."""
    # Plain write: an error must come out even where rich cannot be loaded.
    sys.stderr.write(clean(f"trivet: {message} {hint}".strip()) + "\n")
    if as_json:
        print_json({"error": {"code": code, "message": message, "hint": hint}})


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
    """A table on stdout; a column whose name starts with `>` stands to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False, show_header=any(columns)
    )
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean("" if cell is None else str(cell))) for cell in row))
    out().print(table)


def counted(count: int, noun: str) -> str:
    """`1 task` or `1,200 tasks`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def number(value: float, unit: str = "") -> str:
    """`12,345` or `1.5 MB`."""
    if unit != "B":
        return f"{value:,.0f}{unit}"
    for name in ("B", "kB", "MB", "GB"):
        if value < 1000 or name == "GB":
            break
        value /= 1000
    return f"{value:.0f} {name}" if name == "B" else f"{value:.1f} {name}"
