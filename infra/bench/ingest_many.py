"""How fast the API takes sources in: `python -m infra.bench.ingest_many [--sources 10000]`, on servers of its own.

Sources come in bulk, then one by one from 1, 16 and 64 connections. Nothing embeds meanwhile. Every accepted task is
looked for in the ledger afterwards.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
from pydantic import SecretStr

from infra.serving import api_of
from trivet.cli.console import say
from trivet.embedded import servers
from trivet.embedded.seaweedfs import SeaweedFS
from trivet.embedded.valkey import Valkey
from trivet.ledger import open_ledger
from trivet.settings import Settings

_BUCKET = "ingest"


def main() -> int:
    """Exit status 1 where an accepted task is not in the ledger."""
    parser = argparse.ArgumentParser(prog="infra.bench.ingest_many", description=__doc__)
    parser.add_argument("--sources", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=600, help="one by one, at each number of connections")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trivet-ingest-") as name:
        folder, rng = Path(name), random.Random()
        redis = Valkey(folder / "redis", log=folder / "redis.log", max_bytes=1 << 30, rng=rng)
        s3 = SeaweedFS(folder / "s3", bucket=_BUCKET, log=folder / "s3.log", rng=rng)
        with servers.running(redis), servers.running(s3):
            access_key, secret_key = s3.keys
            settings = Settings(
                state_dir=folder,
                redis_url=redis.url,
                s3_endpoint=s3.endpoint,
                s3_bucket=_BUCKET,
                s3_access_key=access_key,
                s3_secret_key=SecretStr(secret_key),
                model_hub=False,
            )
            with api_of(settings) as base, httpx2.Client(base_url=base, timeout=600, trust_env=False) as http:
                http.post("/v1/collections", json={"collection_name": "c"}).raise_for_status()
                accepted = _bulk(http, options.sources)
                for connections in (1, 16, 64):
                    accepted += _single(base, connections, options.requests)
            ledger = open_ledger(settings)
            lost = sum(1 for task_id in accepted if ledger.task(task_id) is None)
    say(f"{len(accepted)} accepted, {lost} of them not in the ledger")
    return 1 if lost else 0


def _bulk(http: httpx2.Client, count: int) -> list[str]:
    sources = [{"url": f"https://example.com/{n}"} for n in range(count)]
    began = time.monotonic()
    done = http.post("/v1/collections/c/ingest", json={"sources": sources}).raise_for_status().json()
    seconds = time.monotonic() - began
    say(f"bulk: {done['accepted']} sources in one request, {seconds:.1f} s, {count / seconds:,.0f} sources/s")
    return [one["task_id"] for one in done["results"] if one["task_id"]]


def _single(base: str, connections: int, count: int) -> list[str]:
    taken: list[float] = []
    with httpx2.Client(
        base_url=base, timeout=60, trust_env=False, limits=httpx2.Limits(max_connections=connections)
    ) as http:

        def send(number: int) -> str:
            began = time.monotonic()
            url = f"https://example.com/{connections}/{number}"
            done = http.post("/v1/collections/c/ingest", json={"source": {"url": url}}).raise_for_status().json()
            taken.append(time.monotonic() - began)
            return str(done["task_id"])

        began = time.monotonic()
        with ThreadPoolExecutor(connections) as pool:
            accepted = list(pool.map(send, range(count)))
        seconds = time.monotonic() - began
    cuts = statistics.quantiles(taken, n=100)
    say(
        f"{connections:3} connections: {count / seconds:6.0f} requests/s, "
        f"p50 {1000 * cuts[49]:.1f} ms, p95 {1000 * cuts[94]:.1f} ms, p99 {1000 * cuts[98]:.1f} ms"
    )
    return accepted


if __name__ == "__main__":
    sys.exit(main())
