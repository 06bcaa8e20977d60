"""One row as it runs: everything that a strike may act on, and what it has found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from infra.faults.feeder import Feeder
from infra.faults.fleet import Fleet, Start
from infra.faults.judge import Verdict
from infra.faults.receiver import Receiver
from infra.faults.recorder import Recorder
from infra.faults.recovery import Recovery
from infra.faults.redis_proxy import RedisProxy, Rewrite
from infra.faults.s3_proxy import S3Proxy
from trivet.embedded.valkey import Valkey
from trivet.settings import Settings

#: Every time limit is a setting that scales: rows run with these, and so ten times as fast as a default system.
QUICK: Mapping[str, Any] = {
    "lease_seconds": 2.0,
    "heartbeat_seconds": 0.5,
    "sweep_seconds": 0.25,
    "retry_base_seconds": 0.05,
    "retry_max_seconds": 2.0,
    "claim_tokens": 8192,
    "drain_seconds": 1.0,
}

SWEEP = Start("sweep", "sweep")


def crew(cpu: int = 1, embed: int = 1, **changes: Any) -> tuple[Start, ...]:
    """Workers as `trivet up` starts them: prepare and commit in prefork workers, embed beside, one sweeper."""
    return (
        SWEEP,
        *(Start(f"cpu-{n}", "prepare,commit", 2, changes) for n in range(cpu)),
        *(Start(f"embed-{n}", "embed", 1, changes) for n in range(embed)),
    )


@dataclass
class Scene:
    """What a strike may act on. All strikes run in the row's own thread."""

    #: As the judge and the recorder reach the servers: past every proxy.
    settings: Settings
    fleet: Fleet
    feeder: Feeder
    recorder: Recorder
    recovery: Recovery
    folder: Path
    rng: Random
    valkey: Valkey | None = None
    redis_proxy: RedisProxy | None = None
    s3_proxy: S3Proxy | None = None
    receiver: Receiver | None = None
    faults: int = 0
    #: Faults that met a worker with leased work in its hands.
    holding: int = 0
    #: Tasks that were unknown after a rebuild and that their client gave in again.
    restarted: int = 0
    violations: list[str] = field(default_factory=list)
    #: Seconds from the end of an outage to the next event.
    resumed: list[float] = field(default_factory=list)
    _outage: tuple[int, float] | None = None

    def struck(self, pids: Iterable[int]) -> None:
        """A fault is about to meet these processes."""
        self.faults += 1
        self.holding += bool(self.recovery.struck(pids))

    def finished(self) -> bool:
        """Whether every task that was accepted has ended."""
        return self.feeder.done and all(task.task_id in self.recorder.ended for task in self.feeder.given)

    def ended(self) -> int:
        """Tasks that have ended."""
        return len(self.recorder.ended)

    def outage_over(self) -> None:
        """From now on, see how long it takes until anything happens again."""
        self._outage = (self.recorder.count, time.monotonic())

    def look(self) -> None:
        """Called all the time: who has taken up what, and who has ended by himself."""
        self.recovery.look()
        self.fleet.mend()
        if self._outage is not None and self.recorder.count > self._outage[0]:
            self.resumed.append(time.monotonic() - self._outage[1])
            self._outage = None


#: Strikes, and yields the seconds until it wants to be called again; it ends when it is through.
Strikes = Callable[[Scene], Iterator[float]]


def no_findings(scene: Scene) -> Iterable[str]:  # noqa: ARG001 - a check's signature
    """Nothing to add to the judge's findings."""
    return ()


@dataclass(frozen=True)
class Row:
    """One fault at one stage."""

    name: str
    stage: str
    #: What is done, in one sentence.
    what: str
    strikes: Strikes
    tasks: int = 300
    #: Words of one document.
    words: int = 200
    workers: tuple[Start, ...] = crew()
    settings: Mapping[str, Any] = field(default_factory=dict)
    #: Tasks given in each second; 0: as fast as they are taken.
    per_second: float = 0
    #: Whether the client is a process of its own.
    client_process: bool = False
    #: Every so many-th document is poison; 0: none.
    poison_every: int = 0
    #: `appendfsync` of a Valkey of its own; empty: the one that all rows share.
    own_valkey: str = ""
    through_redis_proxy: bool = False
    #: Makes the rewriting of Redis commands.
    rewrite: Callable[[Random], Rewrite] | None = None
    through_s3_proxy: bool = False
    #: Whether there is an endpoint for its events.
    receives: bool = False
    #: Whether Redis may forget its last moments, and say events again.
    replayed: bool = False
    #: Findings of this row's own.
    check: Callable[[Scene], Iterable[str]] = no_findings
    seconds: float = 600


@dataclass(frozen=True, slots=True)
class Result:
    """What a row has shown."""

    row: Row
    verdict: Verdict
    faults: int
    holding: int
    #: Seconds until work of a dead holder was leased again, or until the system went on after an outage.
    recoveries: tuple[float, ...]
    seconds: float
    violations: tuple[str, ...]
