"""Uploads beside the compute thread, bounded by the bytes that wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

import structlog

log = structlog.get_logger(__name__)


class Uploads:
    """Runs jobs in `threads` threads; `submit` blocks while more than `limit` bytes are on their way."""

    def __init__(self, threads: int, limit: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="upload")
        self._limit = limit
        self._bytes = 0
        self._room = threading.Condition()
        self._running: set[Future[None]] = set()

    def submit(self, size: int, job: Callable[[], None]) -> None:
        """Run the job soon. A single job above the limit waits until it is alone."""
        with self._room:
            self._room.wait_for(lambda: self._bytes == 0 or self._bytes + size <= self._limit)
            self._bytes += size
            future = self._pool.submit(self._run, size, job)
            self._running.add(future)
        future.add_done_callback(self._running.discard)

    def drain(self) -> None:
        """Wait until every job that was submitted has ended."""
        wait(list(self._running))

    def close(self) -> None:
        """Wait for all jobs, then end the threads."""
        self._pool.shutdown(wait=True)

    def _run(self, size: int, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception:
            log.exception("upload.crashed")
        finally:
            with self._room:
                self._bytes -= size
                self._room.notify_all()
