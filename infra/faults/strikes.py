"""What strikes workers: each is a generator that acts, and yields the seconds until it wants to act again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from infra.faults.feeder import ProcessFeeder
from infra.faults.fleet import Worker
from infra.faults.scene import Scene, Strikes


def killing(role: str, every: float) -> Strikes:
    """`kill -9` of one worker's main process; a supervisor would start it again at once, and so does this."""

    def strikes(scene: Scene) -> Iterator[float]:
        while True:
            yield every
            if scene.finished():
                return
            worker = _any(scene, role)
            if worker is not None:
                _kill(scene, worker)

    return strikes


def killing_holders(roles: Sequence[str], times: int, every: float) -> Strikes:
    """`kill -9` of workers that hold work at that moment, of each role in turn, so often."""

    def strikes(scene: Scene) -> Iterator[float]:
        for number in range(times):
            yield every
            while not scene.finished():
                worker = _any(scene, roles[number % len(roles)])
                if worker is not None and scene.recovery.held(worker.pids()):
                    _kill(scene, worker)
                    break
                yield 0.05

    return strikes


def killing_children(role: str, every: float) -> Strikes:
    """`kill -9` of one prefork child; Celery starts another."""

    def strikes(scene: Scene) -> Iterator[float]:
        while True:
            yield every
            if scene.finished():
                return
            worker = _any(scene, role)
            children = worker.children() if worker is not None else []
            if children:
                pid = scene.rng.choice(children)
                scene.struck([pid])
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    return strikes


def killing_the_client(after: int) -> Strikes:
    """`kill -9` of the process that gives tasks in, each time that it has given so many; it starts again."""

    def strikes(scene: Scene) -> Iterator[float]:
        feeder = scene.feeder
        assert isinstance(feeder, ProcessFeeder), "the row's client is a process"
        known = 0
        while not feeder.done:
            yield scene.rng.uniform(0.0, 0.05)
            if known + after <= len(feeder.given) < feeder.tasks:
                scene.faults += feeder.kill()
                known = len(feeder.given)

    return strikes


def freezing(role: str, every: float) -> Strikes:
    """SIGSTOP of one worker with its children for two leases, then SIGCONT: it goes on with work that others have."""

    def strikes(scene: Scene) -> Iterator[float]:
        while True:
            yield every
            if scene.finished():
                return
            worker = _any(scene, role)
            if worker is None:
                continue
            scene.struck(worker.pids())
            scene.fleet.signal_all(worker, signal.SIGSTOP)
            yield 2 * scene.settings.lease_seconds
            scene.fleet.signal_all(worker, signal.SIGCONT)

    return strikes


def terminating(every: float) -> Strikes:
    """SIGTERM of every worker, which must end by itself in time, with nothing held and nothing charged."""

    def strikes(scene: Scene) -> Iterator[float]:
        while True:
            yield every
            if scene.finished():
                return
            grace = scene.settings.stop_seconds
            workers = list(scene.fleet.workers.values())
            if not all(worker.ready.exists() for worker in workers):
                continue
            for worker in workers:
                worker.child.interrupt()
            for worker in workers:
                status, seconds = scene.fleet.stop(worker, grace)
                scene.faults += 1
                if status != 0 or seconds >= grace:
                    how = f"ended with status {status}, {seconds:.1f} s after SIGTERM"
                    scene.violations.append(f"{worker.start.name} {how}.")
            scene.violations += scene.recovery.left_behind()
            scene.outage_over()
            for worker in workers:
                scene.fleet.start(worker.start)

    return strikes


def watching(count: Callable[[Scene], int]) -> Strikes:
    """What strikes is armed in the workers themselves, or on the way to Redis; `count` says how often it did."""

    def strikes(scene: Scene) -> Iterator[float]:
        while not scene.finished():
            yield 0.5
        scene.faults = count(scene)

    return strikes


def _kill(scene: Scene, worker: Worker) -> None:
    scene.struck(worker.pids())
    scene.fleet.kill(worker)
    scene.fleet.start(worker.start)


def _any(scene: Scene, role: str) -> Worker | None:
    workers = scene.fleet.ready(role)
    return scene.rng.choice(workers) if workers else None
