"""Which worker processes a whole Trivet has, and what each of them is told."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from trivet import machine
from trivet.settings import Settings
from trivet.supervisor.roots import find_root
from trivet.tuning import cards, on_gpu

#: Each holds weights of its own.
_MOST_CPU_ENCODERS = 4


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """One process to keep running. With `ready` it makes the file TRIVET_READY_FILE once it takes work."""

    name: str
    argv: tuple[str, ...]
    cwd: str = "/"
    env: Mapping[str, str] = field(default_factory=dict)
    ready: bool = False


def worker_specs(settings: Settings) -> tuple[WorkerSpec, ...]:
    """A prefork worker for prepare and commit, the embed workers, and one each that sweeps, delivers and searches."""
    root = str(find_root())
    count = default_embed_workers(settings) if settings.embed_workers is None else settings.embed_workers
    # Idle threads that spin take the cores from S3 and Redis beside them (measured: a tenth of the throughput).
    embed_env = {"OMP_WAIT_POLICY": "PASSIVE"}
    if count > 1 and settings.encoder_threads == 0:
        # Several encoders with all cores each are slower than one (measured): share them out.
        embed_env["TRIVET_ENCODER_THREADS"] = str(max(1, machine.cores() // count))

    def spec(name: str, *options: str, env: Mapping[str, str] | None = None) -> WorkerSpec:
        return WorkerSpec(name, (sys.executable, "-m", "workers.main", *options), root, env or {}, ready=True)

    names = machine.gpus() if on_gpu(settings) else ()

    def embed_spec(number: int) -> WorkerSpec:
        # Each computes on the first card that it sees.
        mine = {"CUDA_VISIBLE_DEVICES": names[number % len(names)]} if len(names) > 1 else {}
        name = "embed" if count == 1 else f"embed-{number + 1}"
        return spec(name, "--roles", "embed", env={**embed_env, **mine})

    return (
        spec("cpu", "--roles", "prepare,commit", "--concurrency", str(settings.cpu_concurrency)),
        *(embed_spec(number) for number in range(count)),
        spec("sweep", "--roles", "sweep,gc"),
        spec("deliver", "--roles", "deliver"),
        *((spec("search", "--roles", "search"),) if settings.indexed else ()),
    )


def default_embed_workers(settings: Settings) -> int:
    """One for each GPU; without one, several on the CPU.

    There single-threaded processes beat one with all threads: .90 of the bare encoder against .67.
    """
    return cards(settings) or min(machine.cores(), _MOST_CPU_ENCODERS)


def environment(settings: Settings, inherited: Mapping[str, str]) -> dict[str, str]:
    """What a worker's environment holds: the caller's, with TRIVET_ variables for these very settings.

    Anything in `inherited` that would make the worker read other settings, or lose tasks at its end, is left out.
    """
    result = {key: value for key, value in inherited.items() if not key.startswith(("TRIVET_", "CELERY_", "REMAP_"))}
    for name, value in settings:
        if value is None:
            continue
        if isinstance(value, SecretStr):
            text = value.get_secret_value()
        elif isinstance(value, str | Path):
            text = str(value)
        else:
            text = json.dumps(value, default=str)
        result[f"TRIVET_{name.upper()}"] = text
    result["PYTHONUNBUFFERED"] = "1"
    return result
