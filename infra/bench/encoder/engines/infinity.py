"""infinity-emb's engine without its server: the dense leg."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
from infinity_emb import AsyncEmbeddingEngine, EngineArgs

from infra.bench.encoder.engines import Arrays


class Infinity:
    """`AsyncEmbeddingEngine` with its torch backend and its defaults."""

    def __init__(self, folder: Path) -> None:
        arguments = EngineArgs(model_name_or_path=str(folder), engine="torch", device="cpu", model_warmup=False)
        self._engine = AsyncEmbeddingEngine.from_args(arguments)
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._engine.astart())

    def encode(self, texts: list[str]) -> Any:
        """One request of all texts."""
        made, _ = self._loop.run_until_complete(self._engine.embed(sentences=texts))
        return made

    def arrays(self, made: Any) -> Arrays:
        """Dense alone."""
        return {"dense": np.asarray(made, np.float32)}


def load(folder: Path, variant: str, built: Path) -> Infinity:  # noqa: ARG001 - the seam's
    """Its own choice of dtype on a CPU, which is fp32."""
    return Infinity(folder)
