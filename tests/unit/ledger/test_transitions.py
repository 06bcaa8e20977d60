"""The table of transitions: in code, in the docs, and without a dead end."""

from __future__ import annotations

import re
from pathlib import Path

from trivet.ledger.transitions import ALLOWED, TRANSITIONS
from trivet.names import TERMINAL_EVENTS
from trivet.values import TaskState

PAGE = Path(__file__).parent.parent.parent.parent / "docs" / "ledger.md"


def test_the_page_shows_the_same_table() -> None:
    table = PAGE.read_text().split("## Transitions")[1].split("## ")[0]
    shown = [
        tuple(cell.strip() for cell in row.split("|")[1:-1]) for row in re.findall(r"^\|.*\|$", table, re.MULTILINE)
    ]
    assert shown[0] == ("before", "after", "by", "when", "event")
    assert shown[2:] == [(t.before or "–", t.after, t.by, t.when, t.event or "") for t in TRANSITIONS]


def test_no_way_is_listed_twice() -> None:
    ways = [(t.before, t.after) for t in TRANSITIONS]
    assert len(ways) == len(set(ways)) == len(ALLOWED)


def test_every_state_can_be_reached_and_every_open_one_can_end() -> None:
    reached: set[TaskState | None] = {None}
    for _ in TaskState:
        reached |= {after for before, after in ALLOWED if before in reached}
    assert reached == {None, *TaskState}
    ends = {state for state in TaskState if state.terminal}
    for _ in TaskState:
        ends |= {before for before, after in ALLOWED if after in ends and before is not None}
    assert ends == set(TaskState)


def test_what_ends_a_task_tells_so_and_nothing_else_does() -> None:
    for transition in TRANSITIONS:
        assert (transition.event in TERMINAL_EVENTS) == transition.after.terminal, transition
