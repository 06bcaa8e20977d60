"""m3serve's engine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
from m3serve import Engine as Served

from infra.bench.encoder.engines import Arrays
from infra.bench.encoder.forms import from_rows

#: It gives up after a minute by default, which long texts on a CPU need more than.
_PATIENCE = 1800.0


class M3Serve:
    """All three legs through its queue and threads."""

    def __init__(self, folder: Path) -> None:
        self._engine = Served(str(folder), device="cpu")
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._engine.start())

    def encode(self, texts: list[str]) -> Any:
        """One request of all texts."""
        asked = self._engine.embed(texts, return_sparse=True, return_colbert=True, timeout=_PATIENCE)
        return self._loop.run_until_complete(asked)

    def arrays(self, made: Any) -> Arrays:
        """Its lists, flattened; it keeps every place of a term, and special tokens, which bge-m3 does not."""
        terms: list[dict[int, float]] = []
        for ids, weights in zip(made.sparse_indices, made.sparse_weights, strict=True):
            best: dict[int, float] = {}
            for term, weight in zip(ids, weights, strict=True):
                if term > 3:
                    best[term] = max(best.get(term, 0.0), weight)
            terms.append(best)
        vectors = [np.asarray(rows, np.float32) for rows in made.colbert_vecs]
        return from_rows(np.asarray(made.dense, np.float32), terms, vectors)


def load(folder: Path, variant: str, built: Path) -> M3Serve:  # noqa: ARG001 - the seam's
    """On a CPU it computes in fp32."""
    return M3Serve(folder)
