"""How the ledger bears a million tasks: bytes per task, and the time of a sweep and of a claim, small against large.

python -m infra.bench.ledger_scale [--tasks 1000000] [--small 1000] [--rounds 300] [--markdown FILE]

Both ledgers lie in one Valkey and are asked in turn, so that whatever else the machine does strikes both.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import redis

from trivet.accept import accept
from trivet.embedded import servers
from trivet.embedded.valkey import Valkey
from trivet.ids import new_task_id
from trivet.ledger.redis import RedisLedger
from trivet.names import Lane, Stage
from trivet.settings import Settings
from trivet.stages.sweep import sweep_once
from trivet.values import Collection, IngestRequest, Lease, ModelIdentity, Pipeline, Spec

_PROCESSES = 2
_QUEUE = "0" * 16
_MODEL = ModelIdentity(
    requested="BAAI/bge-m3",
    name="none",
    revision="1",
    encoder_key=_QUEUE,
    dimensions=8,
    colbert_dimensions=8,
    max_tokens=512,
    pooling="cls",
)
_SPEC = Spec(pipeline=Pipeline(), model=_MODEL)
_NAMESPACES = 20


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds are medians of one call over a local socket."""

    tasks: int
    bytes_per_task: float
    accepts_per_second: float
    claim_seconds: float
    sweep_seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill both ledgers, ask them in turn, print the table."""
    parser = argparse.ArgumentParser(prog="infra.bench.ledger_scale", description=__doc__)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--small", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--markdown", type=Path, help="write the table into this file too")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="trivet-scale-") as folder:
        server = Valkey(Path(folder) / "data", log=Path(folder) / "log", max_bytes=12 << 30, rng=random.Random())
        with servers.running(server):
            found = _measure(server.url, (options.small, options.tasks), options.rounds)
            turns = newcomer(_settings(server.url, options.tasks))
    text = f"{table(found)}\n\n{turns}"
    print(text)  # noqa: T201 - a command's output
    if options.markdown:
        options.markdown.write_text(text + "\n")
    return 0


def table(found: Sequence[Figures]) -> str:
    """Markdown, with the last line's ratio to the first."""
    first, last = found[0], found[-1]
    lines = ["| tasks | bytes per task | accepts/s | claim, ms | sweep, ms |", "|---|---|---|---|---|"]
    lines += [
        f"| {one.tasks:,} | {one.bytes_per_task:,.0f} | {one.accepts_per_second:,.0f} "
        f"| {1000 * one.claim_seconds:.3f} | {1000 * one.sweep_seconds:.3f} |"
        for one in found
    ]
    claim, sweep = last.claim_seconds / first.claim_seconds, last.sweep_seconds / first.sweep_seconds
    return "\n".join([*lines, f"| ratio | | | {claim:.2f} | {sweep:.2f} |"])


def _measure(url: str, sizes: Sequence[int], rounds: int) -> list[Figures]:
    settings = [_settings(url, size) for size in sizes]
    ledgers = [RedisLedger(one) for one in settings]
    memory, rates = [], []
    for one, size in zip(settings, sizes, strict=True):
        before, began = _used(url), time.perf_counter()
        _fill(one, size)
        rates.append(size / (time.perf_counter() - began))
        memory.append((_used(url) - before) / size)
    _settle(url)
    claims: list[list[float]] = [[] for _ in sizes]
    sweeps: list[list[float]] = [[] for _ in sizes]
    for n in range(rounds):
        for i, ledger in enumerate(ledgers):
            sweeps[i].append(_timed(partial(sweep_once, ledger, settings[i])))
            claims[i].append(_timed(partial(_claim, ledger, n)))
    return [
        Figures(size, memory[i], rates[i], statistics.median(claims[i]), statistics.median(sweeps[i]))
        for i, size in enumerate(sizes)
    ]


def _settings(url: str, size: int) -> Settings:
    return Settings(redis_url=url, redis_prefix=f"scale{size}:", model_hub=False)


def newcomer(settings: Settings) -> str:
    """Which claim takes a namespace's only interactive object, behind all that the others have dumped.

    At prepare as it stands; at embed behind 2,000 staged shards of the others, in claims of 16,384 tokens.
    """
    ledger = RedisLedger(settings)
    for _ in range(2000):
        (lease,) = ledger.claim(Stage.PREPARE, "filler", _operation())
        _stage(ledger, lease)
    ledger.put_collection(Collection(namespace="newcomer", name="documents"), replace=True)
    request = IngestRequest(
        url="https://example.com/one", namespace="newcomer", collection="documents", lane=Lane.INTERACTIVE
    )
    mine = accept(ledger, settings, request).task_id
    prepare = 1
    while (lease := ledger.claim(Stage.PREPARE, "bench", _operation())[0]).task_id != mine:
        prepare += 1
    _stage(ledger, lease)
    embed = 1
    while mine not in {
        lease.task_id
        for lease in ledger.claim(Stage.EMBED, "bench", _operation(), queues=(_QUEUE,), budget=16_384, most=256)
    }:
        embed += 1
    return f"A newcomer's interactive object is taken by prepare claim {prepare} and by embed claim {embed}."


def _operation() -> str:
    return os.urandom(8).hex()


def _stage(ledger: RedisLedger, lease: Lease) -> None:
    ledger.allocate(lease, 0, _SPEC)
    ledger.stage(lease, _QUEUE, "sha", [(400, "hash")] * 4, pages=1, chunks=4, fetched_bytes=10_000)


def _claim(ledger: RedisLedger, n: int) -> None:
    assert ledger.claim(Stage.PREPARE, "bench", f"op{n}"), "there is work"


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _used(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.info("memory")["used_memory"])


def _settle(url: str) -> None:
    """While Redis rewrites its append-only file, writes to a large ledger copy pages, and those to a small one few."""
    with redis.Redis.from_url(url) as client:
        while client.info("persistence")["aof_rewrite_in_progress"]:
            time.sleep(0.5)


def _fill(settings: Settings, size: int) -> None:
    """Through the door that producers use, by as many processes as there are cores here."""
    ledger = RedisLedger(settings)
    for n in range(_NAMESPACES):
        ledger.put_collection(Collection(namespace=f"team-{n}", name="documents"), replace=True)
    share = -(-size // _PROCESSES)
    jobs = [
        multiprocessing.get_context("spawn").Process(
            target=_accept_range, args=(settings, start, min(start + share, size))
        )
        for start in range(0, size, share)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
        assert job.exitcode == 0, "a producer failed"


def _accept_range(settings: Settings, start: int, stop: int) -> None:
    ledger = RedisLedger(settings)
    for n in range(start, stop):
        request = IngestRequest(
            url=f"https://files.example.com/archive/2026/{n % 100:02d}/document-{n:08d}.pdf",
            namespace=f"team-{n % _NAMESPACES}",
            collection="documents",
        )
        accept(ledger, settings, request, task_id=new_task_id())


if __name__ == "__main__":
    sys.exit(main())
