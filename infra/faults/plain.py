"""The same kills against plain Celery: workers on Redis with late acknowledgement, and no ledger."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from infra.faults.fleet import ROOT
from infra.faults.recorder import plain_client
from infra.faults.scene import Result
from trivet.embedded.process import Child, spawn

#: As `VISIBILITY_SECONDS` of the app; what has not come back after three of them is lost.
_PATIENCE = 3
_CHILDREN = 2
_WORKERS = 2


@dataclass(frozen=True, slots=True)
class Plain:
    """What plain Celery has shown."""

    tasks: int
    kills: int
    #: Sent, and never run.
    lost: int
    #: Run more than once.
    twice: int
    seconds: float


class _Workers:
    def __init__(self, env: dict[str, str], folder: Path) -> None:
        self._env, self._folder = env, folder
        self._killed: list[Child] = []
        self.running = [self._start(n) for n in range(_WORKERS)]

    def _start(self, number: int) -> Child:
        argv = [
            *(sys.executable, "-m", "celery", "-A", "infra.faults.plain_app", "worker", "--pool", "prefork"),
            *("--concurrency", str(_CHILDREN), "--hostname", f"plain-{number}-{secrets.token_hex(2)}@%h"),
            *("--loglevel", "WARNING", "--without-gossip", "--without-mingle"),
        ]
        return spawn("plain", argv, log=self._folder / f"plain-{number}.log", env=self._env, cwd=ROOT)

    def kill_one(self, rng: Random) -> None:
        number = rng.randrange(_WORKERS)
        child = self.running[number]
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        self._killed.append(child)
        self.running[number] = self._start(number)

    def close(self) -> None:
        for child in (*self.running, *self._killed):
            child.end()


def run_plain(redis_url: str, folder: Path, tasks: int, every: float) -> Plain:
    """Send the tasks, kill one of two workers every so often until all ran or nothing comes back any more."""
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    prefix = f"plain-{secrets.token_hex(3)}:"
    own = {"PLAIN_REDIS_URL": redis_url, "PLAIN_PREFIX": prefix}
    os.environ.update(own)
    from infra.faults import plain_app

    client: Any = plain_client(redis_url)
    workers = _Workers({**os.environ, **own}, folder)
    try:
        for number in range(tasks):
            plain_app.work.delay(number)
        kills = _kill_on(workers, client, plain_app.DONE, tasks, every)
        _wait_for_the_rest(client, plain_app.DONE, tasks, _PATIENCE * plain_app.VISIBILITY_SECONDS)
        ran = client.hgetall(plain_app.RAN)
        twice = sum(int(times) > 1 for times in ran.values())
        return Plain(tasks, kills, tasks - client.scard(plain_app.DONE), twice, time.monotonic() - began)
    finally:
        workers.close()
        client.close()


def _kill_on(workers: _Workers, client: Any, done: str, tasks: int, every: float) -> int:
    """Kill while tasks run; how often that was. It ends with the work: the last tasks are left in peace."""
    rng, kills, before = Random("plain"), 0, -1
    while client.scard(done) == 0:
        time.sleep(0.1)
    while (now := client.scard(done)) < tasks and (now != before or kills < 3):
        before = now
        time.sleep(every)
        workers.kill_one(rng)
        kills += 1
    return kills


def _wait_for_the_rest(client: Any, done: str, tasks: int, patience: float) -> None:
    """Until all ran, or nothing has run for so long."""
    last, since = -1, time.monotonic()
    while last < tasks and time.monotonic() - since < patience:
        now = client.scard(done)
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.2)


def table(plain: Plain, results: Sequence[Result]) -> str:
    """Both sides, as a Markdown table."""
    lines = [
        "| | tasks | `kill -9` | lost | effect seen twice |",
        "|---|---|---|---|---|",
        f"| plain Celery on Redis | {plain.tasks} | {plain.kills} | {plain.lost} | {plain.twice} |",
    ]
    lines += [
        f"| Trivet, {result.row.name} | {result.verdict.tasks} | {result.faults} | {result.verdict.lost} "
        f"| {result.verdict.doubled} |"
        for result in results
    ]
    return "\n".join(lines)
