"""What strikes servers and the way to them; generators as in `infra.faults.strikes`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from random import Random

from infra.faults.redis_proxy import Rewrite
from infra.faults.s3_proxy import Policy, passing, refusing
from infra.faults.scene import Scene, Strikes
from trivet.embedded import servers

_DOWN_SECONDS = 1.0


def restarting_valkey(number: signal.Signals, times: int, every: float) -> Strikes:
    """Valkey is ended, and comes up again on the same port with what it had on disk."""

    def strikes(scene: Scene) -> Iterator[float]:
        valkey = scene.valkey
        assert valkey is not None, "the row has a Valkey of its own"
        for _ in range(times):
            yield every
            child, port = valkey.child, valkey.port
            assert child is not None, "it runs"
            os.kill(child.pid, number)
            child.process.wait(30)
            scene.faults += 1
            yield _DOWN_SECONDS
            servers.start(valkey)
            if valkey.port != port:
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


def cutting_redis(every: float) -> Strikes:
    """Every connection to Redis is cut again and again."""

    def strikes(scene: Scene) -> Iterator[float]:
        assert scene.redis_proxy is not None, "the row goes through a proxy"
        while True:
            yield every
            if scene.finished():
                return
            scene.redis_proxy.cut()
            scene.faults += 1

    return strikes


def failing_s3(policy: Policy) -> Strikes:
    """The policy holds from the first task to the last."""

    def strikes(scene: Scene) -> Iterator[float]:
        assert scene.s3_proxy is not None, "the row goes through a proxy"
        scene.s3_proxy.policy = policy
        while not scene.finished():
            yield 0.5
            scene.faults = scene.s3_proxy.struck
        scene.s3_proxy.policy = passing

    return strikes


def s3_outage(seconds: float, after: float) -> Strikes:
    """S3 answers nothing for so long."""

    def strikes(scene: Scene) -> Iterator[float]:
        assert scene.s3_proxy is not None, "the row goes through a proxy"
        yield after
        scene.s3_proxy.policy = refusing
        yield seconds
        scene.s3_proxy.policy = passing
        scene.faults = scene.s3_proxy.struck
        scene.outage_over()

    return strikes


def wiping(share: float, *, ask_again: bool) -> Strikes:
    """FLUSHALL once this share of the tasks has ended, then `rebuild`; clients that `ask_again` do so for what is
    unknown then, with the key that they had used before.
    """

    def strikes(scene: Scene) -> Iterator[float]:
        while scene.ended() < share * scene.feeder.tasks:
            yield 0.05
        scene.recorder.wipe()
        scene.faults += 1
        yield 0.5
        from trivet.rebuild import rebuild

        rebuild(scene.settings)
        scene.outage_over()
        while not scene.feeder.done:
            yield 0.1
        if ask_again:
            scene.restarted = scene.feeder.give_unknown_again(scene.recorder.ended)

    return strikes


class Doorbells:
    """Loses and doubles doorbells on their way into Celery's lists; everything else passes as it is."""

    def __init__(self, lost: float, doubled: float) -> None:
        self._lost, self._doubled = lost, doubled
        self.struck = 0

    def rewriter(self, rng: Random) -> Rewrite:
        """What `RedisProxy` wants; it is called from many threads, and a count that is one short harms nobody."""

        def rewrite(words: list[bytes]) -> list[bytes]:
            if len(words) != 3 or words[0].upper() not in (b"LPUSH", b"RPUSH") or b"celery:trivet." not in words[1]:
                return words
            chance = rng.random()
            if chance < self._lost:
                self.struck += 1
                # Answers with a number too, and does nothing.
                return [b"EXISTS", words[1]]
            if chance < self._lost + self._doubled:
                self.struck += 1
                return [*words, words[2]]
            return words

        return rewrite
