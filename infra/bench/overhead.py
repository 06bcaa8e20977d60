"""What the ledger costs: an empty task through bare Celery against an empty task through the ledger, in one run.

python -m infra.bench.overhead [--tasks 3000] [--rounds 5] [--markdown FILE]

Celery: `apply_async` of a task that does nothing, then one solo worker that executes them all; with its defaults, and
with `acks_late`, without which a killed worker loses what it runs. Trivet: `accept`, then one process that takes every
task through each transition that a task of one shard meets (prepare, embed and commit leased, staged, written, ended,
with its events). Both on the same Valkey, AOF on, in turn.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from infra.bench.plain import QUEUE, plain_app
from trivet.accept import accept
from trivet.embedded import servers
from trivet.embedded.valkey import Valkey
from trivet.ledger.redis import RedisLedger
from trivet.names import Stage
from trivet.settings import Settings
from trivet.values import Collection, IngestRequest, Lease, ModelIdentity, Part, Pipeline, Receipt, Spec, TaskState

ROOT = Path(__file__).parent.parent.parent
_MODEL = ModelIdentity(
    requested="BAAI/bge-m3",
    name="none",
    revision="1",
    encoder_key="0" * 16,
    dimensions=8,
    colbert_dimensions=8,
    max_tokens=512,
    pooling="cls",
)
_SPEC = Spec(pipeline=Pipeline(), model=_MODEL)
#: As an embed worker claims: many shards at once.
_CLAIM_TOKENS, _MOST_SHARDS, _TOKENS = 16_384, 256, 100


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds for all tasks of one round."""

    enqueue: float
    work: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all three in turn and print the table."""
    parser = argparse.ArgumentParser(prog="infra.bench.overhead", description=__doc__)
    parser.add_argument("--tasks", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", type=Path, help="write the table into this file too")
    options = parser.parse_args(arguments)
    found: dict[str, list[Round]] = {"Celery, defaults": [], "Celery, acks_late": [], "Trivet's ledger": []}
    with tempfile.TemporaryDirectory(prefix="trivet-overhead-") as folder:
        server = Valkey(Path(folder) / "data", log=Path(folder) / "log", max_bytes=2 << 30, rng=random.Random())
        with servers.running(server):
            for n in range(options.rounds):
                found["Celery, defaults"].append(_celery(server.url, options.tasks, late=False))
                found["Celery, acks_late"].append(_celery(server.url, options.tasks, late=True))
                found["Trivet's ledger"].append(_trivet(server.url, options.tasks, n))
    text = table(found, options.tasks)
    print(text)  # noqa: T201 - a command's output
    if options.markdown:
        options.markdown.write_text(text + "\n")
    return 0


def table(found: dict[str, list[Round]], tasks: int) -> str:
    """Markdown: medians, and ratios to Celery with acks_late of the same round."""
    lines = [
        f"{tasks} tasks per round, medians of {len(next(iter(found.values())))} rounds in turn.",
        "",
        "| | enqueued/s | worked off/s | ms per task, both | rate ÷ Celery with acks_late (min–max) |",
        "|---|---|---|---|---|",
    ]
    base = found["Celery, acks_late"]
    for name, rounds in found.items():
        ratios = [(b.enqueue + b.work) / (r.enqueue + r.work) for r, b in zip(rounds, base, strict=True)]
        lines.append(
            f"| {name} | {tasks / statistics.median(r.enqueue for r in rounds):.0f} "
            f"| {tasks / statistics.median(r.work for r in rounds):.0f} "
            f"| {1000 * statistics.median(r.enqueue + r.work for r in rounds) / tasks:.2f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) |"
        )
    return "\n".join(lines)


def _celery(url: str, tasks: int, *, late: bool) -> Round:
    app, empty = plain_app(url, late=late)
    with redis.Redis.from_url(url) as client:
        began = time.perf_counter()
        for _ in range(tasks):
            empty.apply_async()
        enqueue = time.perf_counter() - began
        options = [
            "--pool",
            "solo",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
            "--loglevel",
            "ERROR",
        ]
        worker = subprocess.Popen(  # noqa: S603 - our own module, with our own arguments
            [sys.executable, "-m", "celery", "-A", "infra.bench.plain", "worker", *options],
            cwd=ROOT,
            env={**os.environ, "PLAIN_URL": url, "PLAIN_LATE": "1" if late else ""},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            # Its start is not its work: the clock runs from the first task that is done.
            while (left := _left(client)) == tasks:
                time.sleep(0.002)
            began = time.perf_counter()
            while _left(client):
                time.sleep(0.002)
            work = (time.perf_counter() - began) * tasks / left
        finally:
            worker.terminate()
            worker.wait()
    app.close()
    return Round(enqueue, work)


def _left(client: redis.Redis) -> int:
    """Messages that wait, or are with the worker."""
    pipe = client.pipeline(transaction=True)
    pipe.llen(QUEUE)
    pipe.hlen("unacked")
    return sum(pipe.execute())


def _trivet(url: str, tasks: int, n: int) -> Round:
    settings = Settings(redis_url=url, redis_prefix=f"round{n}:", model_hub=False)
    ledger = RedisLedger(settings)
    ledger.put_collection(Collection(namespace="ns", name="c"), replace=True)
    began = time.perf_counter()
    for i in range(tasks):
        accept(ledger, settings, IngestRequest(url=f"https://example.com/{i}", namespace="ns", collection="c"))
    enqueue = time.perf_counter() - began
    began = time.perf_counter()
    left = tasks
    while left:
        left -= _batch(ledger)
    return Round(enqueue, time.perf_counter() - began)


def _batch(ledger: RedisLedger) -> int:
    """One embed claim's worth of tasks, from prepare to the end; returns how many."""
    staged = 0
    while staged < _MOST_SHARDS and (found := _claim(ledger, Stage.PREPARE, 1)):
        ledger.allocate(found[0], 0, _SPEC)
        work = [(_TOKENS, "hash")]
        ledger.stage(found[0], "0" * 16, "sha", work, pages=1, chunks=1, fetched_bytes=1000)
        staged += 1
    while leases := _claim(ledger, Stage.EMBED, _MOST_SHARDS):
        for lease in leases:
            part = Part(shard=0, key="k", sha256="s", bytes=1, rows=1, tokens=_TOKENS, input_hash="hash")
            ledger.shard_done(lease, part, "{}")
    ended = 0
    while found := _claim(ledger, Stage.COMMIT, 1):
        ledger.committing(found[0])
        ledger.finish(found[0], TaskState.COMPLETED, manifest="m", receipt=Receipt())
        ended += 1
    return ended


def _claim(ledger: RedisLedger, stage: Stage, most: int) -> list[Lease]:
    budget = _CLAIM_TOKENS if stage is Stage.EMBED else 1
    return ledger.claim(stage, "bench", os.urandom(8).hex(), queues=("0" * 16,), budget=budget, most=most)


if __name__ == "__main__":
    sys.exit(main())
