"""Notices a forward pass that hangs, and ends the process, whose work is leased by others then."""

from __future__ import annotations

import faulthandler
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from trivet.clock import Clock, SystemClock

log = structlog.get_logger(__name__)

#: EX_SOFTWARE: supervisors start another process.
BROKEN_STATUS = 70
#: What the thread is given before it counts as hung as well.
_THREAD_SECONDS = 5.0
#: The descriptor itself: whatever stands in `sys.stderr` may have none.
_STDERR = 2


class Watchdog:
    """Ends the process when what it guards takes longer than `seconds`. Guards one thing at a time.

    A thread says so, shows where every thread stands, and exits with 70. Where the pass hangs with the interpreter in
    its hands no Python runs any more: then faulthandler, which needs none, does the same and exits with 1.
    """

    def __init__(
        self,
        seconds: float,
        *,
        clock: Clock | None = None,
        exit: Callable[[int], object] = os._exit,  # noqa: A002 - it is what ends a process
    ) -> None:
        self._seconds = seconds
        self._clock = clock or SystemClock()
        self._exit = exit
        self._deadline: float | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    @contextmanager
    def guard(self) -> Iterator[None]:
        """What happens in this block must end in time."""
        self._set(self._clock.monotonic() + self._seconds)
        faulthandler.dump_traceback_later(self._seconds + _THREAD_SECONDS, exit=True, file=_STDERR)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            self._set(None)

    def close(self) -> None:
        """Stop the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout=5)

    def _set(self, deadline: float | None) -> None:
        with self._changed:
            self._deadline = deadline
            if deadline is not None:
                self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                if self._deadline is None:
                    self._changed.wait()
                elif (left := self._deadline - self._clock.monotonic()) > 0:
                    self._changed.wait(left)
                else:
                    break
            if self._closed:
                return
        log.critical("forward.hung", seconds=self._seconds)
        faulthandler.dump_traceback(file=_STDERR, all_threads=True)
        self._exit(BROKEN_STATUS)
