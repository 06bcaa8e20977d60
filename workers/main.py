"""Start a worker process with one or several roles."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from celery.signals import (
    setup_logging,
    worker_before_create_process,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
)

from trivet import machine
from trivet.broker import celery_ringer, make_app, queue_names
from trivet.encoder import Encoder
from trivet.errors import InvalidRequest, TrivetError
from trivet.faults import arm_all
from trivet.ledger import open_ledger
from trivet.ledger.queues import served_queues
from trivet.logs import bind_process, configure
from trivet.names import ACCEPT_QUEUE, STAGE_ROLES, Role, Stage
from trivet.settings import Settings
from trivet.stages.context import worker_name
from trivet.stages.prepare import warm
from trivet.stages.process import StageProcess, close_current, current, opens_with
from trivet.stores import open_store
from trivet.stores.selftest import check_conditional_writes
from trivet.tuning import tuned
from workers.draining import DrainFile, solo_stopping
from workers.loops import roles_loops, run_loops

#: Celery's own names, passed through to `worker_main`.
_QUIET = ["--without-gossip", "--without-mingle", "--without-heartbeat"]

#: What the parent of a prefork pool may take to stop beyond what its children may.
_PARENT_SECONDS = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until stopped; exit status 0 after a warm shutdown, 3 where something needed is not there."""
    parser = argparse.ArgumentParser(prog="workers.main", description=__doc__)
    parser.add_argument("--roles", required=True, help=f"comma-separated: {', '.join(Role)}")
    parser.add_argument("--concurrency", type=int, default=machine.cores(), help="prefork children")
    options = parser.parse_args(arguments)
    try:
        roles = [Role(name.strip()) for name in options.roles.split(",")]
    except ValueError as error:
        parser.error(str(error))
    try:
        settings = Settings.load()
        configure(settings)
        # Connected, it keeps Celery from installing handlers of its own.
        setup_logging.connect(lambda **_: None, weak=False)
        bind_process(roles=options.roles)
        arm_all(settings.faults)
        if settings.ready_file is not None:
            # Of the life before, where a container is started anew with the files that it had.
            settings.ready_file.unlink(missing_ok=True)
        if STAGE_ROLES.isdisjoint(roles):
            return _loop(settings, roles)
        if not STAGE_ROLES.issuperset(roles):
            loops = ", ".join(role for role in roles if role not in STAGE_ROLES)
            raise InvalidRequest(
                f"The role {loops} runs in another process than prepare, embed and commit.",
                hint="Start it beside the others.",
            )
        return _work(settings, [Stage(role) for role in roles], options.concurrency)
    except TrivetError as error:
        print(f"worker: {error}", file=sys.stderr)  # noqa: T201 - the supervisor's log is this process' stderr
        return 3


def _loop(settings: Settings, roles: Sequence[Role]) -> int:
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: stopped.append(received))
    run_loops(settings, roles_loops(roles), lambda: bool(stopped), lambda: _announce(settings))
    return 0


def _work(settings: Settings, roles: Sequence[Stage], concurrency: int) -> int:
    solo = Stage.EMBED in roles
    if solo:
        settings = tuned(settings)
    # Without conditional writes a commit is not atomic, and no worker may find that out later than here.
    store = open_store(settings)
    store.ensure_bucket()
    check_conditional_writes(store, settings.s3_prefix)
    # Torch is loaded in the process that uses it: a fork after torch has run hangs.
    encoder = _load_encoder(settings) if solo else None
    keys = served_queues(encoder.identity.encoder_key, encoder.passport.dtype) if encoder else ()
    queues = queue_names(roles, keys) + ([ACCEPT_QUEUE] if Stage.PREPARE in roles else [])
    app = make_app(settings, include=["tasks.stages", "tasks.accept"], queues=queues)
    app.conf.worker_consumer = "workers.consumer:PatientConsumer"
    app.set_current()

    # Of a prefork worker's children: whether they died alone or with it tells what killed them.
    parent = "" if solo else worker_name()

    def opened(stopping: Callable[[], bool]) -> Callable[[], StageProcess]:
        return lambda: StageProcess(
            settings,
            open_ledger(settings, celery_ringer(app)),
            open_store(settings),
            roles,
            encoder=encoder,
            parent=parent,
            stopping=stopping,
        )

    if Stage.PREPARE in roles:
        warm(settings)
    drain = DrainFile(settings.drain_seconds + _PARENT_SECONDS)
    drain.watch()
    opens_with(opened(solo_stopping if solo else drain.stopping))
    _follow_process_life(solo)
    worker_ready.connect(lambda **_: _announce(settings), weak=False)
    pool = ["--pool", "solo"] if solo else ["--pool", "prefork", "--concurrency", str(concurrency)]
    name = f"{'-'.join(roles)}-{os.getpid()}@%h"
    try:
        app.worker_main(
            [
                "worker",
                *pool,
                "--hostname",
                name,
                "--loglevel",
                settings.log_level,
                "--queues",
                ",".join(queues),
                *_QUIET,
            ]
        )
    finally:
        drain.remove()
    return 0


def _announce(settings: Settings) -> None:
    """Tell whoever started this worker that it takes work now."""
    if settings.ready_file is not None:
        settings.ready_file.touch()


def _follow_process_life(solo: bool) -> None:
    def open_now(**_: Any) -> None:
        current()

    def close_now(**_: Any) -> None:
        close_current()

    if solo:
        worker_shutdown.connect(close_now, weak=False)
        open_now()
    else:
        worker_before_create_process.connect(share_memory, weak=False)
        worker_process_init.connect(open_now, weak=False)
        worker_process_shutdown.connect(close_now, weak=False)


def share_memory(**_: Any) -> None:
    """Before a fork: take what is loaded out of the collector's sight, in the children too.

    A collection writes to every object that it looks at, and a page that is written to is no longer shared: without
    this, parent and children end up with a copy each of all that was loaded before the fork.
    """
    gc.collect()
    gc.freeze()


def _load_encoder(settings: Settings) -> Encoder:
    from trivet.encoder import load_encoder

    return load_encoder(settings, settings.embed_model, backend=settings.encoder_backend)


if __name__ == "__main__":
    sys.exit(main())
