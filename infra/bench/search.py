"""How long a search takes, step by step: the index against brute force in NumPy and qdrant-client's local mode.

python -m infra.bench.search [--sizes 1000 10000 100000] [--queries 200] [--folder DIR] [--write]

Synthetic chunks, 100 to an object: dense vectors of 1024 dimensions around topics, 80 sparse terms with ids drawn as
words are (Zipf), 8 to 32 ColBERT vectors of 1024 dimensions in float16, 2 kB of text. A query is a chunk with noise:
12 terms, 12 ColBERT vectors. All three engines end in the same fusion and MaxSim over 64 candidates, with the defaults
of `SearchRequest`. Threads of one process ask; for the index that is the process that owns it, so that the socket is
not in the figures. Recall is held against brute force.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from qdrant_client import QdrantClient

from infra.bench.search_world import PER_OBJECT, SPACE, World
from trivet.index import Index, Where
from trivet.index.edge import EdgeIndex
from trivet.index.marks import Mark, Marks
from trivet.index.qdrant import QdrantIndex
from trivet.retrieval import Leg, QueryLegs, SearchRequest
from trivet.retrieval.indexed import IndexRetriever
from trivet.retrieval.ranking import Block, Ranking, rerank_depth
from trivet.retrieval.scores import colbert_scores, sparse_scores
from trivet.settings import Settings
from trivet.stores.memory import MemoryStore

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "search-benchmarks.md"
_BEGIN, _END = "<!-- begin table -->", "<!-- end table -->"

STEPS = ("dense", "sparse", "fusion", "maxsim", "load", "whole")
REQUEST = SearchRequest()
#: Engines that take seconds per query beyond this are not asked to.
_LOCAL_MOST = 10_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all sizes, print the table, and write the page if that was asked for."""
    parser = argparse.ArgumentParser(prog="infra.bench.search", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="for the index: 25 GB for 100,000 chunks; else a temporary one")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.relative_to(ROOT)}")
    parser.add_argument("--nice", type=int, help="niceness while queries are timed, on a machine that others share")
    options = parser.parse_args(arguments)
    rows: list[Row] = [encoding(options.queries, options.nice)]
    notes: list[str] = []
    for size in options.sizes:
        world = World.made(size)
        queries = [world.query(n) for n in range(options.queries)]
        brute = Brute(world)
        rows += measured("NumPy", size, brute.search, queries, options.nice)
        folder = Path(tempfile.mkdtemp(dir=options.folder, prefix="search-bench-"))
        try:
            with loaded(EdgeIndex(folder, ef=Settings().index_ef), world, notes) as retriever:
                notes.append(recall(world, retriever, brute, queries))
                rows += measured("index", size, asks(retriever), queries, options.nice)
        finally:
            shutil.rmtree(folder)
        told(rows, notes, write=options.write)
    for size in (size for size in options.sizes if size <= _LOCAL_MOST):
        world = World.made(size)
        with loaded(local(), world, []) as retriever:
            few = [world.query(n) for n in range(20)]
            rows += measured("qdrant-client local", size, asks(retriever), few, options.nice)
        told(rows, notes, write=options.write)
    return 0


def told(rows: Sequence[Row], notes: Sequence[str], *, write: bool) -> None:
    """Print what is measured so far; into the page too, so that a run that is cut short is not for nothing."""
    text = table(rows) + "\n\n" + "\n".join(f"- {note}" for note in notes)
    print(text, flush=True)  # noqa: T201 - the table is what this program is for
    if write:
        head, _, rest = PAGE.read_text("utf-8").partition(_BEGIN)
        PAGE.write_text(f"{head}{_BEGIN}\n\n{text}\n\n{_END}{rest.partition(_END)[2]}", "utf-8")


# ---------------------------------------------------------------- engines

#: A search: the chunks' ids, and seconds by step.
Search = Callable[[QueryLegs], tuple[list[str], dict[str, float]]]


