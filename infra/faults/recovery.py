"""How long the work of a dead holder lies: from the fault until it is leased by another or done.

This is a measurement, not a judgement, so it may look into the ledger.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from typing import Any

from redis.exceptions import RedisError

from infra.faults.recorder import plain_client
from trivet.settings import Settings


class Recovery:
    """Items whose holders died, until somebody has them again."""

    def __init__(self, settings: Settings) -> None:
        self.seconds: list[float] = []
        self._client: Any = plain_client(settings.redis_url)
        self._prefix = settings.redis_prefix
        #: Item → epoch under which it was held, and when its holder died (monotonic).
        self._open: dict[str, tuple[str, float]] = {}

    def held(self, pids: Iterable[int]) -> dict[str, str]:
        """Item → epoch of everything that these processes hold."""
        starts = tuple(f"{socket.gethostname()}:{pid}:" for pid in pids)
        found: dict[str, str] = {}
        for worker in self._client.zrange(f"{self._prefix}workers", 0, -1):
            if worker.startswith(starts):
                for item in self._client.smembers(f"{self._prefix}held:{worker}"):
                    epoch = self._client.hget(f"{self._prefix}item:{item}", "epoch")
                    if epoch:
                        found[item] = epoch
        return found

    def struck(self, pids: Iterable[int]) -> int:
        """Note what these processes hold, just before they die; how many items that is."""
        held, now = self.held(pids), time.monotonic()
        self._open |= {item: (epoch, now) for item, epoch in held.items()}
        return len(held)

    def look(self) -> None:
        """See what has been taken up meanwhile."""
        if not self._open:
            return
        items = list(self._open)
        pipe = self._client.pipeline(transaction=False)
        for item in items:
            pipe.hmget(f"{self._prefix}item:{item}", "epoch", "state")
        try:
            answers = pipe.execute()
        except RedisError:
            return
        for item, (epoch, state) in zip(items, answers, strict=True):
            held, since = self._open[item]
            if epoch is None or (epoch != held and state == "leased"):
                self.seconds.append(time.monotonic() - since)
                del self._open[item]

    def left_behind(self) -> list[str]:
        """What must not be when all workers have ended in an orderly way: leases, attempts, expiries."""
        said = []
        leases = self._client.zcard(f"{self._prefix}leases")
        if leases:
            said.append(f"After SIGTERM {leases} leases were not handed back.")
        for key in self._client.scan_iter(f"{self._prefix}item:*", count=1000):
            attempts, expiries = self._client.hmget(key, "attempts", "expiries")
            if int(attempts or 0) or int(expiries or 0):
                said.append(f"{key} was charged {attempts} attempts and {expiries} expiries for a SIGTERM.")
        return said

    @property
    def waiting(self) -> int:
        """Items that nobody has taken up yet."""
        return len(self._open)

    def close(self) -> None:
        """End."""
        self._client.close()
