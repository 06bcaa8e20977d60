"""The ledger in Redis against its twin, step by step, through whatever Hypothesis thinks of.

`make machine` takes many more steps. Time decides nothing in the first machine; in the second leases run out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from tests.contract.ledger.machine import STEPS, Machine, Pair, outcome
from trivet.ledger.memory import MemoryLedger
from trivet.ledger.memory_queues import Item
from trivet.ledger.redis import RedisLedger
from trivet.names import Stage
from trivet.settings import Settings
from trivet.values import Lease

LONG = hypothesis_settings.get_current_profile_name() == "machine"


class Model(MemoryLedger):
    """The twin; it leases what Redis has leased, if it may."""

    follow: Sequence[str] = ()

    def _take(self, worker: str, stage: Stage, may: Sequence[str], budget: int, most: int, *, idle: bool) -> list[Item]:
        waits = {i.id: i for i in self._queues.items.values() if i.stage is stage and i.state == "pending"}
        able = {item_id for item_id, item in waits.items() if item.queue in may}
        assert set(self.follow) <= able, "Redis has leased what nobody may lease"
        assert bool(self.follow) == bool(able), f"Redis has leased nothing of {able}"
        assert len(self.follow) <= most
        costs = [waits[item_id].cost for item_id in self.follow]
        assert len(costs) <= 1 or sum(costs) <= budget
        for item_id in self.follow:
            self._queues._unqueue(waits[item_id])
        return [waits[item_id] for item_id in self.follow]


class Lockstep(Machine):
    """Redis and its twin, always the same."""

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        super().__init__(settings, client)
        self.twin = Model(progress_seconds=1e6)

    def both(self, call: Callable[[Any], object]) -> object:
        real, twin = outcome(lambda: call(self.real)), outcome(lambda: call(self.twin))
        assert real == twin
        return real

    def with_lease(self, pair: Pair, call: Callable[[Any, Lease], object]) -> object:
        real, twin = outcome(lambda: call(self.real, pair.real)), outcome(lambda: call(self.twin, pair.twin))
        assert real == twin
        return real

    def claim_twin(self, stage: Stage, worker: str, operation: str, leases: list[Lease], **how: Any) -> list[Lease]:
        self.twin.follow = [lease.item for lease in leases]
        return self.twin.claim(stage, worker, operation, **how)

    def look(self) -> None:
        self.holds()
        self.is_as_its_twin()

    @invariant()
    def is_as_its_twin(self) -> None:
        real, twin = self.real.backlog(), self.twin.backlog()
        for name in ("states", "staged_tokens", "leases", "due", "dead", "paused"):
            assert getattr(real, name) == getattr(twin, name), name
        plain = {"created_at": 0.0, "updated_at": 0.0}
        for task_id, row in self.twin._tasks.items():
            mine, other = self.real.task(task_id), self.twin.task(task_id)
            assert mine is not None
            assert other is not None
            assert mine.model_copy(update=plain) == other.model_copy(update=plain)
            told = [event for _, event in self.twin._events if event.data["task_id"] == task_id]
            assert [(e.id, e.type, e.data) for e in self.events[task_id]] == [(e.id, e.type, e.data) for e in told]
            assert row.run == mine.run


class Expiring(Machine):
    """Redis alone, with leases that run out and workers that die with what they hold."""

    lease_seconds = 0.03

    @rule(sweeps=st.integers(1, 3))
    def time_passes(self, sweeps: int) -> None:
        # As often as a sweeper comes by: else the ledger takes it that it was itself away.
        for _ in range(3 * sweeps):
            time.sleep(self.lease_seconds / 2.5)
            self.sweep()


def take_steps(machine: type[Machine], settings: Settings, short: int) -> None:
    """Run a machine: `short` examples in the suite, hundreds in its long form."""
    client = RedisLedger(settings)._client
    how = hypothesis_settings(
        max_examples=260 if LONG else short,
        stateful_step_count=50 if LONG else 40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(lambda: machine(settings, client), settings=how)  # type: ignore[arg-type]  # any callable does
    client.close()
    print(f"{machine.__name__}: {STEPS[machine.__name__]} steps")
    if LONG:
        assert STEPS[machine.__name__] >= 10_000


@pytest.mark.timeout(3000)
def test_redis_and_its_twin_are_always_the_same(settings: Settings) -> None:
    take_steps(Lockstep, settings, short=15)


@pytest.mark.timeout(3000)
def test_leases_that_run_out_leave_nothing_undone(settings: Settings) -> None:
    take_steps(Expiring, settings, short=6)
