"""From the outside: start a supervisor, wait for it, end it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

import trivet
from trivet.clock import Clock, SystemClock
from trivet.embedded import seaweedfs, valkey
from trivet.embedded.process import ProcessId
from trivet.errors import MissingDependency, StartFailed
from trivet.ids import digest
from trivet.settings import Settings
from trivet.supervisor.endpoints import connected_settings
from trivet.supervisor.plan import Plan, plan
from trivet.supervisor.state import Folder, Phase, Status, status, write_json
from trivet.supervisor.workers import WorkerSpec, worker_specs
from trivet.tuning import tuned

Progress = Callable[[str], None]

#: Beside the workers' own grace: servers, and a busy machine.
_MARGIN_SECONDS = 30.0


def up(
    settings: Settings,
    *,
    detach: bool = True,
    workers: Sequence[WorkerSpec] | None = None,
    progress: Progress | None = None,
) -> Status:
    """Start servers and workers in the settings' state folder and return when they take work.

    An embedded server is started for each that the settings do not name explicitly (`redis_url`; `s3_endpoint` or
    `s3_access_key`), so pass settings as loaded, not those of `connected_settings`. With `detach` the system runs on
    after this process, and calling again changes nothing. Without, this waits for Ctrl-C or `down` and returns what
    is left: nothing. Should this process die before `up` returns, the system ends too.

    Raises `StartFailed` with the last words of what did not come up, or where it runs with other settings already;
    `MissingDependency`.
    """
    if detach and (known := status(settings)).phase is Phase.UP:
        _same_settings(settings)
        return known
    handle = _Handle(_plan(settings, workers))
    try:
        handle.await_up(progress or _silent)
        if detach:
            handle.let_go()
            write_json(Folder(settings.state_dir).asked, _asked(settings))
            return status(settings)
        handle.process.wait()
    except KeyboardInterrupt:
        handle.end()
        if detach:
            raise
    except BaseException:
        handle.end()
        raise
    return status(settings)


@contextmanager
def running(
    settings: Settings, *, workers: Sequence[WorkerSpec] | None = None, progress: Progress | None = None
) -> Iterator[Settings]:
    """A system for the length of a block, and the settings that point at it. Nothing is left, however it ends."""
    handle = _Handle(_plan(settings, workers))
    try:
        handle.await_up(progress or _silent)
        yield connected_settings(settings)
    finally:
        handle.end()


def down(settings: Settings, *, clock: Clock | None = None) -> bool:
    """End the system of the state folder and wait until nothing of it runs; False where none did."""
    clock = clock or SystemClock()
    known = Folder(settings.state_dir).read()
    supervisor = ProcessId(known.pid, known.started)
    was_up = known.alive()
    if was_up:
        grace = settings.stop_seconds + _MARGIN_SECONDS
        for number, seconds in ((signal.SIGTERM, grace), (signal.SIGTERM, _MARGIN_SECONDS), (signal.SIGKILL, 5.0)):
            supervisor.signal(number)
            if _gone([supervisor], clock, seconds):
                break
    # Those of a killed supervisor get their signal from the kernel; this is for one that could not give it.
    children = [ProcessId(process.pid, process.started) for process in known.processes if process.pid]
    if not _gone(children, clock, 1.0 if was_up else 0.0):
        for child in children:
            child.signal(signal.SIGKILL)
        _gone(children, clock, 5.0)
    return was_up


def _asked(settings: Settings) -> dict[str, str]:
    """The settings that were given, by hash (a secret by its name alone)."""
    given = settings.model_fields_set - {"state_dir"}
    return {name: digest([str(getattr(settings, name)), name]) for name in sorted(given)}


def _same_settings(settings: Settings) -> None:
    """A system that runs does not take up other settings, and must not seem to."""
    try:
        known = json.loads(Folder(settings.state_dir).asked.read_text("utf-8"))
    except (OSError, ValueError):
        return
    other = [name for name, value in _asked(settings).items() if known.get(name) != value]
    if other:
        names = ", ".join(f"TRIVET_{name.upper()}" for name in other)
        raise StartFailed(
            f"It runs already in {settings.state_dir}, with another {names}.",
            hint="End it first, and start it again with the new settings: trivet down, trivet up.",
        )


def _gone(processes: Sequence[ProcessId], clock: Clock, seconds: float) -> bool:
    deadline = clock.monotonic() + seconds
    while any(process.alive() for process in processes):
        if clock.monotonic() >= deadline:
            return False
        clock.sleep(0.05)
    return True


def _plan(settings: Settings, workers: Sequence[WorkerSpec] | None) -> Plan:
    made = plan(settings, ())
    # What is missing is named before anything is started.
    if made.own_redis:
        valkey.binary()
    if made.own_s3:
        seaweedfs.binary()
    # Workers are told every setting, so they could not tell what was chosen from what is built in.
    made = replace(made, settings=tuned(made.settings))
    return replace(made, workers=tuple(workers) if workers is not None else worker_specs(made.settings))


def _import_path() -> str:
    """This library first, also for the workers: it may be a checkout that is not installed."""
    library = str(Path(trivet.__file__).absolute().parent.parent)
    return os.pathsep.join(filter(None, (library, os.environ.get("PYTHONPATH"))))


def _silent(_: str) -> None:
    pass


class _Handle:
    """The caller's end of a supervisor: while its pipe is held and not let go, the supervisor lives as we do."""

    def __init__(self, plan: Plan) -> None:
        folder = Folder(plan.settings.state_dir)
        try:
            folder.make()
        except OSError as error:
            raise StartFailed(f"The state folder {folder.root} cannot be made: {error.strerror}.") from None
        with (folder.logs / "supervisor.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "trivet.supervisor"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder.root,
                env=os.environ | {"PYTHONPATH": _import_path()},
                start_new_session=True,
            )
        self._log = folder.logs / "supervisor.log"
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._pipe: IO[bytes] = self.process.stdin
        self._told: IO[bytes] = self.process.stdout
        with suppress(BrokenPipeError):
            self._pipe.write(plan.line())
            self._pipe.flush()

    def await_up(self, progress: Progress) -> None:
        """Wait until the system is up; raises why it is not."""
        for line in self._told:
            told = json.loads(line)
            if told["kind"] == "up":
                return
            if told["kind"] == "failed":
                kind = MissingDependency if told["code"] == MissingDependency.code else StartFailed
                raise kind(told["message"], hint=told["hint"])
            progress(told["message"])
        raise StartFailed("The supervisor ended before the system was up.", hint=f"Its log is {self._log}.")

    def let_go(self) -> None:
        """From now on it lives without us."""
        self._pipe.write(b"1")
        self._close()
        # It is nobody's zombie: it has its own life, and this process may be a long one.
        self.process.returncode = 0

    def end(self) -> None:
        """Ask it to end and wait; a Ctrl-C while it does makes it hurry."""
        while True:
            try:
                self._close()
                self.process.wait()
            except KeyboardInterrupt:
                self.process.terminate()
            else:
                return

    def _close(self) -> None:
        with suppress(OSError):
            self._pipe.close()
        with suppress(OSError):
            self._told.close()
