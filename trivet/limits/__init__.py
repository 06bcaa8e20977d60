"""Rate limits and quotas, kept where all processes see them, and their seam."""

from __future__ import annotations

from typing import Protocol

from trivet.limits.values import Decision, Quota, Rate


class Limiter(Protocol):
    """Counts under names. Thread-safe; every method raises `LedgerUnavailable`.

    What is refused costs nothing. Asked twice because an answer was lost, a limiter may count twice, never less.
    """

    def take(self, name: str, rate: Rate, cost: int = 1) -> Decision:
        """Take `cost` of a rate, all or nothing."""

    def spend(self, name: str, quota: Quota, cost: int = 1) -> Decision:
        """Spend `cost` of the quota's present window, all or nothing."""

    def close(self) -> None: ...


__all__ = ["Decision", "Limiter", "Quota", "Rate"]
