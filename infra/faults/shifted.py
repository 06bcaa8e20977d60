"""A worker whose wall clock jumps: python -m infra.faults.shifted FILE OPTIONS…

The file holds the seconds by which `time.time` and Celery's own clock are off; it may change at any moment. Only the
wall clock jumps, as when NTP or a virtual machine's host sets it: the monotonic clock goes on.
"""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

_LOOK_SECONDS = 0.1


class _Shift:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._looked = -1.0
        self._seconds = 0.0

    def __call__(self) -> float:
        now = time.monotonic()
        if now - self._looked > _LOOK_SECONDS:
            self._looked = now
            with suppress(OSError, ValueError):
                self._seconds = float(self._path.read_text())
        return self._seconds


def _shift_time(shift: _Shift) -> None:
    seconds: Callable[[], float] = time.time
    nanoseconds: Callable[[], int] = time.time_ns
    time.time = lambda: seconds() + shift()
    time.time_ns = lambda: nanoseconds() + int(shift() * 1e9)


def _shift_celery(shift: _Shift) -> None:
    """Celery stamps what it sends, and judges what it gets, by `datetime.now`."""
    import celery.app.base
    import celery.utils.time
    import celery.worker.request

    class Shifted(dt.datetime):
        """A `datetime` whose now is shifted."""

        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return dt.datetime.now(tz) + dt.timedelta(seconds=shift())

    for module in (celery.app.base, celery.utils.time, celery.worker.request):
        if getattr(module, "datetime", None) is dt.datetime:
            module.datetime = Shifted


def main() -> int:
    """The worker, with the shift."""
    shift = _Shift(Path(sys.argv[1]))
    _shift_time(shift)
    _shift_celery(shift)
    from workers.main import main as work

    return work(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
