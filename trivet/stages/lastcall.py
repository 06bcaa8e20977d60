"""Ends a process that was told to stop and is in the middle of something long."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import structlog

from trivet.stages.context import StageContext

log = structlog.get_logger(__name__)

#: How often to look whether the process should stop.
_LOOK_SECONDS = 0.1
#: What a ledger that does not answer may keep it from leaving.
_FAREWELL_SECONDS = 3.0


class LastCall:
    """From the moment that the process should stop, what it does may go on for `settings.drain_seconds`.

    Then its leases are handed back, uncharged, and the process exits with 0. Its parser dies with it. Whoever is done
    before that closes this, and leaves in its own way.
    """

    def __init__(self, ctx: StageContext, *, exit: Callable[[int], object] = os._exit) -> None:  # noqa: A002 - it is what ends a process
        self._ctx = ctx
        self._exit = exit
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="last-call", daemon=True).start()

    def close(self) -> None:
        """The process has left everything that it held."""
        self._closed.set()

    def _run(self) -> None:
        while not self._ctx.stopping():
            if self._closed.wait(_LOOK_SECONDS):
                return
        if self._closed.wait(self._ctx.settings.drain_seconds):
            return
        held = [lease.item for lease in self._ctx.keeper.held]
        log.warning("drain.cut", items=held, seconds=self._ctx.settings.drain_seconds)
        farewell = threading.Thread(target=self._ctx.close, name="farewell", daemon=True)
        farewell.start()
        farewell.join(_FAREWELL_SECONDS)
        self._exit(0)
