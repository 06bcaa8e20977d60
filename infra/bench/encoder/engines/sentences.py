"""sentence-transformers: the dense leg."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from infra.bench.encoder.engines import Arrays


class Sentences:
    """`SentenceTransformer.encode` with its defaults."""

    def __init__(self, folder: Path) -> None:
        self._model = SentenceTransformer(str(folder), device="cpu")

    def encode(self, texts: list[str]) -> Any:
        """[n, d] float32."""
        return self._model.encode(texts, show_progress_bar=False)

    def arrays(self, made: Any) -> Arrays:
        """Dense alone."""
        return {"dense": np.asarray(made, np.float32)}


def load(folder: Path, variant: str, built: Path) -> Sentences:  # noqa: ARG001 - the seam's
    """fp32 alone."""
    return Sentences(folder)
