"""One process at a time removes from S3, and what it removes something of is shut to tasks meanwhile."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from trivet.errors import TransientError
from trivet.ledger.redis_ringing import RedisRinging

#: How long a process may be silent before another has its turn.
_TURN_MS = 30_000

Turn = Literal["gc_turn", "purge_turn"]


class RedisTurns(RedisRinging):
    """Thread-safe; open it after a fork."""

    def take_turn(self, turn: Turn, owner: str) -> bool:
        """Whether this process has the turn from now on: it has, until it has been silent for half a minute."""
        return self._turn(turn, owner, "take")

    def keep_turn(self, turn: Turn, owner: str) -> None:
        """Raise `TransientError` unless the turn is still this process', without a break since it was taken."""
        if not self._turn(turn, owner, "keep"):
            raise not_our_turn()

    def end_turn(self, turn: Turn, owner: str) -> None:
        """Let another one at it."""
        self._turn(turn, owner, "end")

    def seconds_since_turn(self, turn: Turn) -> float | None:
        """How long ago anybody had the turn last; None where nobody ever had it."""
        seen = self._do(lambda: self._client.get(self._key(turn, "seen")))
        if seen is None:
            return None
        seconds, micros = self._do(self._client.time)
        return max(0.0, int(seconds) + int(micros) / 1e6 - int(seen) / 1000)

    def _turn(self, turn: Turn, owner: str, what: str) -> bool:
        return bool(self._run("turn", turn, owner, what, _TURN_MS))

    def _shut(self, turn: Turn, owner: str, purge: str, place: tuple[str, str, str], name: str) -> bool:
        key = self._key("object", *place)
        outcome = self._run("purge_begin", purge, key, name, turn, owner)
        if outcome == "lost":
            raise not_our_turn()
        return str(outcome) == "shut"

    def _open(self, turn: Turn, owner: str, purge: str, place: tuple[str, str, str]) -> Iterable[str]:
        """The doorbells of what starts now."""
        bells: Iterable[str] = self._run("purge_end", purge, self._key("object", *place), turn, owner)
        return bells


def not_our_turn() -> TransientError:
    """One process at a time removes."""
    return TransientError("Another process removes from S3 just now.", hint="Wait until it is done.")
