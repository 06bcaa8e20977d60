"""Measure: whole pipeline ÷ bare encoder, accepts per second, peak memory per process. Writes docs/benchmarks.md.

python -m infra.bench [--rounds 3] [--copies 2] [--accepts 5000] [--write]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from infra.bench.report import Figures, Memory, Round, table, write
from infra.demo.documents import Ready, provide
from infra.demo.server import Site, serving
from trivet.client import Trivet
from trivet.settings import Settings
from trivet.supervisor import running, status
from trivet.supervisor.workers import environment, worker_specs
from trivet.tuning import tuned
from trivet.values import TaskState

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True)
class Whole:
    """One run of the whole pipeline."""

    seconds: float
    chunks: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Bare:
    """One run of the encoders alone; the time is that of the slowest."""

    seconds: float
    chunks: int
    tokens: int
    encoder: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all rounds, print the table, and write the page if that was asked for."""
    parser = argparse.ArgumentParser(prog="infra.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--copies", type=int, default=2, help="how often each document is ingested per round")
    parser.add_argument("--accepts", type=int, default=5000)
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = parser.parse_args(arguments)
    given = Settings.load()
    documents = _copies(provide(given.state_dir / "cache", _say), options.copies)
    with tempfile.TemporaryDirectory(prefix="trivet-bench-") as folder, serving(documents) as site:
        settings = given.model_copy(
            update={
                "state_dir": Path(folder),
                "model_dir": given.models_folder.absolute(),
                "allow_addresses": (site.address,),
            }
        )
        with running(settings, progress=_say) as here:
            figures = _measure(here, documents, site, options.rounds, options.accepts)
    text = table(figures)
    print(text)  # noqa: T201 - a command's output
    if options.write:
        write(ROOT / "docs" / "benchmarks.md", figures)
    return 0


def _measure(here: Settings, documents: Sequence[Ready], site: Site, rounds: int, accepts: int) -> Figures:
    client = Trivet(settings=here)
    _whole(client, "warm-up", documents[: len(documents) // 2], site)
    found = []
    for number in range(rounds):
        collection = f"round-{number}"
        whole = _whole(client, collection, documents, site)
        bare = _bare(here, collection)
        assert (bare.chunks, bare.tokens) == (whole.chunks, whole.tokens), "the same chunks on both sides"
        found.append(Round(whole.seconds, bare.seconds, whole.chunks, whole.tokens))
        _say(f"round {number + 1}: whole {whole.seconds:.2f} s, bare {bare.seconds:.2f} s, {whole.tokens} tokens")
    memory = _memory(here)
    return Figures(
        rounds=tuple(found),
        backend=bare.encoder,
        accepts_per_second=_accept_rate(here, accepts),
        accepts=accepts,
        memory=memory,
        machine=f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
    )


def _whole(client: Trivet, collection: str, documents: Sequence[Ready], site: Site) -> Whole:
    """From the first accept to the last completed task."""
    client.create_collection(collection)
    start = time.perf_counter()
    tasks = [
        client.ingest(site.url(ready.source.name), collection=collection, object_id=ready.source.name)
        for ready in documents
    ]
    views = [task.wait(timeout=900) for task in tasks]
    seconds = time.perf_counter() - start
    bad = [view for view in views if view.state is not TaskState.COMPLETED]
    assert not bad, f"{bad[0].object_id} is {bad[0].state}: {bad[0].error}"
    return Whole(seconds, sum(view.chunks for view in views), sum(view.tokens for view in views))


def _bare(here: Settings, collection: str) -> Bare:
    """The same chunks through encoders alone, in the same layout of processes and threads."""
    here = tuned(here)
    specs = [spec for spec in worker_specs(here) if "embed" in spec.argv]
    ran = [
        subprocess.Popen(  # noqa: S603 - our own module, with our own arguments
            [sys.executable, "-m", "infra.bench.bare", collection, str(number), str(len(specs))],
            cwd=ROOT,
            env={**environment(here, os.environ), **spec.env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, spec in enumerate(specs)
    ]
    for process in ran:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "the bare encoder did not start"
    for process in ran:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [json.loads(process.communicate()[0]) for process in ran]
    return Bare(
        seconds=max(float(answer["seconds"]) for answer in answers),
        chunks=sum(int(answer["chunks"]) for answer in answers),
        tokens=sum(int(answer["tokens"]) for answer in answers),
        encoder=f"{answers[0]['encoder']}, {len(specs)} processes",
    )


def _accept_rate(here: Settings, count: int) -> float:
    """Accepts per second of one client, as a web app has it; nobody works on them meanwhile."""
    client = Trivet(settings=here.model_copy(update={"redis_prefix": "bench-accept:"}))
    client.create_collection("accepts")
    start = time.perf_counter()
    for n in range(count):
        client.ingest(f"https://example.com/{n}", collection="accepts")
    return count / (time.perf_counter() - start)


def _memory(here: Settings) -> tuple[Memory, ...]:
    """Peak resident and present private memory of each process; children are counted with their parent's name."""
    found = []
    for process in status(here).processes:
        top = psutil.Process(process.pid)
        for child in (top, *top.children(recursive=True)):
            peak = _field(child.pid, "VmHWM")
            private = child.memory_full_info().uss >> 20
            name = process.name if child is top else f"{process.name} child"
            found.append(Memory(name, peak, private))
    return tuple(found)


def _field(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) >> 10
    return 0


def _copies(documents: Sequence[Ready], count: int) -> list[Ready]:
    return [
        replace(ready, source=replace(ready.source, name=f"{n}-{ready.source.name}"))
        for n in range(count)
        for ready in documents
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress of a command


if __name__ == "__main__":
    sys.exit(main())
