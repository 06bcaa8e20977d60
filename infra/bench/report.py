"""The figures of a benchmark, as text and as a page."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Round:
    """Whole pipeline and bare encoder on the same chunks, one after the other."""

    whole_seconds: float
    bare_seconds: float
    chunks: int
    tokens: int

    @property
    def ratio(self) -> float:
        """Pipeline's rate ÷ encoder's rate."""
        return self.bare_seconds / self.whole_seconds


@dataclass(frozen=True, slots=True)
class Memory:
    """MiB of one process."""

    name: str
    peak: int
    private: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that one run of the benchmark saw."""

    rounds: tuple[Round, ...]
    backend: str
    accepts_per_second: float
    accepts: int
    memory: tuple[Memory, ...]
    machine: str


def table(figures: Figures) -> str:
    """Markdown tables of the figures; medians over the rounds."""
    rounds = figures.rounds
    whole = statistics.median(r.tokens / r.whole_seconds for r in rounds)
    bare = statistics.median(r.tokens / r.bare_seconds for r in rounds)
    whole_chunks = statistics.median(r.chunks / r.whole_seconds for r in rounds)
    bare_chunks = statistics.median(r.chunks / r.bare_seconds for r in rounds)
    ratio = statistics.median(r.ratio for r in rounds)
    spread = f"{min(r.ratio for r in rounds):.2f}–{max(r.ratio for r in rounds):.2f}"
    lines = [
        f"{figures.machine}; encoder {figures.backend};",
        f"{rounds[0].chunks} chunks, {rounds[0].tokens} tokens per round;",
        f"medians of {len(rounds)} rounds, both sides in turn.",
        "",
        "| | chunks/s | tokens/s | ÷ bare encoder (min–max) |",
        "|---|---|---|---|",
        f"| bare encoder | {bare_chunks:.1f} | {bare:.0f} | 1 |",
        f"| whole pipeline, first accept to last commit | {whole_chunks:.1f} | {whole:.0f} | {ratio:.2f} ({spread}) |",
        "",
        f"Tasks accepted by one client: {figures.accepts_per_second:.0f} per second",
        f"({figures.accepts} accepts, AOF on).",
        "",
        "| process | peak resident MiB | private MiB at the end |",
        "|---|---|---|",
        *(f"| {memory.name} | {memory.peak} | {memory.private} |" for memory in figures.memory),
    ]
    return "\n".join(lines)


def write(path: Path, figures: Figures) -> None:
    """Write docs/benchmarks.md."""
    path.write_text(
        "# Benchmarks\n\n"
        "Printed by `make bench WRITE=1`. Figures of one shared machine: ratios count, absolute rates are its own.\n\n"
        f"## Pipeline against bare encoder\n\n{table(figures)}\n\n"
        "The pipeline fetches, parses, chunks, stages, embeds, writes Parquet to S3 and commits, on the same cores "
        "that compute; Valkey and S3 run there too. The bare encoder only computes: no claim, no store, no queue.\n"
    )
