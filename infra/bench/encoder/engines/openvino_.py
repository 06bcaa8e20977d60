"""OpenVINO: bge-m3 converted from torch; bf16 as its CPU plugin computes it, int8 by NNCF after training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from infra.bench.encoder.engines.padded import PaddedEngine

_MODEL = "model.xml"
#: Texts that int8 is calibrated on, and their tokens.
_CALIBRATION, _TOKENS = 32, 128


def build(folder: Path, variant: str, built: Path) -> None:
    """Write `model.xml` and `model.bin`. int8 of 24 layers took 10 GB and two minutes where it was measured."""
    import torch

    from infra.bench.encoder.engines.m3torch import M3

    ids = torch.full((2, 16), 5)
    with torch.inference_mode():
        example = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        model = ov.convert_model(M3(folder, torch.float32, "sdpa"), example_input=example)
    if variant == "int8":
        import nncf

        data = nncf.Dataset(_calibration(folder))
        kind = nncf.ModelType.TRANSFORMER
        model = nncf.quantize(model, data, model_type=kind, subset_size=_CALIBRATION, fast_bias_correction=True)
    ov.save_model(model, built / _MODEL, compress_to_fp16=False)


def _calibration(folder: Path) -> list[dict[str, np.ndarray[Any, Any]]]:
    """Random pieces: the weights are random too, so there is no text that would be more like what comes."""
    from tokenizers import Tokenizer

    pieces = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    rng = np.random.default_rng(3)
    rows = rng.integers(4, pieces, (_CALIBRATION, 1, _TOKENS))
    rows[:, :, 0], rows[:, :, -1] = 0, 2
    return [{"input_ids": ids, "attention_mask": np.ones_like(ids)} for ids in rows]


class OpenVINO(PaddedEngine):
    """One compiled model on the CPU plugin, one stream over all threads."""

    def __init__(self, folder: Path, variant: str, built: Path) -> None:
        super().__init__(folder)
        core = ov.Core()
        settings: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": os.cpu_count() or 1,
            "PERFORMANCE_HINT": "LATENCY",
            "CACHE_DIR": str(built / "cache"),
        }
        if variant == "bf16":
            # What int8 leaves over is computed as the plugin chooses: in bf16 too, where the processor has it.
            settings["INFERENCE_PRECISION_HINT"] = "bf16"
        self._request = core.compile_model(built / _MODEL, "CPU", settings).create_infer_request()

    def forward(self, ids: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> tuple[Any, Any, Any]:
        """See `PaddedEngine`."""
        self._request.infer({"input_ids": ids, "attention_mask": mask})
        dense, weights, vectors = (self._request.get_output_tensor(at).data.copy() for at in range(3))
        return dense, weights, vectors


def load(folder: Path, variant: str, built: Path) -> OpenVINO:
    """From what `build` made."""
    return OpenVINO(folder, variant, built)
