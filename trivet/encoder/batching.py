"""Which texts share a forward pass: by what the pass costs, never by how many texts there are. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence


def cost(lengths: Sequence[int], *, padded: bool) -> int:
    """Tokens that a backend computes for one batch: padded ones compute count x longest, packed ones the sum."""
    return len(lengths) * max(lengths, default=0) if padded else sum(lengths)


def pack(lengths: Sequence[int], budget: int, *, padded: bool = False) -> list[list[int]]:
    """Group texts of `lengths` tokens into batches that each cost at most `budget`.

    Returns lists of indices into `lengths`; every index is in exactly one. Texts are sorted by length, longest
    first (the largest batch shows early whether the device can hold it), equal ones by index, so neighbours in a
    batch need little padding. A text that is over the budget by itself makes a batch of its own.
    """
    if budget < 1:
        raise ValueError(f"budget is {budget}; it must be positive")
    batches: list[list[int]] = []
    spent = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        # The first text of a batch is its longest, so every further one costs that much where padding is computed.
        price = lengths[batches[-1][0]] if padded and batches else lengths[index]
        if batches and spent + price <= budget:
            batches[-1].append(index)
            spent += price
        else:
            batches.append([index])
            spent = lengths[index]
    return batches
