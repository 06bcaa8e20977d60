"""The figures as Markdown."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.bench.encoder import quality
from infra.bench.encoder.driver import Bench
from infra.bench.encoder.engines import BY_NAME, ENGINES, REFERENCE, Spec
from infra.bench.encoder.parent import ROOT
from infra.bench.encoder.records import Record
from infra.bench.encoder.weights import MODELS
from infra.bench.encoder.workloads import BY_NAME as WORKLOADS_BY_NAME
from infra.bench.encoder.workloads import WORKLOADS, Workload, flops

PAGE = ROOT / "docs" / "encoder-benchmarks.md"
_NONE = "–"


def write(path: Path, text: str, name: str = "measured") -> None:
    """Put a text between the markers of that name on the page, or at its end where it has none."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    page = path.read_text(encoding="utf-8")
    before, _, rest = page.partition(begin)
    after = rest.partition(end)[2].strip()
    parts = [before.rstrip(), begin, text.strip(), end, after]
    path.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def page(bench: Bench) -> str:
    """All tables that there are figures for."""
    parts = [f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}.", _peaks(bench)]
    parts += [_speeds(bench, workload) for workload in WORKLOADS if workload.rounds]
    parts += [
        _query(bench),
        _results(bench, "mixed", "queries"),
        _results(bench, "smoke", "smoke"),
        _trained(bench),
        _computed(bench),
        _memory(bench),
        _absent(bench),
    ]
    parts.append(_notes())
    return "\n\n".join(part for part in parts if part) + "\n"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Median, and least to most where there are several."""
    if not values:
        return _NONE
    middle = format(statistics.median(values), form)
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}}–{max(values):{form}})"


def _times(bench: Bench, spec: Spec, workload: str) -> list[Record]:
    """The newest record of each round."""
    rounds = {record["round"]: record for record in bench.current("time", spec, workload=workload)}
    return [rounds[number] for number in sorted(rounds)]


def _seconds(record: Record) -> float:
    return float(statistics.median(record["seconds"]))


def _ratios(bench: Bench, spec: Spec, workload: str, other: Spec) -> list[float]:
    """The other's seconds ÷ this one's, of the same round."""
    found = {record["visit"]: record for record in bench.current("time", other, workload=workload)}
    mine = _times(bench, spec, workload)
    return [_seconds(found[record["visit"]]) / _seconds(record) for record in mine if record["visit"] in found]


def _shares(bench: Bench, spec: Spec, workload: Workload) -> list[float]:
    """Rate at which needed operations were done ÷ the peak of its own precision in that round."""
    need = flops(workload.lengths, MODELS[workload.model]) / 1e9
    found = []
    for record in _times(bench, spec, workload.name):
        beside = bench.records.find("time", visit=record["visit"])
        peaks = [other["peak"] for other in beside if BY_NAME[other["engine"]].dtype == spec.dtype]
        found.append(need / _seconds(record) / statistics.median(peaks))
    return found


def _peaks(bench: Bench) -> str:
    found: dict[str, list[float]] = {}
    for record in bench.records.find("time"):
        found.setdefault(BY_NAME[record["engine"]].dtype, []).append(record["peak"])
    if not found:
        return ""
    lines = ["| matrix product 2048 × 1024 × 4096 | GFLOP/s, median (min–max) |", "|---|---|"]
    lines += [f"| {dtype} | {spread(found[dtype], '.0f')} |" for dtype in ("fp32", "bf16", "int8") if dtype in found]
    return "\n".join(lines)


def _speeds(bench: Bench, workload: Workload) -> str:
    rows = []
    for spec in ENGINES:
        records = _times(bench, spec, workload.name)
        if not records or spec.only:
            continue
        seconds = [_seconds(record) for record in records]
        middle = statistics.median(seconds)
        cells = [
            spec.name,
            spread(seconds, ".3f"),
            f"{workload.tokens / middle:.0f}",
            spread(_ratios(bench, spec, workload.name, BY_NAME[REFERENCE])),
            spread(_shares(bench, spec, workload)),
            str(len(records)),
        ]
        rows.append((middle, spec.name, f"| {' | '.join(cells)} |"))
    # Beside nobody the reference says nothing: the others were measured before they changed.
    if all(name == REFERENCE for _, name, _ in rows):
        return ""
    head = [f"### {workload.title} ({workload.tokens} tokens)", ""]
    head += [
        f"| engine | s | tokens/s | × {REFERENCE} | of its precision's peak | rounds |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join(head + [row for _, _, row in sorted(rows)])


def _query(bench: Bench) -> str:
    lines = []
    for spec in ENGINES:
        bare = BY_NAME.get(f"bare products {spec.dtype}")
        if spec.module != "packed" or bare is None:
            continue
        ratios = [1 / ratio for ratio in _ratios(bench, spec, "query", bare)]
        if not ratios:
            continue
        mine, least = ([1000 * _seconds(r) for r in _times(bench, one, "query")] for one in (spec, bare))
        lines.append(f"| {spec.name} | {spread(mine, '.1f')} | {spread(least, '.1f')} | {spread(ratios)} |")
    if not lines:
        return ""
    head = ["### One query against its bare matrix products", ""]
    head += ["| engine | ms, p50 | bare products, ms | ÷ bare products |", "|---|---|---|---|"]
    return "\n".join(head + lines)


def _results(bench: Bench, texts: str, queries: str) -> str:
    want = [bench.saved(REFERENCE, name) for name in (texts, queries)]
    if not all(path.is_file() for path in want):
        return ""
    theirs = [quality.load(path) for path in want]
    lines = []
    for spec in ENGINES:
        if spec.name != REFERENCE and all(bench.current("saved", spec, workload=name) for name in (texts, queries)):
            mine = [quality.load(bench.saved(spec.name, name)) for name in (texts, queries)]
            lines.append(_distance(spec.name, quality.distance(mine[0], theirs[0], mine[1], theirs[1])))
    title = f"### Results against {REFERENCE}: {WORKLOADS_BY_NAME[texts].title}"
    return _distances(title if texts == queries else f"{title}, and 8 queries", lines)


def _trained(bench: Bench) -> str:
    base = BY_NAME["trivet fp32"]
    if not bench.current("saved", base, workload="real"):
        return ""
    want = quality.load(bench.saved(base.name, "real"))
    lines = [
        _distance(spec.name, quality.distance(got, want, got, want))
        for spec in ENGINES
        if spec.module == "packed" and spec is not base and bench.current("saved", spec, workload="real")
        for got in [quality.load(bench.saved(spec.name, "real"))]
    ]
    return _distances("### Results against fp32 on the embedded, trained model, texts in ten scripts", lines)


def _distance(name: str, found: quality.Distance) -> str:
    def show(value: float | None, form: str = ".1e") -> str:
        return _NONE if value is None else format(value, form)

    return (
        f"| {name} | {found.dense_cosine_min:.6f} | {show(found.dense_max)} | {show(found.sparse_max)} "
        f"| {show(found.jaccard, '.4f')} | {show(found.colbert_max)} | {show(found.maxsim_max)} |"
    )


def _distances(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    head = [title, "", "| engine | dense cosine, least | dense, max abs | sparse, max abs | shared terms |"]
    head[-1] += " ColBERT, max abs | MaxSim, max deviation |"
    return "\n".join([*head, "|---|---|---|---|---|---|---|", *lines])


def _computed(bench: Bench) -> str:
    found = [(spec, record) for spec in ENGINES for record in bench.current("rows", spec)[-1:]]
    if not found:
        return ""
    lines = [
        "### Computed ÷ real tokens, the mixed texts",
        "",
        "| engine | computed tokens | ÷ real |",
        "|---|---|---|",
    ]
    lines += [f"| {s.name} | {r['rows']:.0f} | {r['rows'] / r['tokens']:.3f} |" for s, r in found]
    return "\n".join([*lines, "", "Counted: the rows of the matrix products that torch dispatches."])


def _memory(bench: Bench) -> str:
    lines = []
    for spec in ENGINES:
        load = bench.current("load", spec)[-1:]
        built = bench.records.find("built", engine=spec.name, model="24")[-1:]
        full = [r for w in ("uniform", "mixed") for r in _times(bench, spec, w)[:1]]
        if spec.only or not (load or full):
            continue
        peak = max((r["private"] for r in full), default=0)
        cells = [
            str(peak) if peak else _NONE,
            str(max(r["resident"] for r in full)) if full else _NONE,
            *_of(load, lambda r: str(r["private"])),
            *_of(load, lambda r: f"{r['warm']:.1f}"),
            *_of(load, lambda r: f"{r['cold']:.1f} ({100 * r['left_in_cache']:.0f} %)"),
            *_of(built, lambda r: f"{r['seconds']:.0f} s, {r['private']} MiB"),
        ]
        lines.append(f"| {spec.name} | {' | '.join(cells)} |")
    if not lines:
        return ""
    head = [
        "### Memory (MiB) and loading, 24 layers",
        "",
        "| engine | private, peak | resident, peak | private, loaded |",
    ]
    head[-1] += " load warm, s | load cold, s (of its files still in memory) | converted first, in |"
    note = (
        "Private: anonymous resident memory (`RssAnon`), sampled every 50 ms while loading and over the uniform and "
        "the mixed texts. Resident: `VmHWM`, which counts mapped weight files too; processes share those."
    )
    return "\n".join([*head, "|---|---|---|---|---|---|---|", *lines, "", note])


def _of(records: Sequence[Record], show: Callable[[Record], str]) -> list[str]:
    return [show(records[-1]) if records else _NONE]


def _absent(bench: Bench) -> str:
    lines = []
    for spec in ENGINES:
        lines += [
            f"- {spec.name} ({last['what']}): {last['reason']}"
            for last in bench.current("failed", spec)[-1:]
            if not _done_since(bench, spec, last)
        ]
    return "\n".join(["### Not measured, and why", "", *lines]) if lines else ""


def _done_since(bench: Bench, spec: Spec, failed: Record) -> bool:
    """Whether what failed has a figure by now."""
    what = failed["what"]
    if what == "setup":
        done = bench.current("time", spec)
        return any(WORKLOADS_BY_NAME[record["workload"]].model == failed["model"] for record in done)
    if what in WORKLOADS_BY_NAME:
        return any(bench.current(kind, spec, workload=what) for kind in ("time", "saved"))
    return bool(bench.current(what, spec))


def _notes() -> str:
    lines = [f"- {spec.name}: {spec.note}." for spec in ENGINES if spec.note]
    return "\n".join(["### What ran", "", *lines])
