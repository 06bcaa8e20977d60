"""The process of one engine: loads it, answers commands, one line of JSON each, until its input ends.

`python -m infra.bench.encoder.child run|build ENGINE FOLDER BUILT`. Runs in the peer's own environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from infra.bench.encoder.engines import BY_NAME, GEMM, Engine

#: A first pass shorter than this is a warm-up and does not count; in a longer one, warming up is a small part.
_WARM_SECONDS = 6.0
_PR_SET_PDEATHSIG = 1


class Answers:
    """What a loaded engine can be asked."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._warm: set[str] = set()
        self._last: dict[str, Any] = {}

    def run(self, texts: str, seconds: float, repeats: int) -> dict[str, Any]:
        """Seconds of each pass over the texts in that file, until `seconds` are spent or `repeats` are done."""
        given = _texts(texts)
        self._last.clear()
        spent: list[float] = []
        while len(spent) < repeats and sum(spent) < seconds:
            start = time.perf_counter()
            made = self._engine.encode(given)
            took = time.perf_counter() - start
            if texts not in self._warm and took < _WARM_SECONDS:
                self._warm.add(texts)
                continue
            spent.append(took)
        self._last[texts] = made
        return {"seconds": spent}

    def save(self, texts: str, path: str) -> dict[str, Any]:
        """The results for these texts as a file of arrays; of the last pass, where there was one that keeps fp32."""
        if hasattr(self._engine, "colbert_fp32"):
            self._engine.colbert_fp32 = True
            made = self._engine.encode(_texts(texts))
            self._engine.colbert_fp32 = False
        else:
            made = self._last[texts] if texts in self._last else self._engine.encode(_texts(texts))
        np.savez(path, **self._engine.arrays(made))  # type: ignore[arg-type]  # its stub takes no mapping
        return {}

    def forget(self) -> dict[str, Any]:
        """Let go of results that were kept."""
        self._last.clear()
        return {}

    def rows(self, texts: str, wide: int, layers: int) -> dict[str, Any]:
        """Tokens that are computed for these texts: rows of each layer's product that is `wide` columns wide."""
        from infra.bench.encoder.counting import counted_rows

        return {"rows": counted_rows(lambda: self._engine.encode(_texts(texts)), wide) / layers}


def peak(dtype: str, seconds: float) -> dict[str, Any]:
    """GFLOP/s of the matrix product that engines are held against."""
    from infra.bench.encoder.engines import gemm

    return {"gflops": gemm.peak(dtype, seconds)}


def main(what: str, name: str, folder: str, built: str) -> None:
    """Build, or load and serve."""
    _give_way()
    replies = os.fdopen(os.dup(1), "w")
    # Libraries print as they like: only replies may reach the pipe.
    os.dup2(2, 1)
    spec = BY_NAME[name]
    try:
        module = import_module(f"infra.bench.encoder.engines.{spec.module}")
        if what == "build":
            module.build(Path(folder), spec.variant, Path(built))
            _reply(replies, {})
            return
        answers = Answers(module.load(Path(folder), spec.variant, Path(built)))
    except BaseException as error:
        _reply(replies, _failure(error))
        raise
    _reply(replies, {})
    commands: dict[str, Callable[..., dict[str, Any]]] = {
        "run": answers.run,
        "save": answers.save,
        "rows": answers.rows,
        "forget": answers.forget,
    }
    if name == GEMM:
        commands = {"peak": peak}
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = commands[asked.pop("do")](**asked)
        except Exception as error:  # noqa: BLE001 - a peer's error is a figure too: the reason why it has none
            answer = _failure(error)
        _reply(replies, answer)


def _texts(path: str) -> list[str]:
    found: list[str] = json.loads(Path(path).read_text(encoding="utf-8"))
    return found


def _failure(error: BaseException) -> dict[str, Any]:
    words = " ".join(str(error).split()) or type(error).__name__
    return {"failed": f"{type(error).__name__}: {words[:300]}"}


def _reply(replies: TextIO, answer: dict[str, Any]) -> None:
    replies.write(json.dumps(answer) + "\n")
    replies.flush()


def _give_way() -> None:
    """Die with the benchmark, so that no gigabytes outlive it, and before it, where memory ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main(*sys.argv[1:])
