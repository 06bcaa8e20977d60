"""The worker processes of a row: real ones, which can be killed, stopped and replaced one by one."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from trivet.embedded.process import Child, spawn
from trivet.settings import Settings
from trivet.supervisor.workers import environment

ROOT = Path(__file__).parent.parent.parent
_READY_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Start:
    """How one worker process is started, as often as it must be."""

    name: str
    roles: str
    concurrency: int = 1
    #: Settings of this worker alone; {folder} stands for the folder with the logs, here and below.
    changes: Mapping[str, Any] = field(default_factory=dict)
    #: The program, where it is not `python -m workers.main`.
    module: tuple[str, ...] = ("workers.main",)

    def has(self, role: str) -> bool:
        """Whether it plays the role."""
        return role in self.roles.split(",")


@dataclass(slots=True)
class Worker:
    """A started one."""

    start: Start
    child: Child
    ready: Path

    def pids(self) -> list[int]:
        """Its process and all below it."""
        with suppress(psutil.Error):
            return [self.child.pid, *(each.pid for each in psutil.Process(self.child.pid).children(recursive=True))]
        return [self.child.pid]

    def children(self) -> list[int]:
        """The prefork children."""
        with suppress(psutil.Error):
            return [each.pid for each in psutil.Process(self.child.pid).children()]
        return []


class Fleet:
    """Call it from one thread that stays: the kernel ends its processes with that thread."""

    def __init__(self, settings: Settings, logs: Path) -> None:
        self._settings = settings
        self.logs = logs
        self._killed: list[Child] = []
        self.workers: dict[str, Worker] = {}
        #: Processes that were started again after they had ended by themselves.
        self.crashed = 0

    def start(self, how: Start) -> Worker:
        """Start one process; it is not waited for."""
        self.logs.mkdir(parents=True, exist_ok=True)
        ready = self.logs / f"{how.name}-{time.monotonic_ns()}.ready"
        changes = {name: self._placed(value) for name, value in how.changes.items()}
        settings = self._settings.model_copy(update={**changes, "ready_file": ready})
        module = [self._placed(part) for part in how.module]
        argv = [sys.executable, "-m", *module, "--roles", how.roles, "--concurrency", str(how.concurrency)]
        child = spawn(
            how.name, argv, log=self.logs / f"{how.name}.log", env=environment(settings, os.environ), cwd=ROOT
        )
        self.workers[how.name] = Worker(how, child, ready)
        return self.workers[how.name]

    def _placed(self, value: Any) -> Any:
        return value.replace("{folder}", str(self.logs)) if isinstance(value, str) else value

    def start_all(self, starts: Sequence[Start]) -> None:
        """Start them and wait until all take work."""
        for how in starts:
            self.start(how)
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until every worker takes work."""
        deadline = time.monotonic() + _READY_SECONDS
        for worker in self.workers.values():
            while not worker.ready.exists():
                if not worker.child.running() or time.monotonic() > deadline:
                    raise RuntimeError(f"Worker {worker.start.name} did not come up: {worker.child.last_line()}")
                time.sleep(0.02)

    def ready(self, role: str) -> list[Worker]:
        """Workers of the role that have come up and still run."""
        return [w for w in self.workers.values() if w.start.has(role) and w.ready.exists() and w.child.running()]

    def kill(self, worker: Worker) -> None:
        """`kill -9` of the main process alone, as the kernel's out-of-memory killer does it."""
        with suppress(ProcessLookupError):
            os.kill(worker.child.pid, signal.SIGKILL)
        self._killed.append(worker.child)
        del self.workers[worker.start.name]

    def stop(self, worker: Worker, grace_seconds: float) -> tuple[int, float]:
        """SIGTERM; exit status and seconds that it took."""
        began = time.monotonic()
        status = worker.child.stop(grace_seconds)
        del self.workers[worker.start.name]
        return status, time.monotonic() - began

    def signal_all(self, worker: Worker, number: signal.Signals) -> None:
        """A signal to the whole process group, as the freezer of a container host does it."""
        with suppress(ProcessLookupError):
            os.killpg(worker.child.pid, number)

    def mend(self) -> None:
        """Start again whoever has ended by itself, as a supervisor does."""
        for worker in list(self.workers.values()):
            if not worker.child.running():
                worker.child.end()
                self.crashed += 1
                self.start(worker.start)

    def close(self) -> None:
        """Leave nothing running."""
        for child in (*(worker.child for worker in self.workers.values()), *self._killed):
            child.end()
        self.workers.clear()
