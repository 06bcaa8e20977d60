"""What the embed stage costs beyond its encoder: staged shards in, parts on S3 out, against the bare encoder.

python -m infra.bench.embed_stage [--model embedded|6|24] [--rounds 3] [--documents 0] [--write]

Real documents are prepared by a real worker on a real Valkey and a real S3, and held by a pause. Then embed workers,
laid out as `trivet up` does, take them up: the clock runs from the end of the pause to the last shard that is done,
which is after its part was written. Bare encoders take the same chunks in the same layout, in turn. The models `6` and
`24` are random ones of bge-m3's width, whose parts are as large as bge-m3's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.bench.bare import ROOT, run_bare
from infra.bench.encoder.table import PAGE, write
from infra.bench.encoder.weights import model_folder
from infra.demo.documents import Ready, provide
from infra.demo.server import Site, serving
from infra.faults.fleet import Fleet, Start
from trivet.client import Trivet
from trivet.handles import TaskHandle
from trivet.settings import Settings
from trivet.supervisor import running
from trivet.supervisor.workers import WorkerSpec, worker_specs
from trivet.values import TaskState

_PATIENCE = 3600.0
#: The cores that are measured answer the questions too: seldom enough to cost nothing, often against a minute.
_POLL_SECONDS = 0.1
_WARM_UP = "warm-up"


@dataclass(frozen=True, slots=True)
class Round:
    """Both sides over the same chunks."""

    stage_seconds: float
    bare_seconds: float
    chunks: int
    tokens: int
    encoder: str

    @property
    def ratio(self) -> float:
        """The stage's chunks/s ÷ the bare encoder's."""
        return self.bare_seconds / self.stage_seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all rounds and print the table."""
    parser = argparse.ArgumentParser(prog="infra.bench.embed_stage", description=__doc__)
    parser.add_argument("--model", choices=["embedded", "6", "24"], default="embedded")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--documents", type=int, default=0, help="only so many, the smallest; 0 takes all")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args(arguments)
    given = Settings.load()
    documents = sorted(provide(given.state_dir / "cache", _say), key=lambda ready: ready.path.stat().st_size)
    documents = documents[: options.documents or None]
    embedded = given.models_folder.absolute() / "embedded"
    key = "real" if options.model == "embedded" else options.model
    model = model_folder(key, given.state_dir.absolute() / "bench" / "models", embedded)
    # As the supervisor sets it for embed workers: the fleet's processes inherit it.
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    with tempfile.TemporaryDirectory(prefix="trivet-bench-") as folder, serving(documents) as site:
        settings = given.model_copy(
            update={
                "state_dir": Path(folder),
                "model_aliases": {given.embed_model: str(model)},
                "allow_addresses": (site.address,),
            }
        )
        sweep = tuple(spec for spec in worker_specs(settings) if spec.name == "sweep")
        with running(settings, workers=sweep, progress=_say) as here:
            found = [_round(here, number, documents, site) for number in range(options.rounds)]
    text = table(found, options.model)
    print(text)  # noqa: T201 - a command's output
    if options.write:
        title = f"## The embed stage against the bare encoder, model {options.model}"
        write(PAGE, f"{title}\n\n{text}", f"embed stage {options.model}")
    return 0


def table(rounds: Sequence[Round], model: str) -> str:
    """Markdown: medians, and the ratio within each round."""
    ratios = [r.ratio for r in rounds]
    spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f})"
    first = rounds[0]
    bare = statistics.median(r.chunks / r.bare_seconds for r in rounds)
    stage = statistics.median(r.chunks / r.stage_seconds for r in rounds)
    return "\n".join(
        [
            f"Model {model}; encoder {first.encoder};",
            f"{first.chunks} chunks, {first.tokens} tokens per round;",
            f"medians of {len(rounds)} rounds, both sides in turn.",
            "",
            "| | chunks/s | ÷ bare encoder (min–max) |",
            "|---|---|---|",
            f"| bare encoder | {bare:.2f} | 1 |",
            f"| embed stage, parts on S3 | {stage:.2f} | {spread} |",
        ]
    )


def _round(here: Settings, number: int, documents: Sequence[Ready], site: Site) -> Round:
    """Stage, then both sides; the other one begins in every second round."""
    client, collection = Trivet(settings=here), f"round-{number}"
    fleet = Fleet(here, here.state_dir / f"fleet-{number}")
    try:
        warm = _stage(client, fleet, f"{_WARM_UP}-{number}", documents[:1], site)
        tasks = _stage(client, fleet, collection, documents, site)
        client.pause(collection, reason="Staged for a benchmark.")
        if number % 2:
            bare = run_bare(here, collection)
        stage = _embed(client, fleet, here, collection, warm, tasks)
        if not number % 2:
            bare = run_bare(here, collection)
    finally:
        fleet.close()
    views = [task.status() for task in tasks]
    chunks, tokens = sum(view.chunks for view in views), sum(view.tokens for view in views)
    assert (bare.chunks, bare.tokens) == (chunks, tokens), "the same chunks on both sides"
    _say(f"round {number + 1}: stage {stage:.2f} s, bare {bare.seconds:.2f} s, {chunks} chunks, {tokens} tokens")
    return Round(stage, bare.seconds, chunks, tokens, bare.encoder)


def _stage(client: Trivet, fleet: Fleet, collection: str, documents: Sequence[Ready], site: Site) -> list[TaskHandle]:
    """Everything up to the staged shards, by a worker that is gone afterwards: it must not commit meanwhile."""
    client.create_collection(collection)
    tasks = [
        client.ingest(site.url(ready.source.name), collection=collection, object_id=ready.source.name)
        for ready in documents
    ]
    worker = fleet.start(Start("prepare", "prepare", concurrency=2))
    fleet.wait_ready()
    _await(lambda: all(_is_staged(task) for task in tasks))
    fleet.stop(worker, 30.0)
    return tasks


def _is_staged(task: TaskHandle) -> bool:
    view = task.status()
    assert not view.state.terminal, f"{view.object_id} is {view.state}: {view.error}"
    return view.state is TaskState.EMBEDDING


def _embed(
    client: Trivet,
    fleet: Fleet,
    here: Settings,
    collection: str,
    warm: Sequence[TaskHandle],
    tasks: Sequence[TaskHandle],
) -> float:
    """Seconds from the end of the pause to the last shard; the workers are loaded and warm before."""
    workers = [fleet.start(_start(spec)) for spec in worker_specs(here) if "embed" in spec.argv]
    fleet.wait_ready()
    _await_done(warm)
    began = time.perf_counter()
    client.resume(collection)
    _await_done(tasks)
    seconds = time.perf_counter() - began
    for worker in workers:
        fleet.stop(worker, 30.0)
    return seconds


def _start(spec: WorkerSpec) -> Start:
    threads = spec.env.get("TRIVET_ENCODER_THREADS")
    return Start(spec.name, "embed", changes={"encoder_threads": int(threads)} if threads else {})


def _await_done(tasks: Sequence[TaskHandle]) -> None:
    """Until all shards of all are done; who is done is not asked again."""
    left = list(tasks)

    def done() -> bool:
        left[:] = [task for task in left if not _is_done(task)]
        return not left

    _await(done)


def _is_done(task: TaskHandle) -> bool:
    view = task.status()
    assert view.state is not TaskState.FAILED, f"{view.object_id} failed: {view.error}"
    return bool(view.shards) and view.shards_done == view.shards


def _await(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not done():
        assert time.monotonic() < deadline, "the workers do not come to an end"
        time.sleep(_POLL_SECONDS)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress of a command


if __name__ == "__main__":
    sys.exit(main())
