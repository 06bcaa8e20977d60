"""The twin of the limits in Redis: it lives in this process."""

from __future__ import annotations

import threading

from trivet.clock import Clock
from trivet.limits.rules import decide, window_decision
from trivet.limits.values import Decision, Quota, Rate


class MemoryLimiter:
    """`Limiter` without Redis."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tats: dict[str, int] = {}
        self._spent: dict[str, tuple[int, int]] = {}

    def close(self) -> None:
        """Nothing to close."""

    def take(self, name: str, rate: Rate, cost: int = 1) -> Decision:
        with self._lock:
            self._tats[name], made = decide(self._tats.get(name, 0), self._now(), rate, cost)
            return made

    def spend(self, name: str, quota: Quota, cost: int = 1) -> Decision:
        with self._lock:
            now, window = self._now(), quota.window_seconds * 1_000_000
            nth = now // window
            kept_nth, kept = self._spent.get(name, (nth, 0))
            spent = kept if kept_nth == nth else 0
            allowed = spent + cost <= quota.limit
            if allowed:
                spent += cost
                self._spent[name] = (nth, spent)
            return window_decision(allowed, spent, (nth + 1) * window - now, quota, cost)

    def _now(self) -> int:
        return round(self._clock.now() * 1_000_000)
