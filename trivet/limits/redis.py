"""Limits in Redis, by Redis' own time: one script per question."""

from __future__ import annotations

from typing import Any

from trivet.ledger.redis_reading import RedisReader
from trivet.limits.rules import decision, window_decision
from trivet.limits.values import Decision, Quota, Rate


class RedisLimiter(RedisReader):
    """Thread-safe; open it after a fork, and close it."""

    _package = "trivet.limits"
    _in_front = ()
    _refused_when_full = frozenset()

    def _ask(self, script: str, kind: str, name: str, *arguments: int) -> Any:
        call = self._script(script)
        return self._do(lambda: call(keys=[self._key(kind, name)], args=arguments))

    def take(self, name: str, rate: Rate, cost: int = 1) -> Decision:
        allowed, ahead = self._ask("take", "rate", name, rate.interval, rate.burst, cost)
        return decision(bool(allowed), int(ahead), rate, cost)

    def spend(self, name: str, quota: Quota, cost: int = 1) -> Decision:
        allowed, spent, left = self._ask("spend", "quota", name, quota.limit, quota.window_seconds, cost)
        return window_decision(bool(allowed), int(spent), int(left), quota, cost)
