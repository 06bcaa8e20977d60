"""Plain transformers with torch's scaled dot-product attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from infra.bench.encoder.engines.m3torch import M3
from infra.bench.encoder.engines.padded import PaddedEngine


class Plain(PaddedEngine):
    """`XLMRobertaModel` and the heads in torch."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        super().__init__(folder)
        self._model = M3(folder, dtype, "sdpa")

    def forward(self, ids: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> tuple[Any, Any, Any]:
        """See `PaddedEngine`."""
        with torch.inference_mode():
            dense, weights, vectors = self._model(torch.from_numpy(ids), torch.from_numpy(mask))
        return dense.numpy(), weights.numpy(), vectors.numpy()


def load(folder: Path, variant: str, built: Path) -> Plain:  # noqa: ARG001 - the seam's
    """`variant` is fp32 or bf16."""
    return Plain(folder, {"fp32": torch.float32, "bf16": torch.bfloat16}[variant])
