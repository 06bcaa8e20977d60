"""When a supervisor should end: a signal, or a caller that died before it let go."""

from __future__ import annotations

import os
import select
import signal
import time


class Stopped(Exception):
    """Someone asked for the end: no error, but the way out of a start that is no longer wanted."""


class StopRequest:
    """A clock whose sleep ends early, and with `Stopped`, when the end is asked for.

    The caller holds the other end of `pipe`. It writes one byte to let go; if the pipe closes without it, the
    caller is dead and nobody wants the system any more. Signals are only counted, never raised, so that none can
    strike between the start of a process and its record.
    """

    def __init__(self, pipe: int | None) -> None:
        self._pipe = pipe
        self._signals = 0
        self._orphaned = False

    def listen(self) -> None:
        """Count SIGTERM, SIGINT and SIGHUP from now on."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._count)

    @property
    def asked(self) -> bool:
        """Whether the system should end."""
        return self._orphaned or self._signals > 0

    @property
    def urgent(self) -> bool:
        """Whether it was asked for twice: no more grace."""
        return self._signals + self._orphaned > 1

    def pause(self, seconds: float) -> None:
        """Wait so long, or until the pipe says something."""
        if self._pipe is None:
            time.sleep(seconds)
            return
        if select.select([self._pipe], [], [], seconds)[0]:
            self._orphaned = os.read(self._pipe, 1) == b""
            self._pipe = None

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """As `pause`, but raises `Stopped` when the end was asked for."""
        if not self.asked:
            self.pause(seconds)
        if self.asked:
            raise Stopped

    def _count(self, *_: object) -> None:
        self._signals += 1
