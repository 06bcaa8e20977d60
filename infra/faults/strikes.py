"""What strikes: each is a generator that acts, and yields the seconds until it wants to act again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

from infra.faults.fleet import Worker
from infra.faults.s3_proxy import Policy, passing
from infra.faults.scene import Scene, Strikes
from trivet.embedded import servers


def killing(role: str, every: float) -> Strikes:
    """`kill -9` of one worker's main process; a supervisor would start it again at once, and so does this."""

    def strikes(scene: Scene) -> Iterator[float]:
        while not scene.finished():
            yield every
            worker = _any(scene, role)
            if worker is not None:
                scene.recovery.struck(worker.pids())
                scene.fleet.kill(worker)
                scene.faults += 1
                scene.fleet.start(worker.start)

    return strikes


def killing_children(role: str, every: float) -> Strikes:
    """`kill -9` of one prefork child; Celery starts another."""

    def strikes(scene: Scene) -> Iterator[float]:
        while not scene.finished():
            yield every
            worker = _any(scene, role)
            children = worker.children() if worker is not None else []
            if children:
                pid = scene.rng.choice(children)
                scene.recovery.struck([pid])
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                scene.faults += 1

    return strikes


def stopping(role: str, every: float) -> Strikes:
    """SIGSTOP of one worker with its children for two leases, then SIGCONT: it goes on with work that others have."""

    def strikes(scene: Scene) -> Iterator[float]:
        while not scene.finished():
            yield every
            worker = _any(scene, role)
            if worker is None:
                continue
            scene.recovery.struck(worker.pids())
            scene.fleet.signal_all(worker, signal.SIGSTOP)
            scene.faults += 1
            yield 2 * scene.settings.lease_seconds
            scene.fleet.signal_all(worker, signal.SIGCONT)

    return strikes


def terminating(every: float) -> Strikes:
    """SIGTERM of every worker, which must end by itself in time, with nothing held and nothing charged."""

    def strikes(scene: Scene) -> Iterator[float]:
        while not scene.finished():
            yield every
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
                    scene.violations.append(
                        f"{worker.start.name} ended with status {status}, {seconds:.1f} s after SIGTERM."
                    )
            scene.violations += scene.recovery.charged()
            scene.outage_over()
            for worker in workers:
                scene.fleet.start(worker.start)

    return strikes


def restarting_valkey(number: signal.Signals, times: int, after: float) -> Strikes:
    """Valkey is ended, and comes up again on the same port with what it had on disk."""

    def strikes(scene: Scene) -> Iterator[float]:
        assert scene.valkey is not None, "the row has a Valkey of its own"
        for _ in range(times):
            yield after
            child, port = scene.valkey.child, scene.valkey.port
            assert child is not None, "it runs"
            os.kill(child.pid, number)
            child.process.wait(30)
            scene.faults += 1
            yield 1.0
            servers.start(scene.valkey)
            if scene.valkey.port != port:
                raise RuntimeError(f"Port {port} was taken while Valkey was away.")
            scene.outage_over()

    return strikes


def silencing_redis(seconds: float, after: float) -> Strikes:
    """Nothing comes through to Redis or back for so long."""

    def strikes(scene: Scene) -> Iterator[float]:
        assert scene.redis_proxy is not None, "the row goes through a proxy"
        yield after
        scene.redis_proxy.blackhole(True)
        scene.faults += 1
        yield seconds
        scene.redis_proxy.blackhole(False)
        scene.outage_over()

    return strikes


def failing_s3(policy: Policy) -> Strikes:
    """The policy holds from the first task to the last."""

    def strikes(scene: Scene) -> Iterator[float]:
        assert scene.s3_proxy is not None, "the row goes through a proxy"
        scene.s3_proxy.policy = policy
        while not scene.finished():
            yield 0.5
            scene.faults = scene.s3_proxy.mishaps
        scene.s3_proxy.policy = passing

    return strikes


def s3_outage(seconds: float, after: float, policy: Policy) -> Strikes:
    """S3 answers nothing for so long."""

    def strikes(scene: Scene) -> Iterator[float]:
        assert scene.s3_proxy is not None, "the row goes through a proxy"
        yield after
        scene.s3_proxy.policy = policy
        yield seconds
        scene.s3_proxy.policy = passing
        scene.faults = scene.s3_proxy.mishaps
        scene.outage_over()

    return strikes


def watching(struck: str) -> Strikes:
    """What strikes is armed in the workers themselves; `struck` says how its traces are counted."""

    def strikes(scene: Scene) -> Iterator[float]:
        while not scene.finished():
            yield 0.5
        scene.faults = scene.fleet.traces(struck)

    return strikes


def _any(scene: Scene, role: str) -> Worker | None:
    workers = scene.fleet.ready(role)
    return scene.rng.choice(workers) if workers else None
