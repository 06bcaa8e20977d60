"""Child processes that never outlive their parent: servers, workers, and the supervisor's own children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from trivet.clock import Clock, SystemClock
from trivet.errors import StartFailed

# Asks the kernel to kill this process when the thread that started it dies (Linux), closes the gap in which the
# parent may have died already, and becomes the program. A program of its own, since running Python between fork
# and exec (`preexec_fn`) can deadlock in a process with threads.
_LAUNCH = """
import os, signal, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        os._exit(1)
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
    signal.signal(number, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, ())
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process for certain: its id, and when it started (clock ticks after boot), since ids are used again."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """The process that has this id now; `started` is 0 where there is none or no /proc."""
        return cls(pid, _start_ticks(pid))

    def alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        ticks = _start_ticks(self.pid)
        return ticks != 0 and ticks == self.started

    def signal(self, number: int) -> bool:
        """Send a signal to this very process; False where it is gone."""
        if not self.alive():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def _start_ticks(pid: int) -> int:
    """Field 22 of /proc/PID/stat; 0 for no such process and for a zombie. Source: proc(5)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


@dataclass(slots=True)
class Child:
    """A started program, in a process group of its own, with its output in a log file."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    log_start: int
    id: ProcessId
    clock: Clock = field(default_factory=SystemClock)

    @property
    def pid(self) -> int:
        return self.process.pid

    def running(self) -> bool:
        """Whether it still runs. Once ended it stays a zombie until `end`: its group's id is not used again."""
        if self.process.returncode is not None:
            return False
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def interrupt(self) -> None:
        """Ask it to end (SIGTERM), without waiting."""
        if self.running():
            os.kill(self.pid, signal.SIGTERM)

    def stop(self, grace_seconds: float = 10.0) -> int:
        """SIGTERM, after the grace SIGKILL for the whole group; its exit status. Safe to call again."""
        self.interrupt()
        deadline = self.clock.monotonic() + grace_seconds
        while self.running() and self.clock.monotonic() < deadline:
            self.clock.sleep(0.02)
        return self.end()

    def end(self) -> int:
        """Kill what is left of its group, at once, and give its exit status (negative: the signal that ended it)."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            # A child that has not yet made its own group is not reached through it.
            os.kill(self.pid, signal.SIGKILL)
        return self.process.wait()

    def recent(self) -> str:
        """The last 8 KiB that this run wrote."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(self.log_start, self.log.stat().st_size - 8192))
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def last_line(self) -> str:
        """The last line that this run wrote, without control characters, at most 300 characters."""
        lines = reversed(self.recent().splitlines())
        printable = ("".join(char for char in line if char.isprintable()).strip() for line in lines)
        return next((line[:300] for line in printable if line), "")


def spawn(
    name: str,
    argv: Sequence[str | os.PathLike[str]],
    *,
    log: Path,
    env: Mapping[str, str],
    cwd: Path | None = None,
) -> Child:
    """Start a program that the kernel kills when the calling *thread* ends: call it from a thread that stays.

    `argv[0]` is an absolute path. Output is appended to `log`. Raises `StartFailed` where it cannot be run.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    program = [os.fspath(part) for part in argv]
    if not os.access(program[0], os.X_OK):
        raise StartFailed(f"{name} cannot be started: {program[0]} is not an executable file.")
    with log.open("ab") as output:
        start = output.tell()
        try:
            process = subprocess.Popen(  # noqa: S603 - the program and its arguments are ours, no shell
                [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *program],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        except OSError as error:
            raise StartFailed(f"{name} cannot be started: {error.strerror}.") from None
    return Child(name, process, log, start, ProcessId.of(process.pid))
