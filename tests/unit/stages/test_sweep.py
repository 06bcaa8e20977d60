"""The sweeper's rhythm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trivet.clock import ManualClock
from trivet.errors import LedgerUnavailable
from trivet.ledger import Swept
from trivet.ledger.memory import MemoryLedger
from trivet.settings import Settings
from trivet.stages.sweep import sweep_forever


class Busy(MemoryLedger):
    """Answers as it is told, and notes when it was asked."""

    def __init__(self, clock: ManualClock, answers: list[Swept | Exception]) -> None:
        super().__init__(clock=clock)
        self.answers, self.asked = answers, list[float]()

    def sweep(self, **_: Any) -> Swept:
        self.asked.append(self._clock.monotonic())
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_sweep_that_leaves_something_is_followed_by_another_at_once(tmp_path: Path) -> None:
    clock, settings = ManualClock(), Settings(state_dir=tmp_path, sweep_seconds=2)
    full, empty = Swept(500, 0, 0, 0, more=True), Swept(0, 0, 0, 0)
    ledger = Busy(clock, [full, full, empty, LedgerUnavailable("away"), empty])
    start = clock.monotonic()
    sweep_forever(ledger, settings, clock, lambda: not ledger.answers)
    assert [at - start for at in ledger.asked] == [0, 0, 0, 2, 4]
