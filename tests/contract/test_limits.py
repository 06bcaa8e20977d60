"""What every limiter must do, whichever keeps the counts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.clock import Clock, ManualClock, SystemClock
from trivet.limits import Limiter, Quota, Rate
from trivet.limits.memory import MemoryLimiter
from trivet.limits.redis import RedisLimiter
from trivet.limits.rules import decide

#: So slow that nothing comes back while a test runs.
SLOW = Rate(3, 3 * 3600.0, 3)
DAY = 86_400


@dataclass
class Desk:
    limiter: Limiter
    clock: Clock


@pytest.fixture(params=["redis", "memory"])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    if request.param == "redis":
        limiter = RedisLimiter(request.getfixturevalue("settings"))
        yield Desk(limiter, SystemClock())
        limiter.close()
    else:
        clock = ManualClock()
        yield Desk(MemoryLimiter(clock), clock)


def test_a_burst_is_allowed_and_not_one_more(desk: Desk) -> None:
    decisions = [desk.limiter.take("a", SLOW) for _ in range(5)]
    assert [each.allowed for each in decisions] == [True, True, True, False, False]
    assert [each.remaining for each in decisions] == [2, 1, 0, 0, 0]
    assert all(each.limit == 3 for each in decisions)


def test_what_is_refused_says_when_to_come_back_and_costs_nothing(desk: Desk) -> None:
    for _ in range(3):
        assert desk.limiter.take("a", SLOW).retry_after == 0.0
    first, second = desk.limiter.take("a", SLOW), desk.limiter.take("a", SLOW)
    assert 0 < second.retry_after <= first.retry_after <= 3600
    assert second.reset_after <= first.reset_after


def test_time_gives_back(desk: Desk) -> None:
    rate = Rate(10, 1.0, 1)
    assert desk.limiter.take("a", rate).allowed
    refused = desk.limiter.take("a", rate)
    assert not refused.allowed
    desk.clock.sleep(refused.retry_after + 0.01)
    assert desk.limiter.take("a", rate).allowed


def test_names_do_not_share(desk: Desk) -> None:
    for _ in range(3):
        desk.limiter.take("a", SLOW)
    assert desk.limiter.take("b", SLOW).remaining == 2


def test_a_cost_is_taken_whole_or_not_at_all(desk: Desk) -> None:
    assert desk.limiter.take("a", SLOW, 2).remaining == 1
    assert not desk.limiter.take("a", SLOW, 2).allowed
    assert desk.limiter.take("a", SLOW, 1).allowed


def test_what_never_fits_is_never_to_be_tried_again(desk: Desk) -> None:
    assert desk.limiter.take("a", SLOW, 4).retry_after == math.inf
    assert desk.limiter.spend("q", Quota(3, DAY), 4).retry_after == math.inf


def test_a_quota_is_spent_whole_or_not_at_all_and_comes_back_with_its_window(desk: Desk) -> None:
    quota = Quota(10, DAY)
    first = desk.limiter.spend("q", quota, 7)
    assert (first.allowed, first.remaining, first.limit) == (True, 3, 10)
    refused = desk.limiter.spend("q", quota, 4)
    assert (refused.allowed, refused.remaining) == (False, 3)
    assert 0 < refused.retry_after <= DAY
    assert refused.retry_after == pytest.approx(DAY - desk.clock.now() % DAY, abs=5)
    assert desk.limiter.spend("q", quota, 3).allowed
    assert not desk.limiter.spend("q", quota).allowed


def test_a_new_window_has_all_of_the_quota(desk: Desk) -> None:
    # Windows of one second, in which the whole test may need more than one.
    quota = Quota(1, 1)
    for _ in range(2):
        decision = desk.limiter.spend("q", quota)
        while not decision.allowed:
            desk.clock.sleep(decision.retry_after + 0.01)
            decision = desk.limiter.spend("q", quota)
        assert decision.remaining == 0
    assert desk.limiter.spend("other", Quota(0, 1)).allowed is False


def test_asking_for_nothing_tells_how_things_stand(desk: Desk) -> None:
    assert desk.limiter.take("a", SLOW, 0).remaining == 3
    desk.limiter.take("a", SLOW, 2)
    assert desk.limiter.take("a", SLOW, 0).remaining == 1
    assert desk.limiter.spend("q", Quota(5, DAY), 0).remaining == 5


def test_a_rate_that_is_none_is_refused() -> None:
    for wrong in ((0, 1.0, 1), (1, 0.0, 1), (1, 1.0, 0)):
        with pytest.raises(ValueError):
            Rate(*wrong)
    with pytest.raises(ValueError):
        Quota(-1, 1)


rates = st.builds(Rate, st.integers(1, 1000), st.floats(0.5, 3600), st.integers(1, 50))
steps = st.lists(st.tuples(st.integers(0, 5_000_000), st.integers(0, 60)), max_size=60)


@given(rate=rates, steps=steps)
def test_in_no_stretch_of_time_more_is_allowed_than_a_burst_and_the_rate(
    rate: Rate, steps: list[tuple[int, int]]
) -> None:
    now, tat, taken = 1_700_000_000_000_000, 0, []
    for passed, cost in steps:
        now += passed
        tat, decision = decide(tat, now, rate, cost)
        if decision.allowed:
            taken.append((now, cost))
        assert 0 <= decision.remaining <= rate.burst
    for first in range(len(taken)):
        total = 0
        for at, cost in taken[first:]:
            total += cost
            assert total <= rate.burst + (at - taken[first][0]) / rate.interval


@given(rate=rates, steps=steps)
def test_whoever_waits_as_told_is_let_in(rate: Rate, steps: list[tuple[int, int]]) -> None:
    now, tat = 1_700_000_000_000_000, 0
    for passed, cost in steps:
        now += passed
        tat, decision = decide(tat, now, rate, cost)
        if not decision.allowed and decision.retry_after != math.inf:
            now += math.ceil(decision.retry_after * 1e6)
            tat, again = decide(tat, now, rate, cost)
            assert again.allowed
        assert decision.allowed or cost > decision.remaining


@given(costs=st.lists(st.integers(0, 30), max_size=40), limit=st.integers(0, 100))
def test_a_window_never_gives_more_than_its_quota(costs: list[int], limit: int) -> None:
    limiter, spent = MemoryLimiter(ManualClock()), 0
    for cost in costs:
        decision = limiter.spend("q", Quota(limit, DAY), cost)
        assert decision.allowed == (spent + cost <= limit)
        spent += cost if decision.allowed else 0
        assert decision.remaining == limit - spent
