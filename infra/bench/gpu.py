"""Measure the encoder on a GPU beside what others run there, and print the tables.

python -m infra.bench.gpu [--rounds 3] [--write]

A random model of bge-m3's size, all engines loaded in one process, one after the other in each round on the same texts,
the peak of bare matrix products right before each. From text to embeddings on the host, tokenisation included.
sentence-transformers and FlagEmbedding take part where they are installed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from infra.bench.encoder.parent import ROOT
from infra.bench.encoder.weights import model_folder
from infra.bench.encoder.workloads import HIDDEN, Workload, flops, texts
from trivet.encoder import Encoder, Legs, load_encoder
from trivet.encoder.batching import pack
from trivet.encoder.models import resolve
from trivet.encoder.numerics import numerics
from trivet.encoder.reference import flag_class
from trivet.encoder.tokenizer import Tokenizer
from trivet.errors import TrivetError
from trivet.settings import Settings

PAGE = ROOT / "docs" / "encoder-gpu.md"
_BEGIN, _END = "<!-- figures begin -->\n", "<!-- figures end -->\n"
_MIXED = (50, 90, 150, 230, 340, 480, 700, 1000)
WORKLOADS = (
    Workload("uniform", "24", (256,) * 512, "512 texts of 256 tokens"),
    Workload("mixed", "24", _MIXED * 40, "320 texts of 50 to 1,000 tokens"),
    Workload("long", "24", (8192,) * 12, "12 texts of 8,192 tokens"),
    Workload("query", "24", (12,), "one query of 12 tokens", repeats=50),
)
#: Rows of the products whose rate is the peak.
_ROWS = 16384
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}

Run = Callable[[Sequence[str]], object]


@dataclass
class Engine:
    """One row of the tables."""

    name: str
    dtype: str
    run: Run
    note: str = ""
    #: Workload → seconds, and share of the peak measured right before, of each round.
    seconds: dict[str, list[float]] = field(default_factory=dict)
    shares: dict[str, list[float]] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all, print all."""
    parser = argparse.ArgumentParser(prog="infra.bench.gpu", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"write the tables into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("torch finds no CUDA device here.", file=sys.stderr)  # noqa: T201 - a command's output
        return 2
    settings = Settings.load().model_copy(update={"device": "cuda"})
    home = (settings.state_dir / "bench" / "models").absolute()
    home.mkdir(parents=True, exist_ok=True)
    folder = model_folder("24", home, (settings.models_folder / "embedded").absolute())
    tokenizer = Tokenizer.load(resolve(settings, str(folder)))
    works = {work.name: (work, texts(work, tokenizer.backend)) for work in WORKLOADS}
    encoders = {dtype: _loaded(settings, folder, "cuda", dtype) for dtype in _DTYPES}
    engines = [*_engines(settings, folder, tokenizer, encoders)]
    for number in range(options.rounds):
        for work, made in works.values():
            for engine in engines[number % len(engines) :] + engines[: number % len(engines)]:
                _measure(engine, work, made)
    text = _page(engines, encoders, _errors(encoders, tokenizer, works["mixed"][1][:8] + works["query"][1]))
    print(text)  # noqa: T201 - a command's output
    if options.write:
        head, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
        PAGE.write_text(head + _BEGIN + text + _END + rest.partition(_END)[2], encoding="utf-8")
    return 0


def _loaded(settings: Settings, folder: Path, backend: str, dtype: str) -> Encoder:
    begin = time.perf_counter()
    encoder = load_encoder(settings, str(folder), backend=backend, dtype=dtype)
    seconds = time.perf_counter() - begin
    print(f"{encoder.passport.backend} {dtype}: loaded in {seconds:.1f} s", flush=True)  # noqa: T201 - as above
    return encoder


def _engines(settings: Settings, folder: Path, tokenizer: Tokenizer, encoders: dict[str, Encoder]) -> Sequence[Engine]:
    made = [
        Engine(f"trivet {dtype}", dtype, partial(_overlapping, encoder, tokenizer))
        for dtype, encoder in encoders.items()
    ]
    plain = _loaded(settings, folder, "transformers", "fp16")
    note = "Trivet's backend `transformers`: sdpa, texts sorted by length, 16,384 padded tokens per batch"
    made.append(Engine("transformers fp16", "fp16", partial(_overlapping, plain, tokenizer), note))
    for peer in (_flag, _sentences):
        try:
            made.append(peer(folder))
        except (ImportError, TrivetError) as error:
            print(f"{peer.__name__.strip('_')} takes no part: {error}", flush=True)  # noqa: T201 - a command's output
    return made


def _overlapping(encoder: Encoder, tokenizer: Tokenizer, made: Sequence[str]) -> list[Legs]:
    """As an embed worker does it: a batch is started before the last one is read."""
    rows = tokenizer.encode(made, "passage")
    pending, legs = [], []
    for batch in pack([len(row) for row in rows], encoder.pass_tokens, padded=encoder.padded):
        pending.append(encoder.start([rows[i] for i in batch]))
        if len(pending) > 1:
            legs.append(pending.pop(0).legs())
    return [*legs, *(left.legs() for left in pending)]


def _flag(folder: Path) -> Engine:
    model = flag_class()(str(folder), use_fp16=True, devices="cuda:0")

    def run(made: Sequence[str]) -> object:
        # One whole batch draws no progress bar; 8,192 tokens need a smaller one.
        size = 4 if max(map(len, made)) > 20_000 else 256
        return model.encode(
            list(made),
            batch_size=size,
            max_length=8192,
            return_dense=True,
            return_sparse=True,
            return_colbert_vecs=True,
        )

    note = "`BGEM3FlagModel(use_fp16=True)`, its default batch of 256 texts, 4 of 8,192 tokens"
    return Engine("FlagEmbedding fp16", "fp16", run, note)


def _sentences(folder: Path) -> Engine:
    from sentence_transformers import SentenceTransformer

    model: Any = SentenceTransformer(str(folder), device="cuda", model_kwargs={"dtype": torch.float16})
    model.max_seq_length = 8192

    def run(made: Sequence[str]) -> object:
        return model.encode(list(made), batch_size=4 if max(map(len, made)) > 20_000 else 64, show_progress_bar=False)

    note = "dense only; batches of 64 texts, 4 of 8,192 tokens, sorted by length"
    return Engine("sentence-transformers fp16", "fp16", run, note)


def _measure(engine: Engine, work: Workload, made: Sequence[str]) -> None:
    try:
        engine.run(made)  # kernels are chosen and memory is taken
        peak = _peak(engine.dtype)
        seconds = statistics.median(_timed(engine.run, made) for _ in range(work.repeats))
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return
    engine.seconds.setdefault(work.name, []).append(seconds)
    engine.shares.setdefault(work.name, []).append(flops(work.lengths, 24) / seconds / peak)
    print(f"{work.name}, {engine.name}: {seconds:.4f} s", flush=True)  # noqa: T201 - a command's output


def _timed(run: Run, made: Sequence[str]) -> float:
    torch.cuda.synchronize()
    begin = time.perf_counter()
    run(made)
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def _peak(dtype: str) -> float:
    """FLOP/s of a layer's four products alone."""
    shapes = ((3 * HIDDEN, HIDDEN), (HIDDEN, HIDDEN), (4 * HIDDEN, HIDDEN), (HIDDEN, 4 * HIDDEN))
    kind = _DTYPES[dtype]
    inputs = {width: torch.randn((_ROWS, width), device="cuda", dtype=kind) for width in (HIDDEN, 4 * HIDDEN)}
    weights = [torch.randn(shape, device="cuda", dtype=kind) / shape[1] ** 0.5 for shape in shapes]

    def products(_made: Sequence[str]) -> None:
        for _ in range(4):
            for weight in weights:
                functional.linear(inputs[weight.shape[1]], weight)

    products(())
    return 4 * 24 * HIDDEN**2 * _ROWS / statistics.median(_timed(products, ()) for _ in range(5))


def _errors(encoders: dict[str, Encoder], tokenizer: Tokenizer, made: Sequence[str]) -> dict[str, str]:
    rows = tokenizer.encode(made, "passage")
    exact = encoders["fp32"].encode(rows, colbert_fp32=True)
    found = {}
    for dtype in ("fp16", "bf16"):
        lost = numerics(encoders[dtype].encode(rows, colbert_fp32=True), exact)
        found[dtype] = f"{lost.dense_cosine_min:.6f} | {lost.maxsim_gap:.5f} | {lost.sparse_weight_gap:.5f}"
    return found


def _page(engines: Sequence[Engine], encoders: dict[str, Encoder], errors: dict[str, str]) -> str:
    lines = [f"{torch.cuda.get_device_name()}, torch {torch.__version__}; {encoders['fp16'].passport.backend}.", ""]
    for work in WORKLOADS:
        lines += [
            f"### 24 layers, {work.title}",
            "",
            "| engine | seconds | tokens/s | share of peak | speed ÷ trivet fp16's |",
        ]
        lines += ["|---|---|---|---|---|"]
        ours = statistics.median(engines[0].seconds[work.name])
        for engine in (engine for engine in engines if work.name in engine.seconds):
            seconds = statistics.median(engine.seconds[work.name])
            share = statistics.median(engine.shares[work.name])
            cells = (f"{seconds:.4f}", f"{work.tokens / seconds:,.0f}", f"{share:.2f}", f"{ours / seconds:.2f}")
            lines.append(f"| {engine.name} | {' | '.join(cells)} |")
        lines.append("")
    lines += ["| against fp32 | dense cosine, least | MaxSim, most | sparse weight, most |", "|---|---|---|---|"]
    lines += [f"| {dtype} | {cells} |" for dtype, cells in errors.items()]
    lines += ["", *(f"- {engine.name}: {engine.note}." for engine in engines if engine.note), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
