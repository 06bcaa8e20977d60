"""One process that is kept running: started again after it ends, each time a little later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from trivet.clock import Clock
from trivet.embedded.process import Child
from trivet.supervisor.state import ProcessStatus

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
#: After so long a life the next pause is the first one again.
STEADY_SECONDS: Final = 60.0


class Watched:
    """A server or worker, its restarts, and its place in the status."""

    def __init__(
        self, name: str, kind: str, log: Path, start: Callable[[], Child], clock: Clock, ready: Path | None = None
    ) -> None:
        self.name = name
        self.kind = kind
        self.log = log
        self.child: Child | None = None
        self.restarts = 0
        self.detail = ""
        self._start = start
        self._clock = clock
        self._ready = ready
        self._since = 0.0
        self._began = 0.0
        self._pause = FIRST_PAUSE
        self._next = 0.0

    def start(self) -> Child:
        """Start it now."""
        if self._ready is not None:
            self._ready.unlink(missing_ok=True)
        self.child = self._start()
        self.adopt(self.child)
        return self.child

    def adopt(self, child: Child) -> None:
        """Watch a process that was started elsewhere."""
        self.child = child
        self._since, self._began = self._clock.now(), self._clock.monotonic()

    def ready(self) -> bool:
        """Whether it runs and, where it tells, takes work."""
        return self.child is not None and self.child.running() and (self._ready is None or self._ready.exists())

    def look(self) -> bool:
        """Notice an end, restart when it is time; True where something changed."""
        if self.child is not None:
            if self.child.running():
                return False
            self.detail = ended(self.child)
            self.child = None
            lived = self._clock.monotonic() - self._began
            self._pause = FIRST_PAUSE if lived >= STEADY_SECONDS else min(self._pause * 2, LONGEST_PAUSE)
            self._next = self._clock.monotonic() + self._pause
            return True
        if self._clock.monotonic() < self._next:
            return False
        self.restarts += 1
        self.start()
        return True

    def status(self) -> ProcessStatus:
        """Its line in the status."""
        child = self.child
        return ProcessStatus(
            name=self.name,
            kind=self.kind,
            pid=child.pid if child else 0,
            started=child.id.started if child else 0,
            since=self._since,
            restarts=self.restarts,
            ready=self.ready(),
            log=str(self.log),
            detail=self.detail,
        )


def ended(child: Child) -> str:
    """How a process ended, with its last words: one sentence without a full stop."""
    status, last = child.end(), child.last_line()
    how = f"ended with status {status}" if status >= 0 else f"was killed by signal {-status}"
    return f"{how}: {last}" if last else how
