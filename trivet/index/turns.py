"""Turns: for what only gets in its own way when threads do it at once.

Qdrant Edge holds the interpreter while it works, so that threads which search at once gain nothing, and lose what it
costs to pass the interpreter around between any two of their steps.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """One thread at a time, in the order in which they came: with `threading.Lock` alone, some wait for long."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        #: Whoever has the turn, then those who wait for it.
        self._queue: deque[threading.Lock] = deque()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the turn, and have it. Not to be entered again by whoever has it."""
        mine = threading.Lock()
        mine.acquire()
        with self._guard:
            self._queue.append(mine)
            if self._queue[0] is mine:
                mine.release()
        try:
            mine.acquire()
            yield
        finally:  # reached too by a thread that is interrupted while it waits
            with self._guard:
                had = self._queue[0] is mine
                self._queue.remove(mine)
                if had and self._queue:
                    self._queue[0].release()
