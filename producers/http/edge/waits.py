"""How many requests are held open until a task has ended: each asks Redis again and again for as long as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from trivet.errors import ApiBusy, TooManyRequests
from trivet.settings import Settings

_RETRY_SECONDS = 5.0


class Waits:
    """Places of one process. For the thread of the event loop alone."""

    def __init__(self, settings: Settings) -> None:
        self._most = settings.api_waits
        self._most_per_key = settings.api_waits_per_key
        self._held: Counter[str] = Counter()

    @contextmanager
    def place(self, key_id: str) -> Iterator[None]:
        """Hold one. Raises `ApiBusy` where the process has none left, and `TooManyRequests` where the key has none."""
        if self._held.total() >= self._most:
            raise ApiBusy(f"This process of the API follows {self._most} requests already.")
        # Without keys all callers are one.
        if key_id and self._held[key_id] >= self._most_per_key:
            raise TooManyRequests(
                f"This API key follows {self._most_per_key} tasks already.", retry_after=_RETRY_SECONDS
            )
        self._held[key_id] += 1
        try:
            yield
        finally:
            self._held[key_id] -= 1
            if not self._held[key_id]:
                del self._held[key_id]
