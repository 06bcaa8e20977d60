"""Runs one row: servers, workers, tasks, faults, judgement."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

from infra.faults.feeder import COLLECTION, Feeder, ProcessFeeder, ThreadFeeder, is_poison
from infra.faults.fleet import Fleet
from infra.faults.judge import judge, look
from infra.faults.receiver import Receiver
from infra.faults.recorder import Recorder, read_log
from infra.faults.recovery import Recovery
from infra.faults.redis_proxy import RedisProxy
from infra.faults.s3_proxy import S3Proxy
from infra.faults.scene import QUICK, Result, Row, Scene
from infra.faults.site import Site, serving
from infra.prose import prose
from trivet.embedded import servers
from trivet.embedded.seaweedfs import SeaweedFS
from trivet.embedded.valkey import Valkey
from trivet.settings import Settings
from trivet.stores import open_store
from trivet.stores.layout import Layout

POISON = "POISON"
_STEP_SECONDS = 0.05
_MOST_SETTLE_SECONDS = 5.0
_BUCKET = "trivet-faults"


@contextmanager
def shared_servers(folder: Path) -> Iterator[Settings]:
    """A Valkey and an S3 for all rows that need none of their own; settings that name them and no other system."""
    rng = Random()
    valkey = Valkey(folder / "valkey", log=folder / "valkey.log", max_bytes=1 << 30, rng=rng)
    s3 = SeaweedFS(folder / "s3", bucket=_BUCKET, log=folder / "s3.log", rng=rng)
    with servers.running(valkey, s3):
        fields: dict[str, Any] = {**valkey.settings(), **s3.settings()}
        yield Settings(state_dir=folder / "state", s3_bucket=_BUCKET, model_hub=False, **fields)


def run_row(row: Row, base: Settings, folder: Path) -> Result:
    """Run the row on the servers of `base`, in a folder of its own. The servers keep what it leaves."""
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        scene = _scene(row, base, folder, stack)
        scene.fleet.start_all(row.workers)
        _drive(scene, row)
        # Whoever was frozen or cut off may still write.
        time.sleep(min(_MOST_SETTLE_SECONDS, 1.5 * scene.settings.lease_seconds))
        extra = (*scene.violations, *row.check(scene))
        for each in (scene.feeder, scene.fleet, scene.recorder):
            each.close()
        settings = scene.settings
        seen = look(open_store(settings), Layout.of(settings, settings.namespace, COLLECTION))
        verdict = judge(scene.feeder.given, seen, read_log(scene.recorder.path), replayed=row.replayed)
        if scene.faults == 0:
            extra = (*extra, "No fault struck, so the row has shown nothing.")
        return Result(
            row=row,
            verdict=verdict,
            faults=scene.faults,
            holding=scene.holding,
            recoveries=(*scene.recovery.seconds, *scene.resumed),
            seconds=time.monotonic() - began,
            violations=(*verdict.violations, *extra),
        )


def _scene(row: Row, base: Settings, folder: Path, stack: ExitStack) -> Scene:
    """Everything but the workers stands; it ends with the stack."""
    name, rng = f"{row.name}-{secrets.token_hex(3)}", Random(row.name)
    settings = base.model_copy(
        update={
            "model_aliases": {"BAAI/bge-m3": "fake"},
            "redis_prefix": f"{name}:",
            "s3_prefix": name,
            "state_dir": folder / "state",
            "log_level": "WARNING",
            **QUICK,
            **row.settings,
        }
    )
    valkey = _own_valkey(row, folder, stack)
    if valkey is not None:
        settings = settings.model_copy(update=valkey.settings())
    site = stack.enter_context(serving(lambda number: _text(row, number)))
    receiver = None
    if row.receives:
        receiver = stack.enter_context(Receiver(rng, silent_seconds=2 * settings.deliver_timeout_seconds))
    allowed = (site.place, receiver.place) if receiver else (site.place,)
    settings = settings.model_copy(update={"allow_addresses": allowed})
    redis_proxy, s3_proxy, seen_by_workers = _proxies(row, settings, rng, stack)
    recorder = Recorder(settings, folder / "events.jsonl")
    stack.callback(recorder.close)
    fleet = Fleet(seen_by_workers, folder / "logs")
    stack.callback(fleet.close)
    feeder = _feeder(row, seen_by_workers, site, folder)
    stack.callback(feeder.close)
    recovery = Recovery(settings)
    stack.callback(recovery.close)
    return Scene(settings, fleet, feeder, recorder, recovery, folder, rng, valkey, redis_proxy, s3_proxy, receiver)


def _drive(scene: Scene, row: Row) -> None:
    """Strike while the work goes on, until both have ended."""
    deadline = time.monotonic() + row.seconds
    strikes = row.strikes(scene)
    due = time.monotonic() + next(strikes, math.inf)
    scene.feeder.start()
    while due < math.inf or not scene.finished():
        now = time.monotonic()
        scene.look()
        if now >= due:
            due = now + next(strikes, math.inf)
        if now > deadline:
            left = sum(task.task_id not in scene.recorder.ended for task in scene.feeder.given)
            scene.violations.append(f"After {row.seconds:.0f} seconds {left} tasks have not ended.")
            break
        time.sleep(_STEP_SECONDS)


def _feeder(row: Row, settings: Settings, site: Site, folder: Path) -> Feeder:
    if row.client_process:
        return ProcessFeeder(settings, site, row.tasks, folder)
    return ThreadFeeder(settings, site, row.tasks, per_second=row.per_second, poison_every=row.poison_every)


def _text(row: Row, number: int) -> str:
    text = prose(number, row.words)
    return f"{text} {POISON}." if is_poison(number, row.poison_every) else text


def _own_valkey(row: Row, folder: Path, stack: ExitStack) -> Valkey | None:
    if not row.own_valkey:
        return None
    valkey = Valkey(folder / "valkey", log=folder / "valkey.log", max_bytes=1 << 30, rng=Random(), fsync=row.own_valkey)
    servers.start(valkey)
    stack.callback(lambda: servers.stop(valkey))
    return valkey


def _proxies(
    row: Row, settings: Settings, rng: Random, stack: ExitStack
) -> tuple[RedisProxy | None, S3Proxy | None, Settings]:
    redis_proxy = s3_proxy = None
    if row.through_redis_proxy or row.rewrite:
        rewrite = row.rewrite(rng) if row.rewrite else None
        redis_proxy = stack.enter_context(RedisProxy(settings.redis_url, rewrite))
        settings = settings.model_copy(update={"redis_url": redis_proxy.url})
    if row.through_s3_proxy:
        s3_proxy = stack.enter_context(S3Proxy(settings.s3_endpoint))
        settings = settings.model_copy(update={"s3_endpoint": s3_proxy.url})
    return redis_proxy, s3_proxy, settings
