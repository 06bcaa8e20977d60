"""Both ledgers, one after the other."""

from __future__ import annotations

import pytest

from tests.contract.ledger.desk import PROGRESS, Desk
from trivet.clock import ManualClock, SystemClock
from trivet.ledger.memory import MemoryLedger
from trivet.ledger.redis import RedisLedger
from trivet.names import Stage
from trivet.settings import Settings
from trivet.values import Collection


@pytest.fixture(params=["redis", "memory"])
def desk(request: pytest.FixtureRequest) -> Desk:
    rung: list[tuple[Stage, str, str]] = []

    def ring(stage: Stage, door: str, bell: str) -> None:
        rung.append((stage, door, bell))

    if request.param == "memory":
        clock = ManualClock()
        made = Desk(MemoryLedger(ring, clock, progress_seconds=PROGRESS), clock, rung)
    else:
        settings: Settings = request.getfixturevalue("settings")
        made = Desk(RedisLedger(settings.model_copy(update={"progress_seconds": PROGRESS}), ring), SystemClock(), rung)
    for namespace in ("ns", "other"):
        made.ledger.put_collection(Collection(namespace=namespace, name="c"), replace=False)
    return made
