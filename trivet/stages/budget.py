"""How many tokens one forward pass of this process may have: what has gone well, and never more than the setting."""

from __future__ import annotations

#: Passes without out-of-memory after which more is tried, and how much more.
_STEADY_PASSES = 20
_GROWTH = 1.1
#: Below this a smaller budget would only mean that every chunk is computed alone.
_SMALLEST = 64


class ForwardBudget:
    """Halved when the device runs out of memory, grown slowly while it does not.

    A device that others use too has less memory than it had when the setting was chosen: without a memory of its own
    the process would run into the same wall with every batch.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._smallest = min(_SMALLEST, most)
        self._tokens = most
        self._passes = 0

    @property
    def tokens(self) -> int:
        """Tokens of the next pass."""
        return self._tokens

    def ran_out(self, tokens: int) -> None:
        """A pass of so many tokens did not fit: from now on at most half as many are tried."""
        self._passes = 0
        self._tokens = max(self._smallest, min(self._tokens, tokens // 2))

    def went_well(self) -> None:
        """A pass fitted."""
        if self._tokens == self._most:
            return
        self._passes += 1
        if self._passes >= _STEADY_PASSES:
            self._passes = 0
            self._tokens = min(self._most, int(self._tokens * _GROWTH) + 1)
