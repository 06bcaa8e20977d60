"""The supervisor: starts servers and workers, restarts what dies, and ends everything in order."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from trivet.embedded import servers
from trivet.embedded.process import Child, ProcessId, spawn
from trivet.errors import StartFailed, TrivetError
from trivet.supervisor.endpoints import write_endpoints
from trivet.supervisor.plan import Plan
from trivet.supervisor.state import Folder, Phase, Status
from trivet.supervisor.stopping import Stopped, StopRequest
from trivet.supervisor.watched import Watched, ended
from trivet.supervisor.workers import WorkerSpec, environment

#: A model of some gigabytes is read in this time; after it `up` returns and the status shows what is not ready.
READY_SECONDS = 180.0
#: How often everything is looked at.
LOOK_SECONDS = 0.2
_LOG_BYTES = 16 << 20
_SERVER_GRACE_SECONDS = 10.0

#: Told of what happens: a word for the kind (`step`, `up`), and a sentence.
Report = Callable[[str, str], None]


class Supervisor:
    """One system in one state folder."""

    def __init__(self, plan: Plan, stop: StopRequest, inherited: Mapping[str, str], report: Report) -> None:
        self._plan = plan
        self._stop = stop
        self._inherited = inherited
        self._report = report
        self._folder = Folder(plan.settings.state_dir)
        self._settings = plan.settings
        self._servers: list[tuple[servers.Server, Watched]] = []
        self._workers: list[Watched] = []
        self._phase = Phase.STARTING
        self._since = stop.now()
        self._me = ProcessId.of(os.getpid())

    def run(self) -> None:
        """Start, watch until asked to end, end. Raises what kept it from starting; leaves nothing behind either way."""
        self._folder.make()
        with self._locked():
            try:
                self._prepare_folder()
                self._write()
                self._start_servers()
                self._start_workers()
                self._await_workers()
                self._phase = Phase.UP
                self._write()
                self._report("up", "")
                self._watch()
            except Stopped:
                pass
            finally:
                self._end()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._folder.lock.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StartFailed(
                    f"Trivet is up already in {self._folder.root}, or about to be.", hint="See: trivet status"
                ) from None
            yield

    def _prepare_folder(self) -> None:
        self._folder.endpoints.unlink(missing_ok=True)
        for folder in (self._folder.temporary, self._folder.ready):
            shutil.rmtree(folder, ignore_errors=True)
        self._folder.make()
        for log in self._folder.logs.glob("*.log"):
            if log.stat().st_size > _LOG_BYTES and log.name != "supervisor.log":
                log.replace(log.with_suffix(".log.1"))

    def _start_servers(self) -> None:
        if self._plan.own_redis:
            self._start_server(servers.valkey_of(self._settings))
        if self._plan.own_s3:
            self._start_server(servers.s3_of(self._settings))
        self._connect()

    def _connect(self) -> None:
        """Take the servers' addresses into the settings of the workers, and tell clients."""
        for server, _ in self._servers:
            self._settings = self._settings.model_copy(update=server.settings())
        write_endpoints(
            self._folder, self._settings, self._plan.explicit, redis=self._plan.own_redis, s3=self._plan.own_s3
        )

    def _start_server(self, server: servers.Server) -> None:
        self._report("step", f"starting {server.name}")
        watched = Watched(server.name, "server", server.log, server.start, self._stop)
        self._servers.append((server, watched))
        servers.start(server, clock=self._stop)
        assert server.child is not None
        watched.adopt(server.child)
        self._write()

    def _start_workers(self) -> None:
        for spec in self._plan.workers:
            if self._stop.asked:
                raise Stopped
            self._report("step", f"starting worker {spec.name}")
            ready = self._folder.ready / spec.name if spec.ready else None
            log = self._folder.logs / f"{spec.name}.log"
            watched = Watched(spec.name, "worker", log, self._starter(spec, log, ready), self._stop, ready)
            self._workers.append(watched)
            watched.start()
            self._write()

    def _starter(self, spec: WorkerSpec, log: Path, ready: Path | None) -> Callable[[], Child]:
        def start() -> Child:
            # Looked up at each start: a server may have had to move.
            settings = self._settings.model_copy(update={"ready_file": ready})
            env = environment(settings, self._inherited) | {"TMPDIR": str(self._folder.temporary)} | dict(spec.env)
            return spawn(spec.name, spec.argv, log=log, env=env, cwd=Path(spec.cwd))

        return start

    def _await_workers(self) -> None:
        deadline = self._stop.monotonic() + READY_SECONDS
        waiting = list(self._workers)
        while waiting and self._stop.monotonic() < deadline:
            for watched in waiting:
                if watched.child is not None and not watched.child.running():
                    raise StartFailed(
                        f"Worker {watched.name} {ended(watched.child)}", hint=f"Its log is {watched.log}."
                    )
            waiting = [watched for watched in waiting if not watched.ready()]
            if waiting:
                self._stop.sleep(LOOK_SECONDS / 4)

    def _watch(self) -> None:
        known = self._status()
        while not self._stop.asked:
            addresses = [server.settings() for server, _ in self._servers]
            for watched in self._all():
                try:
                    watched.look()
                except TrivetError as error:
                    watched.detail = error.message
            if addresses != [server.settings() for server, _ in self._servers]:
                self._connect()
                for worker in self._workers:
                    if worker.child is not None:
                        worker.child.interrupt()
            self._reap()
            if (now := self._status()) != known:
                known = now
                self._write()
            self._stop.pause(LOOK_SECONDS)

    def _reap(self) -> None:
        """Collect what workers left: this process inherits the children of its dead children."""
        ours = {watched.child.pid for watched in self._all() if watched.child}
        while True:
            try:
                gone = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            # One of ours is looked at first in the next round.
            if gone is None or gone.si_pid in ours:
                return
            os.waitpid(gone.si_pid, os.WNOHANG)

    def _end(self) -> None:
        """Workers first, and warm, so that what they hold is finished or given back; then the servers."""
        self._phase = Phase.STOPPING
        self._write()
        self._folder.endpoints.unlink(missing_ok=True)
        children = [watched.child for watched in self._workers if watched.child]
        for child in children:
            child.interrupt()
        deadline = self._stop.monotonic() + self._settings.stop_seconds
        while any(child.running() for child in children):
            if self._stop.urgent or self._stop.monotonic() > deadline:
                break
            self._stop.pause(0.02)
        for child in children:
            child.end()
        for server, watched in reversed(self._servers):
            server.child = watched.child or server.child
            servers.stop(server, 0.0 if self._stop.urgent else _SERVER_GRACE_SECONDS)
        end_descendants()
        shutil.rmtree(self._folder.temporary, ignore_errors=True)
        self._folder.state.unlink(missing_ok=True)

    def _status(self) -> Status:
        return Status(
            phase=self._phase,
            state_dir=str(self._folder.root),
            pid=self._me.pid,
            started=self._me.started,
            since=self._since,
            processes=tuple(watched.status() for watched in self._all()),
        )

    def _all(self) -> list[Watched]:
        return [*(watched for _, watched in self._servers), *self._workers]

    def _write(self) -> None:
        self._folder.write(self._status())


def end_descendants() -> None:
    """Kill every process below this one, which is the heir of all that its children started."""
    while below := [pid for pid, parent in _parents() if parent == os.getpid()]:
        for pid in below:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _parents() -> Iterator[tuple[int, int]]:
    """All processes with their parents. Source: field 4 of /proc/PID/stat, proc(5)."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                stat = (folder / "stat").read_text("utf-8", "replace")
                yield int(folder.name), int(stat.rpartition(")")[2].split()[1])
