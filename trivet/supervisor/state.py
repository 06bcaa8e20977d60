"""What is known of a running system: the files of the state folder that the supervisor writes and others read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from trivet.embedded.process import ProcessId
from trivet.settings import Settings


class Phase(StrEnum):
    """Where a system stands."""

    DOWN = "down"
    STARTING = "starting"
    UP = "up"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One server or worker. Times are seconds since the epoch; `pid` 0 means that none runs now."""

    name: str
    kind: str
    pid: int
    #: Start in clock ticks after boot: with the pid it names one process for certain.
    started: int
    since: float
    restarts: int
    ready: bool
    log: str
    #: How its last run ended, empty where none did.
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """A whole system."""

    phase: Phase
    state_dir: str
    pid: int = 0
    started: int = 0
    since: float = 0.0
    processes: tuple[ProcessStatus, ...] = field(default=())

    def alive(self) -> bool:
        """Whether its supervisor runs."""
        return self.pid != 0 and ProcessId(self.pid, self.started).alive()


class Folder:
    """The files of one state folder. All paths are absolute."""

    def __init__(self, state_dir: Path) -> None:
        self.root = state_dir.absolute()
        self.run = self.root / "run"
        self.logs = self.root / "logs"
        self.temporary = self.root / "tmp"
        self.lock = self.run / "lock"
        self.state = self.run / "state.json"
        self.ready = self.run / "ready"
        self.endpoints = self.root / "endpoints.json"
        self.asked = self.run / "asked.json"

    def make(self) -> None:
        """Create it; logs and keys are their owner's alone."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self.run, self.logs, self.temporary, self.ready):
            folder.mkdir(exist_ok=True, mode=0o700)

    def write(self, status: Status) -> None:
        """Replace what is known."""
        write_json(self.state, asdict(status))

    def read(self) -> Status:
        """What was last written; `down` where nothing was."""
        try:
            known: dict[str, Any] = json.loads(self.state.read_text("utf-8"))
            processes = tuple(ProcessStatus(**process) for process in known.pop("processes"))
            return Status(**(known | {"phase": Phase(known["phase"]), "processes": processes}))
        except (OSError, ValueError, KeyError, TypeError):
            return Status(Phase.DOWN, str(self.root))


def status(settings: Settings) -> Status:
    """What runs in the state folder now, whatever was written there."""
    folder = Folder(settings.state_dir)
    known = folder.read()
    return known if known.alive() else Status(Phase.DOWN, str(folder.root))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a file in one step, readable by its owner alone."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(value, file)
    temporary.replace(path)
