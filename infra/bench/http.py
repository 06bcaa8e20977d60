"""How many requests the API takes, and whether it loses any of them when it is killed.

python -m infra.bench.http [--seconds 10] [--rounds 3] [--write]

One process of the API, asking for keys, on a real Valkey with its append-only file and a real S3; a client in a
process of its own that sends ingest requests over 1, 16 and 64 connections, each in every round, then 1,000 sources per
request. In the end it sends on 16 connections while the API is killed again and again: every task that a 202 named must
be in the ledger. Server, client, Valkey and S3 share the machine's cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infra.bench.bare import ROOT
from infra.bench.encoder.table import write
from infra.serving import admin_key, api_on, free_port
from trivet.client import Trivet
from trivet.errors import UnknownTask
from trivet.ledger.redis import RedisLedger
from trivet.settings import Settings
from trivet.supervisor import running

PAGE = ROOT / "docs" / "http-api.md"
CONNECTIONS = (1, 16, 64)
_BULK = 1000
_KILLS = 5
_KILL_EVERY = 3.0
_PATIENCE = 60.0
#: More than is sent: what is measured is the server, and not its limits.
_PLENTY = 10_000_000


@dataclass
class Figures:
    """Of all rounds."""

    #: Connections → seconds of each request.
    seconds: dict[int, list[float]] = field(default_factory=dict)
    #: Connections → requests per second of each round.
    rates: dict[int, list[float]] = field(default_factory=dict)
    bulk: list[float] = field(default_factory=list)
    accepted: int = 0
    cut_off: int = 0
    lost: int = 0
    kills: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table. Exit status 1 where an accepted task is lost."""
    parser = argparse.ArgumentParser(prog="infra.bench.http", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each line of the table, per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="trivet-http-") as folder:
        settings = Settings.load(
            state_dir=Path(folder), api_keys="always", rate_per_minute=_PLENTY, rate_burst=_PLENTY, log_level="WARNING"
        )
        with running(settings, workers=(), progress=_say) as here:
            found = _measure(here, options.rounds, options.seconds)
    text = table(found, options.rounds)
    print(text)  # noqa: T201 - a command's output
    if options.write:
        write(PAGE, text, "load")
    return 1 if found.lost else 0


def table(found: Figures, rounds: int) -> str:
    """Markdown."""
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    lines = [
        f"{machine}; medians of {rounds} rounds in turn, latencies over the requests of all of them.",
        "",
        "| connections | ingest requests/s | p50, ms | p95, ms | p99, ms |",
        "|--:|--:|--:|--:|--:|",
    ]
    for connections, seconds in found.seconds.items():
        ranks = statistics.quantiles(seconds, n=100)
        ms = " | ".join(f"{1000 * ranks[rank - 1]:.1f}" for rank in (50, 95, 99))
        lines.append(f"| {connections} | {statistics.median(found.rates[connections]):,.0f} | {ms} |")
    killed = f"`kill -9` of the API {found.kills} times under load on 16 connections"
    lines += [
        "",
        f"In bulk, {_BULK:,} sources per request on one connection: {statistics.median(found.bulk):,.0f} sources/s.",
        "",
        f"{killed}: {found.accepted:,} tasks accepted, {found.cut_off} requests cut off, {found.lost} tasks lost.",
    ]
    return "\n".join(lines)


def _measure(here: Settings, rounds: int, seconds: float) -> Figures:
    found = Figures()
    Trivet(settings=here).create_collection("docs")
    key, port = admin_key(here), free_port()
    with api_on(here, port):
        _load(port, key, 4, 2.0)
        for number in range(rounds):
            for connections in CONNECTIONS:
                one = _load(port, key, connections, seconds)
                found.seconds.setdefault(connections, []).extend(one.seconds)
                found.rates.setdefault(connections, []).append(len(one.seconds) / one.wall)
                _say(f"round {number + 1}, {connections} connections: {len(one.seconds) / one.wall:,.0f} requests/s")
            bulk = _load(port, key, 1, seconds, _BULK)
            found.bulk.append(len(bulk.seconds) * _BULK / bulk.wall)
            _say(f"round {number + 1}, in bulk: {found.bulk[-1]:,.0f} sources/s")
    _kill_under_load(here, port, key, found)
    return found


@dataclass(frozen=True, slots=True)
class _Loaded:
    wall: float
    seconds: list[float]
    accepted: list[str]
    cut_off: int


def _start_load(port: int, key: str, connections: int, seconds: float, sources: int = 1) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "infra.bench.http_load", f"http://127.0.0.1:{port}", "/v1/collections/docs/ingest"]
    command += [key, str(connections), str(seconds), str(sources)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def _load(port: int, key: str, connections: int, seconds: float, sources: int = 1) -> _Loaded:
    return _ended(_start_load(port, key, connections, seconds, sources), seconds)


def _ended(client: subprocess.Popen[bytes], seconds: float) -> _Loaded:
    out, _ = client.communicate(timeout=seconds + 2 * _PATIENCE)
    said = json.loads(out)
    assert not said["refused"], f"{said['refused']} requests were refused"
    return _Loaded(said["wall"], said["seconds"], said["accepted"], said["cut_off"])


def _kill_under_load(here: Settings, port: int, key: str, found: Figures) -> None:
    seconds = (_KILLS + 1) * (_KILL_EVERY + 3.0)
    client = _start_load(port, key, 16, seconds)
    for _ in range(_KILLS):
        with api_on(here, port) as server:
            time.sleep(_KILL_EVERY)
            server.kill()
            found.kills += 1
    with api_on(here, port):
        loaded = _ended(client, seconds)
    ledger = RedisLedger(here)
    found.accepted, found.cut_off = len(loaded.accepted), loaded.cut_off
    for task_id in loaded.accepted:
        try:
            ledger.task(task_id)
        except UnknownTask:
            found.lost += 1
    ledger.close()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress of a command


if __name__ == "__main__":
    sys.exit(main())
