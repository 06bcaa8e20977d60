"""The rules that every limiter follows.

Rates: the generic cell rate algorithm (ITU-T I.371), in which one time per name says all of a token bucket.

`tat` is the theoretical arrival time: when the bucket is full again. Taking `cost` moves it on by `cost` intervals, and
is allowed while it lies at most `burst` intervals ahead of now. `lua/take.lua` computes the same.
"""

from __future__ import annotations

import math

from trivet.limits.values import Decision, Quota, Rate


def decide(tat: int, now: int, rate: Rate, cost: int) -> tuple[int, Decision]:
    """The new `tat`, and the decision. Times in microseconds since the epoch."""
    tat = max(tat, now)
    moved = tat + rate.interval * cost
    ahead = rate.interval * rate.burst
    allowed = moved - now <= ahead
    tat = moved if allowed else tat
    return tat, decision(allowed, tat - now, rate, cost)


def decision(allowed: bool, busy: int, rate: Rate, cost: int) -> Decision:
    """The decision by how many microseconds `tat` lies ahead."""
    ahead = rate.interval * rate.burst
    wait = 0.0 if allowed else math.inf if cost > rate.burst else (busy + rate.interval * cost - ahead) / 1e6
    return Decision(allowed, rate.burst, (ahead - busy) // rate.interval, wait, busy / 1e6)


def window_decision(allowed: bool, spent: int, left: int, quota: Quota, cost: int) -> Decision:
    """The decision by what is spent of a window that ends in `left` microseconds."""
    wait = 0.0 if allowed else math.inf if cost > quota.limit else left / 1e6
    return Decision(allowed, quota.limit, max(0, quota.limit - spent), wait, left / 1e6 if spent else 0.0)