class Brute:
    """Every chunk scored by NumPy, everything in memory."""

    def __init__(self, world: World) -> None:
        self.world = world
        kept = [world.terms(n) for n in range(len(world))]
        self.ids = np.concatenate([ids for ids, _ in kept])
        self.weights = np.concatenate([weights for _, weights in kept])
        self.offsets = np.concatenate([[0], np.cumsum([len(ids) for ids, _ in kept])])

    def search(self, query: QueryLegs) -> tuple[list[str], dict[str, float]]:
        """Both legs over all chunks, fusion, MaxSim of the best."""
        world, watch = self.world, Watch()
        with watch("dense"):
            dense = world.dense @ query.dense
        with watch("sparse"):
            sparse = sparse_scores(query.sparse_ids, query.sparse_weights, self.ids, self.weights, self.offsets)
        ranking = Ranking(REQUEST)
        with watch("fusion"):
            ranking.offer(Block(world.chunk_ids, np.arange(len(world)), dense, sparse), (0, 0))
            kept = ranking.first_stage()[: rerank_depth(REQUEST)]
        with watch("maxsim"):
            vectors = [world.colbert(candidate.place[2]) for candidate in kept]
            ends = np.cumsum([0, *(len(found) for found in vectors)])
            scores = colbert_scores(query.colbert, np.concatenate(vectors), ends).tolist()
        with watch("fusion"):
            colbert = dict(zip((candidate.chunk_id for candidate in kept), scores, strict=True))
            top = ranking.final(kept, colbert)[: REQUEST.top_k]
        return [ranked.candidate.chunk_id for ranked in top], watch.seconds


@dataclass
class Watch:
    """Seconds by step, and of all."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        spent = time.perf_counter() - begin
        self.seconds[step] += spent
        self.seconds["whole"] += spent


def local() -> QdrantIndex:
    """qdrant-client in memory: pure Python, and a stand-in for a server in tests."""
    warnings.filterwarnings("ignore", message="Payload indexes have no effect in the local Qdrant")
    warnings.filterwarnings("ignore", message="Local mode is not recommended")
    return QdrantIndex(QdrantClient(":memory:"), prefix="bench")


@contextmanager
def loaded(index: Index, world: World, notes: list[str]) -> Iterator[IndexRetriever]:
    """An index with all chunks, and a retriever over it; says what that took."""
    marks = Marks(index)
    try:
        begin = time.perf_counter()
        for points in world.points():
            index.put(SPACE, points)
        written = time.perf_counter() - begin
        for first in range(0, len(world), PER_OBJECT):
            rows = min(PER_OBJECT, len(world) - first)
            mark = Mark(object_id=f"o{first // PER_OBJECT}", generation=1, space=SPACE.name, rows=rows)
            marks.put(SPACE.namespace, SPACE.collection, mark.model_copy(update={"encoder_key": SPACE.encoder_key}))
        begin = time.perf_counter()
        index.optimize()
        index.settle()
        notes.append(
            f"{len(world):,} chunks were written in {written:.0f} s and put in order (graphs) in "
            f"{time.perf_counter() - begin:.0f} s."
        )
        assert index.count(SPACE, Where(live=True)) == len(world)
        yield IndexRetriever(index, marks, MemoryStore(), "v1")
    finally:
        index.close()


def asks(retriever: IndexRetriever) -> Search:
    """A search of the retriever; the steps are its own, its whole time is measured around it."""

    def search(query: QueryLegs) -> tuple[list[str], dict[str, float]]:
        begin = time.perf_counter()
        result = retriever.search(SPACE.namespace, SPACE.collection, query, REQUEST)
        seconds = dict(result.stats.seconds) | {"whole": time.perf_counter() - begin}
        seconds["maxsim"] = seconds.pop("rerank")
        return [hit.chunk_id for hit in result.hits], seconds

    return search


# ---------------------------------------------------------------- measuring


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: milliseconds of each step, as (median, 95th percentile)."""

    engine: str
    chunks: str
    at_once: int
    steps: dict[str, tuple[float, float]]


