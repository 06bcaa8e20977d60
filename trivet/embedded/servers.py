"""Start, stop and health of the embedded servers together."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from trivet.clock import Clock, SystemClock
from trivet.embedded.process import Child
from trivet.embedded.seaweedfs import SeaweedFS
from trivet.embedded.valkey import Valkey
from trivet.errors import StartFailed
from trivet.settings import Settings

#: From start to the first answered request. SeaweedFS takes one second, and more than a minute where ten processes want
#: each core; one that ends is noticed at once, so nobody waits for long in vain.
START_SECONDS = 180.0
#: Ports may be taken between the choice and the start.
_TRIES = 3


class Server(Protocol):
    """What this module needs to know of a server."""

    name: str
    log: Path
    child: Child | None

    def start(self) -> Child: ...

    def ready(self) -> str:
        """Empty when a real request is answered, else why not."""
        ...

    def settings(self) -> dict[str, object]:
        """The fields of `Settings` that point at it."""
        ...

    def clean_up(self) -> None: ...


def valkey_of(settings: Settings, rng: random.Random | None = None) -> Valkey:
    """The embedded Valkey of a state folder."""
    return Valkey(
        settings.state_dir / "valkey",
        log=settings.state_dir / "logs" / "valkey.log",
        max_bytes=settings.embedded_redis_bytes,
        rng=rng or random.Random(),
    )


def s3_of(settings: Settings, rng: random.Random | None = None) -> SeaweedFS:
    """The embedded S3 of a state folder."""
    return SeaweedFS(
        settings.state_dir / "s3",
        bucket=settings.s3_bucket,
        log=settings.state_dir / "logs" / "s3.log",
        max_bytes=settings.embedded_s3_bytes,
        rng=rng or random.Random(),
    )


def start(server: Server, *, clock: Clock | None = None, seconds: float = START_SECONDS) -> None:
    """Start a server and wait until it answers a real request; `StartFailed` with its last words where it does not."""
    for attempt in range(_TRIES):
        child = server.start()
        try:
            wait(server, child, clock=clock, seconds=seconds)
        except StartFailed:
            stop(server, grace_seconds=0)
            if attempt == _TRIES - 1 or "in use" not in child.recent():
                raise
        except BaseException:
            stop(server, grace_seconds=0)
            raise
        else:
            return


def wait(server: Server, child: Child, *, clock: Clock | None = None, seconds: float = START_SECONDS) -> None:
    """Wait until a started server answers."""
    clock = clock or SystemClock()
    deadline = clock.monotonic() + seconds
    while reason := server.ready():
        if not child.running():
            status, last = child.end(), child.last_line()
            raise StartFailed(
                f"{server.name} ended with status {status} before it answered{': ' + last if last else '.'}",
                hint=f"Its log is {server.log}.",
            )
        if clock.monotonic() > deadline:
            # A server that believes itself to be up has nothing to say in its log.
            raise StartFailed(
                f"{server.name} did not answer within {seconds:.0f} seconds: {reason}", hint=f"Its log is {server.log}."
            )
        clock.sleep(0.05)


def stop(server: Server, grace_seconds: float = 10.0) -> None:
    """End a server; nothing of it is left."""
    if server.child is not None:
        server.child.stop(grace_seconds)
        server.child = None
    server.clean_up()


@contextmanager
def running(*servers: Server) -> Iterator[None]:
    """Servers that run inside the block and are gone after it."""
    try:
        for server in servers:
            start(server)
        yield
    finally:
        for server in reversed(servers):
            stop(server)
