"""This side of an engine's process: start, ask, end; and who may stay in memory."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from infra.bench.encoder import memory
from infra.bench.encoder.engines import Spec

ROOT = Path(__file__).parents[3]
#: An engine that does not answer in so long is given up.
_PATIENCE = 1800.0
#: Kept free for the engine that is being loaded (the largest is built in 10 GB, and loaded in 4).
_FREE_MIB = 6 << 10


class EngineFailed(Exception):
    """An engine could not be had or did not answer; the message is the reason in one line."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an engine's process runs and what it is given."""

    python: Path
    folder: Path
    built: Path
    log: Path


class Process:
    """A child that has loaded its model."""

    def __init__(self, spec: Spec, place: Place, what: str = "run") -> None:
        """Start it and wait until it is loaded. Raises `EngineFailed`."""
        place.log.parent.mkdir(parents=True, exist_ok=True)
        cores = str(os.cpu_count() or 1)
        env = {**os.environ, "OMP_NUM_THREADS": cores, "TOKENIZERS_PARALLELISM": "true", "HF_HUB_OFFLINE": "1"}
        start = time.perf_counter()
        with place.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, with our own arguments
                [place.python, "-m", "infra.bench.encoder.child", what, spec.name, place.folder, place.built],
                cwd=ROOT,
                env={**env, "PYTHONUNBUFFERED": "1", **dict(spec.env)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self._log = place.log
        self._watch = memory.Watch(self._process.pid)
        try:
            self._answer()
        except EngineFailed:
            self.close()
            raise
        #: From the start of the process to the first text that it would take.
        self.load_seconds = time.perf_counter() - start

    def ask(self, do: str, **what: Any) -> dict[str, Any]:
        """Send one command and wait for its answer. Raises `EngineFailed`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **what}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise EngineFailed(self._last_words()) from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], _PATIENCE)[0]:
            raise EngineFailed(f"No answer within {_PATIENCE:.0f} s.")
        line = self._process.stdout.readline()
        if not line:
            raise EngineFailed(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise EngineFailed(answer["failed"])
        return answer

    def _last_words(self) -> str:
        status = self._process.wait()
        lines = self._log.read_text(errors="replace").strip().splitlines() or [""]
        return f"Its process ended with status {status}: {lines[-1][:200]}"

    @property
    def private_peak(self) -> int:
        """MiB of private memory at the highest."""
        return max(self._watch.peak, memory.private_mib(self._process.pid))

    @property
    def resident_peak(self) -> int:
        """MiB of resident memory at the highest, mapped files included."""
        return memory.peak_mib(self._process.pid)

    def close(self) -> None:
        """End it."""
        self._watch.close()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Pool:
    """Loaded engines, as many as memory holds.

    They are used in turn, so the one that was used last is the one that is needed last: it goes first.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, Path], Process] = {}

    def get(self, spec: Spec, place: Place, beside: Process | None = None) -> Process:
        """The engine for that model, loaded; `beside` is not ended for it. Raises `EngineFailed`."""
        key = (spec.name, place.folder)
        process = self._held.pop(key, None)
        if process is None:
            while memory.available_mib() < _FREE_MIB:
                last = next((held for held in reversed(self._held) if self._held[held] is not beside), None)
                if last is None:
                    break
                self._held.pop(last).close()
            process = Process(spec, place)
        self._held[key] = process
        return process

    def drop(self, spec: Spec, place: Place) -> None:
        """End one, if it runs."""
        process = self._held.pop((spec.name, place.folder), None)
        if process is not None:
            process.close()

    def close(self) -> None:
        """End all."""
        while self._held:
            self._held.popitem()[1].close()