def measured(engine: str, size: int, search: Search, queries: Sequence[QueryLegs], nice: int | None) -> list[Row]:
    """One query at a time, then eight at once."""
    rows = []
    for at_once in (1, 8):
        for query in queries[:5]:
            search(query)
        with _niceness(nice), ThreadPoolExecutor(at_once) as pool:
            taken = [seconds for _, seconds in pool.map(search, queries)]
        rows.append(Row(engine, f"{size:,}", at_once, {step: _spread(taken, step) for step in STEPS}))
        print(table(rows[-1:]), file=sys.stderr, flush=True)  # noqa: T201 - as above
    return rows


@contextmanager
def _niceness(nice: int | None) -> Iterator[None]:
    """This niceness for every thread of this process, those of the engines too; a lower one than before needs root."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    for thread in Path("/proc/self/task").iterdir() if nice is not None else ():
        os.setpriority(os.PRIO_PROCESS, int(thread.name), nice or 0)
    try:
        yield
    finally:
        for thread in Path("/proc/self/task").iterdir() if nice is not None else ():
            with suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, int(thread.name), before)


def encoding(count: int, nice: int | None) -> Row:
    """The embedded model, without the cache of queries."""
    from trivet.retrieval.query import QueryEncoder

    settings = Settings(model_aliases={"BAAI/bge-m3": "embedded"}, state_dir=Path(os.environ["TRIVET_STATE_DIR"]))
    encoder = QueryEncoder.load(settings, "BAAI/bge-m3")
    taken = []
    with _niceness(nice):
        for n in range(count + 5):
            begin = time.perf_counter()
            encoder.encode(f"How is the boot loader number {n} set up on a machine with two disks?")
            taken.append({"encode": time.perf_counter() - begin})
    return Row(f"encode ({encoder.identity.name})", "", 1, {"encode": _spread(taken[5:], "encode")})


def recall(world: World, retriever: IndexRetriever, brute: Brute, queries: Sequence[QueryLegs]) -> str:
    """Share of brute force's ten best that are found: by the dense leg alone, and by the whole search."""
    dense, whole = [], []
    only_dense = SearchRequest(rerank=False, fusion=REQUEST.fusion.model_copy(update={"weights": {Leg.DENSE: 1.0}}))
    for query in queries:
        best = np.argsort(-(world.dense @ query.dense), kind="stable")[:10]
        found = retriever.search(SPACE.namespace, SPACE.collection, query, only_dense).hits
        dense.append(len({world.chunk_ids[i] for i in best} & {hit.chunk_id for hit in found}) / 10)
        expected = set(brute.search(query)[0])
        hits = retriever.search(SPACE.namespace, SPACE.collection, query, REQUEST).hits
        whole.append(len(expected & {hit.chunk_id for hit in hits}) / len(expected))
    return (
        f"{len(world):,} chunks: recall@10 against brute force {statistics.fmean(dense):.3f} (dense leg alone), "
        f"{statistics.fmean(whole):.3f} (whole search), {len(queries)} queries."
    )


def _spread(taken: Sequence[dict[str, float]], step: str) -> tuple[float, float]:
    values = sorted(1000 * seconds.get(step, 0.0) for seconds in taken)
    return statistics.median(values), values[min(len(values) - 1, int(0.95 * len(values)))]


def table(rows: Sequence[Row]) -> str:
    """Markdown; each cell median / 95th percentile in milliseconds."""
    columns = ("encode", *STEPS)
    lines = [
        "| engine | chunks | at once | " + " | ".join(columns) + " |",
        "|---|--:|--:|" + "--:|" * len(columns),
    ]
    for row in rows:
        cells = [
            f"{row.steps[step][0]:.1f} / {row.steps[step][1]:.1f}" if any(row.steps.get(step, ())) else ""
            for step in columns
        ]
        lines.append(f"| {row.engine} | {row.chunks} | {row.at_once} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
