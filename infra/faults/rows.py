"""The matrix: one row per fault and stage."""

from __future__ import annotations

from dataclasses import replace

from infra.faults import strikes
from infra.faults.fleet import Start
from infra.faults.scene import SWEEP, Row

KILL_SECONDS = 3.0
_KILLED = "`kill -9` of one of two {0} workers every {1:g} s, started again at once."
#: A pause in the shipped code path makes a stage last long enough to be struck, whatever the machine.
_SLOW = {
    "prepare": "prepare.after_allocate:sleep:0.05",
    "embed": "embed.after_forward:sleep:0.05",
    "commit": "commit.before_current:sleep:0.1",
}


def _apart(role: str, concurrency: int = 2) -> tuple[Start, ...]:
    """Every stage in workers of its own, two of them for the role that is struck."""
    starts = [SWEEP]
    for each in ("prepare", "embed", "commit"):
        changes = {"faults": _SLOW[each]} if each == role else {}
        count = 1 if each == "embed" else concurrency
        starts += [Start(f"{each}-{n}", each, count, changes) for n in range(2 if each == role else 1)]
    return tuple(starts)


def kill(role: str, every: float = KILL_SECONDS, tasks: int = 1000) -> Row:
    """A worker killed again and again."""
    return Row(
        name=f"kill-{role}",
        stage=role,
        what=_KILLED.format(role, every),
        strikes=strikes.killing(role, every),
        tasks=tasks,
        workers=_apart(role),
    )


ROWS: tuple[Row, ...] = tuple(kill(role) for role in ("prepare", "embed", "commit"))


def named(name: str, tasks: int = 0) -> Row | None:
    """A row by its name, with so many tasks (0: its own number)."""
    row = next((row for row in ROWS if row.name == name), None)
    return replace(row, tasks=tasks) if row is not None and tasks else row
