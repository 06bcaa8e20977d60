"""Measure ways to run the encoder on this machine, in real processes, and choose one.

First every dtype in every layout (processes × threads) at one budget, then budgets with the dtype and layout that won.
All ways of a step are alive at once and take turns, round by round, each round beginning with another one: a machine
that slows down meanwhile slows all of them. What counts is the median over the rounds.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import accumulate

from trivet import machine
from trivet.clock import Clock
from trivet.encoder.batching import pack
from trivet.encoder.models import FAKE, resolve
from trivet.errors import InvalidRequest, StartFailed
from trivet.settings import Settings
from trivet.supervisor.workers import default_embed_workers
from trivet.tuning import Figure, Tuning, on_gpu, place
from trivet.tuning.child import Loaded, Order
from trivet.tuning.children import Child

Progress = Callable[[str], None]

#: Tokens of one forward pass that are tried, without and with a GPU.
BUDGETS = {False: (512, 1024, 2048, 4096, 8192), True: (4096, 8192, 16384, 32768, 65536, 131072)}
#: The most precise first. fp16 on a CPU runs at a tenth of the speed, and int8 is not to be had on a GPU.
_DTYPES = {False: ("fp32", "bf16", "int8"), True: ("fp32", "fp16", "bf16")}
#: Chunks as prepare makes them: around 400 tokens, at most 512 (log-normal, by the standard deviation of the log).
_CHUNK_TOKENS, _CHUNK_SPREAD, _CHUNK_MOST = 400, 0.35, 512
#: Ways that are closer than this, or than what rounds differ by, cannot be told apart.
_TIE = 0.03
#: Rounds that differ by more say that something else runs on the machine.
_NOISY = 0.1
_FEWEST_ROUNDS, _MOST_ROUNDS = 3, 15
_ROUND_TOKENS = {False: 2048, True: 131072}
#: Each holds weights of its own.
_MOST_PROCESSES = 16
#: Share of the free memory that may be taken.
_MEMORY_SHARE = 0.8
#: Share of the time that goes into dtypes and layouts.
_FIRST_STEP = 0.5


@dataclass(frozen=True)
class Way:
    """One way to run the encoder."""

    dtype: str
    processes: int
    threads: int
    forward_tokens: int

    def __str__(self) -> str:
        return f"{self.dtype}, {self.processes} × {self.threads} threads, {self.forward_tokens} tokens"


@dataclass
class _Bench:
    """What all measurements of one run share."""

    settings: Settings
    lengths: Sequence[int]
    clock: Clock
    stack: ExitStack
    progress: Progress
    children: dict[str, list[Child]] = field(default_factory=dict)
    loaded: dict[str, Loaded] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def load(self, dtypes: Iterable[str]) -> None:
        """A first process of each dtype; one that does not load is left out. Raises `StartFailed` if none does."""
        first = {dtype: self._child(dtype) for dtype in dtypes}
        refused: list[StartFailed] = []
        for dtype, child in first.items():
            try:
                self.loaded[dtype] = child.loaded()
            except StartFailed as error:
                refused.append(error)
                self.notes.append(f"{dtype} was not measured: {error}")
            else:
                self.children[dtype] = [child]
        if not self.loaded:
            raise refused[0]

    def load_more(self, processes: int) -> None:
        """So many of each dtype in all."""
        for dtype, children in self.children.items():
            more = [self._child(dtype) for _ in range(processes - len(children))]
            children += more
            for child in more:
                child.loaded()

    def measure(self, ways: Sequence[Way], seconds: float, *, whole_batches: bool) -> dict[Way, list[float]]:
        """Tokens/s by way and round: at least three rounds, and more until `seconds` are over.

        In a round every process of a way computes up to `_ROUND_TOKENS`, less where the machine is too slow for that;
        with `whole_batches` at least one full batch. Before them comes a short round that does not count: kernels are
        compiled in it. A way that runs out of memory is left out.
        """
        tokens, most = min(BUDGETS[on_gpu(self.settings)]), _ROUND_TOKENS[on_gpu(self.settings)]
        rates: dict[Way, list[float]] = {way: [] for way in ways}
        begin, end = self.clock.monotonic(), math.inf
        for number in range(_MOST_ROUNDS + 1):
            if number > _FEWEST_ROUNDS and self.clock.monotonic() >= end:
                break
            turn = number % len(ways)
            for way in filter(rates.__contains__, [*ways[turn:], *ways[:turn]]):
                rate = self._rate(way, max(tokens, way.forward_tokens) if number and whole_batches else tokens)
                if rate is None:
                    del rates[way]
                    self.notes.append(f"{way} was left out: no memory for it.")
                elif number > 0:
                    rates[way].append(rate)
            if number == 0:
                end = self.clock.monotonic() + seconds
                affordable = tokens * seconds / _FEWEST_ROUNDS / (self.clock.monotonic() - begin)
                tokens = min(max(tokens, int(affordable)), most)
        return rates

    def _rate(self, way: Way, tokens: int) -> float | None:
        # Never over: a text more than fits into a batch would be a batch of its own.
        sums = list(accumulate(self.lengths))
        count = max(1, sum(end <= tokens for end in sums))
        batches = pack(self.lengths[:count], way.forward_tokens, padded=self.loaded[way.dtype].padded)
        order = Order(threads=way.threads, batches=tuple(map(tuple, batches)))
        running = self.children[way.dtype][: way.processes]
        for child in running:
            child.start(order)
        took = [child.seconds() for child in running]
        slowest = max((one if one is not None else math.inf) for one in took)
        return None if math.isinf(slowest) else sums[count - 1] * len(running) / slowest

    def _child(self, dtype: str) -> Child:
        return self.stack.enter_context(Child(self.settings, dtype, self.lengths))


def tune(settings: Settings, *, seconds: float, allow_int8: bool, clock: Clock, progress: Progress) -> Tuning:
    """Measure the model that embed workers serve for about `seconds`, loading aside, and choose.

    A dtype that the settings name is the only one that can be chosen. int8 can be only with `allow_int8`, and within
    its tolerance. Raises what `trivet.encoder.models.resolve` raises, and `StartFailed` where no encoder loads.
    """
    model = resolve(settings, settings.embed_model).identity
    if model.name == FAKE:
        raise InvalidRequest("The fake encoder has no speed to be measured.")
    if settings.dtype not in ("auto", *_DTYPES[on_gpu(settings)]):
        raise InvalidRequest(f"Setting TRIVET_DTYPE is {settings.dtype!r}, which is not measured on this device.")
    here = place(settings)
    with ExitStack() as stack:
        lengths = chunk_lengths(max(BUDGETS[on_gpu(settings)]), min(_CHUNK_MOST, model.max_tokens))
        bench = _Bench(settings, lengths, clock, stack, progress)
        progress("Loading an encoder of each dtype")
        bench.load(_DTYPES[on_gpu(settings)])
        layouts = _layouts(settings, bench)
        bench.load_more(max(processes for processes, _ in layouts))
        start = next(iter(bench.loaded.values())).pass_tokens
        progress(f"Measuring {', '.join(bench.loaded)} in {len(layouts)} layouts")
        ways = [Way(dtype, *layout, start) for dtype in bench.loaded for layout in layouts]
        figures = _figures(bench.measure(ways, seconds * _FIRST_STEP, whole_batches=False))
        default = (next(iter(bench.loaded.values())).default_dtype, *_default_layout(settings))
        best = _choose(figures, _eligible(settings, bench, allow_int8=allow_int8), default)
        progress(f"Measuring budgets with {best.dtype}, {best.processes} × {best.threads} threads")
        tried = _budgets(best, BUDGETS[on_gpu(settings)], seconds * (1 - _FIRST_STEP), bench.notes)
        ways = [Way(best.dtype, best.processes, best.threads, budget) for budget in tried]
        budgets = _figures(bench.measure(ways, seconds * (1 - _FIRST_STEP), whole_batches=True))
    chosen = first_of_best(sorted(budgets, key=lambda figure: (figure.forward_tokens != start, figure.forward_tokens)))
    if (noise := spread((*figures, *budgets))) > _NOISY:
        bench.notes.append(f"Rounds differ by ±{noise:.0%}: something else runs here. Measure again when nothing does.")
    return Tuning(
        place=here,
        model=model.name,
        measured_at=datetime.fromtimestamp(clock.now(), UTC).isoformat(timespec="seconds"),
        dtype=chosen.dtype,
        processes=chosen.processes,
        threads=chosen.threads,
        forward_tokens=chosen.forward_tokens,
        figures=figures,
        budgets=budgets,
        default=next((f for f in figures if (f.dtype, f.processes, f.threads) == default), None),
        notes=tuple(bench.notes),
    )


def chunk_lengths(total: int, most: int) -> list[int]:
    """Tokens of as many chunks as have at least `total` together; the same ones on every machine."""
    chance = random.Random(0)
    lengths: list[int] = []
    while sum(lengths) < total:
        drawn = round(chance.lognormvariate(math.log(_CHUNK_TOKENS), _CHUNK_SPREAD))
        lengths.append(min(max(drawn, 16), most))
    return lengths


def _layouts(settings: Settings, bench: _Bench) -> list[tuple[int, int]]:
    """(processes, threads): one process with all cores, one per core with one thread, and some between.

    As many as have room: all dtypes are alive at once, so that they can take turns.
    """
    cores = machine.cores()
    if on_gpu(settings):
        return [(1, cores)]
    counts = sorted({1, 2, 4, min(cores, _MOST_PROCESSES)} & set(range(1, cores + 1)))
    each = sum(loaded.private_bytes for loaded in bench.loaded.values())
    room = 1 + int(_MEMORY_SHARE * machine.free_memory() / each)
    bench.notes += [f"{count} processes were not measured: no memory for them." for count in counts if count > room]
    return [(count, max(1, cores // count)) for count in counts if count <= room]


def _default_layout(settings: Settings) -> tuple[int, int]:
    processes = 1 if on_gpu(settings) else default_embed_workers(settings)
    return processes, max(1, machine.cores() // processes)


def _eligible(settings: Settings, bench: _Bench, *, allow_int8: bool) -> list[str]:
    """Dtypes that may be chosen, the most precise first."""
    if settings.dtype != "auto":
        if settings.dtype not in bench.loaded:
            raise InvalidRequest(f"Setting TRIVET_DTYPE is {settings.dtype!r}, which was not measured here.")
        if (missed := bench.loaded[settings.dtype].missed) and not settings.force_dtype:
            raise InvalidRequest(
                f"{settings.dtype} is outside of its tolerance on this model: {'; '.join(missed)}.",
                hint="Set TRIVET_DTYPE=auto, or TRIVET_FORCE_DTYPE=true.",
            )
        return [settings.dtype]
    found = []
    for dtype, loaded in bench.loaded.items():
        if loaded.missed:
            bench.notes.append(f"{dtype} cannot be chosen: {'; '.join(loaded.missed)}.")
        elif dtype == "int8" and not allow_int8:
            bench.notes.append("int8 can be chosen with --allow-int8 alone: it loses more than the others.")
        else:
            found.append(dtype)
    return found


def _budgets(best: Figure, budgets: Sequence[int], seconds: float, notes: list[str]) -> list[int]:
    """Of `budgets` those that can be measured often enough in `seconds`; the smaller ones always."""
    tried: list[int] = []
    spent = 0.0
    for budget in budgets:
        spent += _FEWEST_ROUNDS * budget * best.processes / best.tokens_per_second
        if budget > best.forward_tokens and spent > seconds:
            notes.append(f"Budgets from {budget} tokens on were not measured: too long; give more --seconds.")
            break
        tried.append(budget)
    return tried


def _figures(rates: dict[Way, list[float]]) -> tuple[Figure, ...]:
    return tuple(
        Figure(
            dtype=way.dtype,
            processes=way.processes,
            threads=way.threads,
            forward_tokens=way.forward_tokens,
            tokens_per_second=statistics.median(found),
            rounds=tuple(found),
        )
        for way, found in rates.items()
    )


def _choose(figures: Sequence[Figure], eligible: Sequence[str], default: tuple[str, int, int]) -> Figure:
    """The best dtype and layout; of those that tie the built-in one, then the more precise, then fewer processes."""

    def place_of(figure: Figure) -> tuple[bool, int, int]:
        built_in = (figure.dtype, figure.processes, figure.threads) == default
        return not built_in, eligible.index(figure.dtype), figure.processes

    return first_of_best(sorted((figure for figure in figures if figure.dtype in eligible), key=place_of))


def first_of_best(figures: Sequence[Figure]) -> Figure:
    """The first that cannot be told from the fastest."""
    if not figures:
        raise StartFailed("Nothing could be measured: every way ran out of memory.")
    least = max(figure.tokens_per_second for figure in figures) * (1 - max(_TIE, spread(figures)))
    return next(figure for figure in figures if figure.tokens_per_second >= least)


def spread(figures: Sequence[Figure]) -> float:
    """How far rounds of one way lie from its median: half of their range ÷ median, for the median of all ways."""
    return statistics.median((max(f.rounds) - min(f.rounds)) / 2 / f.tokens_per_second for f in figures)
