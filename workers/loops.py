"""The roles that wait for no doorbell: each runs a loop in a thread of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

import structlog

from trivet.broker import celery_ringer, make_app
from trivet.clock import SystemClock
from trivet.errors import TrivetError
from trivet.ledger import open_ledger
from trivet.names import Role
from trivet.settings import Settings
from trivet.stages.sweep import sweep_forever
from trivet.stages.watchdog import BROKEN_STATUS

log = structlog.get_logger(__name__)

#: A loop of the role until `stopping()`.
Loop = Callable[[Settings, Callable[[], bool]], None]

_LOOK_SECONDS = 0.1
#: What a loop may take to notice that it should stop, beyond what a document may.
_GRACE_SECONDS = 5.0


def sweep(settings: Settings, stopping: Callable[[], bool]) -> None:
    """Sweep, and ring for what waits."""
    sweep_forever(open_ledger(settings, celery_ringer(make_app(settings))), settings, SystemClock(), stopping)


def deliver(settings: Settings, stopping: Callable[[], bool]) -> None:
    """Bring events to their endpoints."""
    from trivet.delivery.loop import deliver_forever

    deliver_forever(settings, stopping)


def collect(settings: Settings, stopping: Callable[[], bool]) -> None:
    """Collect garbage."""
    from trivet.gc import collect_forever

    collect_forever(settings, stopping)


def search(settings: Settings, stopping: Callable[[], bool]) -> None:
    """Own the index, and answer searches."""
    from trivet.index.serving import search_forever

    search_forever(settings, stopping)


LOOPS: dict[Role, Loop] = {Role.SWEEP: sweep, Role.DELIVER: deliver, Role.GC: collect, Role.SEARCH: search}


def run_loops(
    settings: Settings,
    loops: dict[str, Loop],
    stopping: Callable[[], bool],
    ready: Callable[[], None],
    *,
    exit: Callable[[int], object] = os._exit,  # noqa: A002 - it is what ends a process
) -> None:
    """Run the loops side by side until `stopping()`.

    One that crashes, or ends by itself, ends the process with 70: the supervisor starts all of them anew. So does one
    that does not stop, with 0: it holds no lease.
    """

    def life(name: str, loop: Loop) -> None:
        try:
            loop(settings, stopping)
        except TrivetError as error:
            log.critical("loop.failed", role=name, error=str(error))
            exit(BROKEN_STATUS)
        except BaseException:  # a thread that ends without a word would leave its work undone for ever
            log.exception("loop.crashed", role=name)
            exit(BROKEN_STATUS)
        if not stopping():
            log.critical("loop.ended", role=name)
            exit(BROKEN_STATUS)

    threads = [threading.Thread(target=life, args=pair, name=pair[0], daemon=True) for pair in loops.items()]
    for thread in threads:
        thread.start()
    ready()
    clock = SystemClock()
    while not stopping():
        clock.sleep(_LOOK_SECONDS)
    deadline = clock.monotonic() + settings.drain_seconds + _GRACE_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - clock.monotonic()))
    if late := [thread.name for thread in threads if thread.is_alive()]:
        log.warning("drain.cut", roles=late)
        exit(0)


def roles_loops(roles: Sequence[Role]) -> dict[str, Loop]:
    """The loops of these roles by name."""
    return {role.value: LOOPS[role] for role in roles}
