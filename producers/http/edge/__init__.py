"""The edge of the API: who may come in, how often, and with how much.

access.py       the API key of a request, or why none is asked for
scopes.py       which scope each route needs
bodies.py       size and slowness of bodies
reading.py      what JSON may hold
waits.py        how many requests are held open
headers.py      headers that every answer has
trail.py        the audit log
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from producers.http.edge.waits import Waits
from trivet.clock import Clock, SystemClock
from trivet.hooks.getting import GuardedGetter
from trivet.hooks.receiving import Receiver
from trivet.hooks.redis import RedisHooks
from trivet.keys.redis import RedisKeys
from trivet.keys.service import Keys
from trivet.limits.redis import RedisLimiter
from trivet.settings import Settings
from trivet.trail.redis import RedisTrail

if TYPE_CHECKING:
    from collections.abc import Callable

    from trivet.hooks import Producer


@dataclass(frozen=True)
class Edge:
    """What the edge works with. One per app; thread-safe."""

    settings: Settings
    keys: Keys
    limiter: RedisLimiter
    trail: RedisTrail
    hook_book: RedisHooks
    getter: GuardedGetter
    receiver: Receiver
    waits: Waits
    clock: Clock

    @classmethod
    def open(cls, settings: Settings, producer: Callable[[str], Producer], clock: Clock | None = None) -> Edge:
        """Over the Redis that the settings name; `producer` gives the client of a namespace."""
        clock = clock or SystemClock()
        limiter, book, getter = RedisLimiter(settings), RedisHooks(settings), GuardedGetter(settings)
        return cls(
            settings,
            Keys(settings, book=RedisKeys(settings), clock=clock),
            limiter,
            RedisTrail(settings),
            book,
            getter,
            Receiver(settings, book, limiter, producer, getter, clock),
            Waits(settings),
            clock,
        )

    def close(self) -> None:
        """Close the connections."""
        for each in (self.keys, self.limiter, self.trail, self.hook_book, self.getter):
            each.close()
