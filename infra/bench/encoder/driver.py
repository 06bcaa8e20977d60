"""Runs the engines in turn and keeps what they took: who is where in a round, and what is still to be measured."""

from __future__ import annotations

import statistics
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tokenizers import Tokenizer

from infra.bench.encoder import memory
from infra.bench.encoder.engines import BY_NAME, PEAK, REFERENCE, Spec
from infra.bench.encoder.parent import EngineFailed, Place, Pool, Process
from infra.bench.encoder.records import Record, Records
from infra.bench.encoder.venvs import NotInstalled, python_of
from infra.bench.encoder.versions import version_of
from infra.bench.encoder.weights import MODELS, model_folder
from infra.bench.encoder.workloads import BY_NAME as WORKLOADS
from infra.bench.encoder.workloads import HIDDEN, Workload, write_texts

#: Who takes longer is measured in one round alone.
_SLOW_SECONDS = 20.0
_PEAK_SECONDS = 0.4
#: The model whose loading and memory are measured.
_FULL = "24"
#: Engines whose products torch dispatches in the thread that calls them, so that their rows can be counted.
_COUNTED = ("packed", "flag", "sentences", "plain")


class Bench:
    """One run over chosen engines and workloads."""

    def __init__(self, home: Path, embedded: Path, engines: Sequence[Spec]) -> None:
        self.records = Records(home / "encoder" / "records.jsonl")
        self._home, self._embedded = home, embedded
        self._engines = engines
        self._pool = Pool()
        #: Engines that failed in this run, with the model they failed on: not asked again.
        self._failed: set[tuple[str, str]] = set()

    # What there must be before anything is measured.

    def place(self, spec: Spec, model: str) -> Place:
        """Environment, weights and built files of an engine, made where they are missing. Raises `EngineFailed`."""
        folder = model_folder(model, self._home / "models", self._embedded)
        try:
            python = python_of(spec.venv, self._home / "venvs")
        except NotInstalled as error:
            raise EngineFailed(f"It does not install: {error}") from error
        name = spec.name.replace(" ", "-").lower()
        state = "trivet" if spec.module == "packed" else name
        built = self._home / "encoder" / "built" / state / ("" if state == "trivet" else model)
        built.mkdir(parents=True, exist_ok=True)
        place = Place(python, folder, built, self._home / "encoder" / "logs" / f"{name}.log")
        mark = built / f".built-{version_of(spec)}"
        if spec.converts and not mark.is_file():
            _say(f"{spec.name}: converting the model of {MODELS[model]} layers")
            with Process(spec, place, "build") as process:
                peak, seconds = process.private_peak, process.load_seconds
            mark.touch()
            self.records.add("built", engine=spec.name, model=model, seconds=seconds, private=peak)
        return place

    def _texts(self, workload: Workload) -> str:
        folder = model_folder(workload.model, self._home / "models", self._embedded)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        path = self._home / "encoder" / "texts" / f"{workload.name}.json"
        return str(write_texts(workload, tokenizer, path).absolute())

    # The figures.

    def loads(self) -> None:
        """Seconds to load the full model, its files out of the page cache and in it, and memory right after.

        After the rounds: what an engine caches at its first load is there.
        """
        for spec in self._of(_FULL):
            if self._known("load", spec) or spec.only:
                continue
            with self._noted(spec, _FULL, "load"):
                place = self.place(spec, _FULL)
                files = [path for folder in (place.folder, place.built) for path in folder.rglob("*") if path.is_file()]
                left = memory.drop_from_cache(files)
                with Process(spec, place) as process:
                    cold = process.load_seconds
                with Process(spec, place) as process:
                    self.records.add(
                        "load",
                        engine=spec.name,
                        version=version_of(spec),
                        cold=cold,
                        left_in_cache=left,
                        warm=process.load_seconds,
                        private=process.private_peak,
                    )
                _say(f"load {spec.name}: cold {cold:.1f} s, warm {process.load_seconds:.1f} s")

    def rounds(self, workloads: Sequence[Workload], count: int) -> None:
        """All workloads in every round, all engines in turn for each."""
        for model in MODELS:
            of_model = [workload for workload in workloads if workload.model == model and workload.rounds]
            if of_model:
                self._set_up(model)
            for number in range(count):
                for workload in of_model:
                    if number < workload.rounds:
                        self._visit(workload, number)
            self._pool.close()

    def _set_up(self, model: str) -> None:
        """Install and convert before anything is timed, and while nothing is loaded: converting takes up to 10 GB."""
        for spec in self._of(model):
            with self._noted(spec, model, "setup"):
                self.place(spec, model)

    def _visit(self, workload: Workload, number: int) -> None:
        """Every engine that lacks this round, one after the other, and FlagEmbedding with them."""
        due = [spec for spec in self._of(workload.model) if self._due(spec, workload, number)]
        if not due:
            return
        reference = BY_NAME[REFERENCE]
        if reference not in due and not self._is_slow(reference, workload):
            due.append(reference)
        # Another one begins each round, so that nobody always follows the same.
        start = number % len(due)
        visit = uuid.uuid4().hex[:12]
        texts = self._texts(workload)
        for spec in (*due[start:], *due[:start]):
            if (spec.name, workload.model) in self._failed:
                continue
            with self._noted(spec, workload.model, workload.name):
                self._time(spec, workload, number, visit, texts)

    def _time(self, spec: Spec, workload: Workload, number: int, visit: str, texts: str) -> None:
        place = self.place(spec, workload.model)
        if workload.alone:
            self._pool.close()
        peaks = self._pool.get(PEAK, self.place(PEAK, workload.model))
        process = self._pool.get(spec, place, beside=peaks)
        peak = peaks.ask("peak", dtype=spec.dtype, seconds=_PEAK_SECONDS)["gflops"]
        spent = process.ask("run", texts=texts, seconds=workload.seconds, repeats=workload.repeats)["seconds"]
        self.records.add(
            "time",
            engine=spec.name,
            version=version_of(spec),
            workload=workload.name,
            round=number,
            visit=visit,
            seconds=spent,
            peak=peak,
            private=process.private_peak,
            resident=process.resident_peak,
            at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        _say(f"round {number + 1}, {workload.name}, {spec.name}: {statistics.median(spent):.3f} s")
        for name in workload.kept:
            if not self._known("saved", spec, workload=name):
                self._save(spec, process, WORKLOADS[name])

    def _save(self, spec: Spec, process: Process, workload: Workload) -> None:
        path = self.saved(spec.name, workload.name).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        process.ask("save", texts=self._texts(workload), path=str(path))
        process.ask("forget")
        self.records.add("saved", engine=spec.name, version=version_of(spec), workload=workload.name)

    def saved(self, engine: str, workload: str) -> Path:
        """Where an engine's results for a workload are."""
        return self._home / "encoder" / "outputs" / f"{engine.replace(' ', '-').lower()}-{workload}.npz"

    def real(self) -> None:
        """Results of Trivet's precisions on the embedded model, which is trained."""
        for spec in self._of("real"):
            if spec.module == "packed" and not self._known("saved", spec, workload="real"):
                with self._noted(spec, "real", "real"), Process(spec, self.place(spec, "real")) as process:
                    self._save(spec, process, WORKLOADS["real"])

    def rows(self) -> None:
        """Computed tokens of the mixed texts; batching does not ask for layers, so six of them do."""
        mixed = WORKLOADS["mixed"]
        for spec in self._of("6"):
            if spec.module in _COUNTED and not self._known("rows", spec):
                with self._noted(spec, "6", "rows"), Process(spec, self.place(spec, "6")) as process:
                    found = process.ask("rows", texts=self._texts(mixed), wide=4 * HIDDEN, layers=MODELS["6"])
                    self.records.add(
                        "rows", engine=spec.name, version=version_of(spec), rows=found["rows"], tokens=mixed.tokens
                    )

    # What is due.

    def _of(self, model: str) -> list[Spec]:
        return [spec for spec in self._engines if (spec.name, model) not in self._failed]

    def _due(self, spec: Spec, workload: Workload, number: int) -> bool:
        if spec.only and workload.name not in spec.only:
            return False
        if self._known("time", spec, workload=workload.name, round=number):
            return False
        return number == 0 or not self._is_slow(spec, workload)

    def _is_slow(self, spec: Spec, workload: Workload) -> bool:
        """Whether it is measured once alone."""
        if spec.name == REFERENCE and workload.reference:
            return False
        found = self.current("time", spec, workload=workload.name)
        return any(statistics.median(record["seconds"]) > _SLOW_SECONDS for record in found)

    def current(self, kind: str, spec: Spec, **fields: object) -> list[Record]:
        """Records of this engine as it is now."""
        return self.records.find(kind, engine=spec.name, version=version_of(spec), **fields)

    def _known(self, kind: str, spec: Spec, **fields: object) -> bool:
        return bool(self.current(kind, spec, **fields))

    @contextmanager
    def _noted(self, spec: Spec, model: str, what: str) -> Iterator[None]:
        """A failure is a record too, and ends this engine's part on this model."""
        try:
            yield
        except EngineFailed as error:
            self._failed.add((spec.name, model))
            version, reason = version_of(spec), str(error)
            self.records.add("failed", engine=spec.name, version=version, model=model, what=what, reason=reason)
            _say(f"{spec.name} on {what}: {error}")

    def close(self) -> None:
        """End all processes."""
        self._pool.close()


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)  # noqa: T201 - progress of a command
