"""How a worker process learns that it should stop, in either pool."""

from __future__ import annotations

import os
import secrets
import tempfile
import threading
from pathlib import Path
from typing import Any

import structlog
from celery.signals import worker_shutting_down
from celery.worker import state

log = structlog.get_logger(__name__)


def solo_stopping() -> bool:
    """Whether this worker was asked to stop. The flags hold an exit status, which is 0 when all is well."""
    return any(flag is not None and flag is not False for flag in (state.should_stop, state.should_terminate))


class DrainFile:
    """Prefork children never see the parent's flags: the parent leaves a file, its children look for it.

    A parent that is not through `limit_seconds` after that ends all the same, and its children with it.
    """

    def __init__(self, limit_seconds: float, folder: Path | None = None) -> None:
        self._limit_seconds = limit_seconds
        self._path = (folder or Path(tempfile.gettempdir())) / f"trivet-drain-{os.getpid()}-{secrets.token_hex(8)}"
        self._limit: threading.Timer | None = None

    def watch(self) -> None:
        """Leave the file when the parent begins to shut down."""
        worker_shutting_down.connect(self._touch, weak=False)

    def stopping(self) -> bool:
        """Whether the parent shuts down."""
        return self._path.exists()

    def remove(self) -> None:
        """Leave nothing behind."""
        self._path.unlink(missing_ok=True)

    def _touch(self, **_: Any) -> None:
        self._path.touch()
        # SIGTERM may come twice, and the first one counts.
        if self._limit is None:
            self._limit = threading.Timer(self._limit_seconds, self._cut)
            self._limit.daemon = True
            self._limit.start()

    def _cut(self) -> None:
        log.warning("drain.cut", seconds=self._limit_seconds)
        self.remove()
        os._exit(0)
