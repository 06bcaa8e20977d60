"""Fault hooks: named places in the shipped code, between two Redis or S3 calls, where a test may kill.

`fault(name)` does nothing unless something is armed for the name. A test in the same process arms an action; another
process is armed through the setting `faults` (`TRIVET_FAULTS`), which is a comma-separated list of

    NAME:kill[:N[:MARKER]]         SIGKILL to this very process at the Nth time that it comes by (default 1)
    NAME:raise[:N[:MARKER]]        `TransientError` at the Nth time
    NAME:sleep:SECONDS[:MARKER]    a pause, every time
    NAME:oom:N:LOG                 `EncoderOutOfMemory` every Nth time; each leaves a byte in the file LOG
    NAME:kill-if:TEXT              SIGKILL whenever what is worked on has this text in it

With a MARKER (a path) the fault strikes once in all processes together: whoever creates the file strikes.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from trivet.errors import EncoderOutOfMemory, InvalidRequest, TransientError

Action = Callable[[], None]

_armed: dict[str, list[Action]] = {}
#: Texts that kill whoever works on them, by name.
_poisons: dict[str, list[str]] = {}


def fault(name: str, text: Callable[[], str] | None = None) -> None:
    """A place where a test may strike; free of cost otherwise. `text` gives what is worked on, if somebody asks."""
    if not _armed and not _poisons:
        return
    for action in tuple(_armed.get(name, ())):
        action()
    poisons = _poisons.get(name)
    if poisons and text is not None:
        content = text()
        if any(poison in content for poison in poisons):
            _kill()


def arm(name: str, action: Action) -> None:
    """Run `action` whenever this process comes by `name`."""
    _armed.setdefault(name, []).append(action)


def disarm() -> None:
    """Forget all actions."""
    _armed.clear()
    _poisons.clear()


def arm_all(text: str) -> None:
    """Arm what the setting `faults` says; empty arms nothing. Raises `InvalidRequest` for what it cannot read."""
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, verb, rest = (*entry.split(":", 2), "", "")[:3]
        if name and verb == "kill-if" and rest:
            _poisons.setdefault(name, []).append(rest)
        else:
            arm(*_parse(entry))


def _parse(entry: str) -> tuple[str, Action]:
    name, _, rest = entry.partition(":")
    verb, _, rest = rest.partition(":")
    number, _, marker = rest.partition(":")
    once = Path(marker) if marker else None
    try:
        if name and verb == "sleep":
            seconds = float(number)
            return name, _Strike(lambda: time.sleep(seconds), 0, once)
        if name and verb == "oom" and int(number) > 0 and once is not None:
            return name, _OutOfMemory(int(number), once)
        if name and verb in ("kill", "raise"):
            return name, _Strike(_kill if verb == "kill" else lambda: _raise(name), int(number or 1), once)
    except ValueError:
        pass
    raise InvalidRequest(
        f"Setting TRIVET_FAULTS has {entry!r}, which is no fault.",
        hint="Write NAME:kill, NAME:raise, NAME:sleep:SECONDS, NAME:oom:N:LOG or NAME:kill-if:TEXT.",
    )


@dataclass
class _Strike:
    """An action at the `nth` time (0: every time), once in all processes where `marker` is given."""

    action: Action
    nth: int
    marker: Path | None
    _seen: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self) -> None:
        with self._lock:
            self._seen += 1
            due = self.nth in (0, self._seen)
        if due and (self.marker is None or _first(self.marker)):
            self.action()


@dataclass
class _OutOfMemory:
    """Out of memory every `nth` time."""

    nth: int
    log: Path
    _times: Iterator[int] = field(default_factory=lambda: count(1))

    def __call__(self) -> None:
        if next(self._times) % self.nth == 0:
            with self.log.open("ab") as file:
                file.write(b"!")
            raise EncoderOutOfMemory("Out of memory was asked for.")


def _first(marker: Path) -> bool:
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _raise(name: str) -> None:
    raise TransientError(f"Fault {name!r} was asked for.")
