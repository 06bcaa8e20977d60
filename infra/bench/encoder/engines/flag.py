"""FlagEmbedding's `BGEM3FlagModel` on the CPU, with its defaults but for the length that it cuts at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from infra.bench.encoder.engines import Arrays
from infra.bench.encoder.forms import from_rows
from trivet.encoder.reference import FlagReference


class Flag:
    """All three legs."""

    def __init__(self, folder: Path) -> None:
        # The reference knows how to import the package without its training stack; its own `encode` is for parity.
        self._model = FlagReference(folder, "cls", 8192)._model  # noqa: SLF001 - the peer itself, not what parity wants of it

    def encode(self, texts: list[str]) -> dict[str, Any]:
        """One call, as its README has it."""
        made: dict[str, Any] = self._model.encode(
            texts, max_length=8192, return_dense=True, return_sparse=True, return_colbert_vecs=True
        )
        return made

    def arrays(self, made: dict[str, Any]) -> Arrays:
        """Its lists, flattened."""
        terms = [{int(term): float(weight) for term, weight in row.items()} for row in made["lexical_weights"]]
        return from_rows(np.asarray(made["dense_vecs"], np.float32), terms, made["colbert_vecs"])


def load(folder: Path, variant: str, built: Path) -> Flag:  # noqa: ARG001 - the seam's
    """fp32 alone."""
    return Flag(folder)
