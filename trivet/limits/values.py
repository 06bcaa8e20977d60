"""How much of something is allowed, and whether it still is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """So many per period in the long run, and so many at once."""

    limit: int
    period_seconds: float
    burst: int

    def __post_init__(self) -> None:
        if self.limit < 1 or self.burst < 1 or self.period_seconds <= 0:
            raise ValueError("a rate needs a limit and a burst of at least 1, and a period above 0")

    @property
    def interval(self) -> int:
        """Microseconds after which one more is allowed, at least 1."""
        return max(1, round(self.period_seconds * 1e6 / self.limit))


@dataclass(frozen=True, slots=True)
class Quota:
    """So many per window; windows follow each other from the epoch on, so a day's begin at 00:00 UTC."""

    limit: int
    window_seconds: int

    def __post_init__(self) -> None:
        if self.limit < 0 or self.window_seconds < 1:
            raise ValueError("a quota needs a limit of at least 0 and a window of at least 1 s")


@dataclass(frozen=True, slots=True)
class Decision:
    """What a limiter says. Times are seconds from now."""

    allowed: bool
    #: The burst of a rate, or the limit of a quota.
    limit: int
    #: What would be allowed now, after this.
    remaining: int
    #: When the same may be asked for with success, if nothing else is; 0 where it was allowed. Infinite where it is
    #: more than ever fits.
    retry_after: float
    #: When all of the limit is there again.
    reset_after: float
