"""A process that should stop: how long it may go on, and how it leaves."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.unit.stages.desk import Desk
from trivet.errors import LedgerUnavailable
from trivet.ledger.memory import MemoryLedger
from trivet.names import Stage
from trivet.settings import Settings
from trivet.stages.context import StageContext, open_context
from trivet.stages.lastcall import LastCall
from trivet.stores.memory import MemoryStore


class Exit:
    """What stands for the end of the process."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.status: int | None = None

    def __call__(self, status: int) -> None:
        self.status = status
        self.over.set()


def holding(d: Desk, stopping: threading.Event) -> StageContext:
    """The context of a worker that holds one item."""
    d.accept()
    ctx = open_context(d.settings, d.ledger, d.store, [Stage.PREPARE], stopping=stopping.is_set)
    ctx.keeper.add(d.ledger.claim(Stage.PREPARE, ctx.worker, "op"))
    return ctx


def test_what_is_held_when_the_time_is_over_is_given_back_uncharged(tmp_path: Path) -> None:
    d, stop, exit_ = Desk(tmp_path, drain_seconds=0.05), threading.Event(), Exit()
    ctx = holding(d, stop)
    call = LastCall(ctx, exit=exit_)
    assert not exit_.over.wait(0.3), "nobody asked it to stop"
    stop.set()
    assert exit_.over.wait(10)
    assert exit_.status == 0
    assert list(d.states().values()) == ["pending"]
    assert d.attempts() == [0]
    call.close()
    d.close()


def test_a_process_that_is_done_in_time_leaves_in_its_own_way(tmp_path: Path) -> None:
    d, stop, exit_ = Desk(tmp_path, drain_seconds=0.3), threading.Event(), Exit()
    ctx = holding(d, stop)
    call = LastCall(ctx, exit=exit_)
    stop.set()
    ctx.close()
    call.close()
    assert not exit_.over.wait(0.6)
    d.close()


def test_a_ledger_that_does_not_answer_keeps_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trivet.stages.lastcall._FAREWELL_SECONDS", 0.1)
    awake = threading.Event()

    class Silent(MemoryLedger):
        def farewell(self, worker: str) -> int:
            awake.wait(30)
            raise LedgerUnavailable("away")

    stop, exit_ = threading.Event(), Exit()
    ctx = open_context(
        Settings(state_dir=tmp_path, drain_seconds=0.0), Silent(), MemoryStore(), [], stopping=stop.is_set
    )
    LastCall(ctx, exit=exit_)
    stop.set()
    assert exit_.over.wait(10)
    assert exit_.status == 0
    awake.set()
