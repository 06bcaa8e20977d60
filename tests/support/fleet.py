"""Real worker processes on the real servers of a test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from trivet.client import Trivet
from trivet.names import TERMINAL_EVENTS
from trivet.settings import Settings
from trivet.supervisor.workers import environment
from trivet.values import TaskView

ROOT = Path(__file__).parent.parent.parent


@dataclass
class Fleet:
    """Worker processes that can be started and killed one by one."""

    settings: Settings
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def logs(self) -> Path:
        folder = self.settings.state_dir / "fleet"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def start(self, name: str, *options: str, **changes: object) -> subprocess.Popen[bytes]:
        """Start `python -m workers.main` with these options and changed settings; returns once it takes work."""
        ready = self.logs / f"{name}-{time.monotonic_ns()}.ready"
        settings = self.settings.model_copy(update={**changes, "ready_file": ready})
        with (self.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "workers.main", *options],
                cwd=ROOT,
                env=environment(settings, os.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes[name] = process
        deadline = time.monotonic() + 180
        while not ready.exists():
            assert process.poll() is None, f"{name} ended:\n{self.log(name)}"
            assert time.monotonic() < deadline, f"{name} is not ready:\n{self.log(name)}"
            time.sleep(0.02)
        return process

    def start_all(self, concurrency: int = 2, **changes: object) -> None:
        """One prefork worker, one embed worker, one sweeper."""
        self.start("sweep", "--roles", "sweep", **changes)
        self.start("cpu", "--roles", "prepare,commit", "--concurrency", str(concurrency), **changes)
        self.start("embed", "--roles", "embed", **changes)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End a worker with all its children."""
        process = self.processes.pop(name)
        if number is signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        process.wait(timeout=60)

    def children(self, name: str) -> list[int]:
        """The prefork children of a worker."""
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.processes[name].pid)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in listed.stdout.split()]

    def log(self, name: str) -> str:
        """What a worker has printed."""
        return (self.logs / f"{name}.log").read_text(errors="replace")[-8000:]

    def close(self) -> None:
        """Leave nothing running."""
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=30)


@contextmanager
def fleet(settings: Settings) -> Iterator[Fleet]:
    """A fleet that ends with the block."""
    made = Fleet(settings)
    try:
        yield made
    finally:
        made.close()


def wait_for_all(client: Trivet, ids: list[str], seconds: float = 120) -> list[TaskView]:
    """The tasks once all have ended."""
    deadline = time.monotonic() + seconds
    return [client.task(task_id).wait(timeout=max(0.1, deadline - time.monotonic())) for task_id in ids]


def terminal_events(client: Trivet) -> dict[str, list[str]]:
    """Task id → its terminal events, from the whole stream."""
    found: dict[str, list[str]] = {}
    after = "0-0"
    while entries := client.events(after, 1000):
        after = entries[-1][0]
        for _, event in entries:
            if event.type.removeprefix("trivet.") in TERMINAL_EVENTS:
                found.setdefault(event.data["task_id"], []).append(event.type.removeprefix("trivet.ingest."))
    return found
