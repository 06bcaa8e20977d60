"""Which units go into one chunk. Pure functions over token counts and ranks."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from trivet.chunking.boundaries import Rank


@dataclass(frozen=True, slots=True)
class Budget:
    """Tokens of text alone, prompt, context and special tokens taken off: what is aimed at and what must fit."""

    target: int
    cap: int


def pack(tokens: Sequence[int], ranks: Sequence[Rank], first: Budget, rest: Budget) -> list[tuple[int, int]]:
    """Runs [i, j) of units, in order, that cover all of them.

    A run ends at the best rank between half the target and the cap, near the target among equals, and leaves no tail
    under a quarter of the target where it can help it. A unit over the cap is a run of its own.
    """
    sums = [0, *accumulate(tokens)]
    count = len(tokens)
    runs: list[tuple[int, int]] = []
    begin = 0
    while begin < count:
        end = _run_end(sums, ranks, begin, first if begin == 0 else rest)
        runs.append((begin, end))
        begin = end
    return runs


def _run_end(sums: Sequence[int], ranks: Sequence[Rank], begin: int, budget: Budget) -> int:
    count, base = len(ranks), sums[begin]
    left = sums[count] - base
    # The tail would be small: one chunk above the target is better than two.
    if left <= budget.cap and left - budget.target <= budget.target // 3:
        return count
    high = min(bisect_right(sums, base + budget.cap) - 1, count)
    if high >= count:
        high = count - 1
    if high <= begin:
        return begin + 1
    low = max(bisect_left(sums, base + budget.target // 2), begin + 1)
    if low > high:
        return high
    tail = budget.target // 4
    good = bisect_right(sums, sums[count] - tail) - 1
    if good >= low:
        high = min(high, good)

    def worth(end: int) -> tuple[int, int]:
        return ranks[end], -abs(sums[end] - base - budget.target)

    return max(range(low, high + 1), key=worth)
