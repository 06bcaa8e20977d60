"""ONNX Runtime: exported by torch, attention fused by ONNX Runtime's optimiser; int8 by dynamic quantisation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from infra.bench.encoder.engines.padded import PaddedEngine

_MODEL = "model.onnx"
_NAMES = ["dense", "weights", "vectors"]


def build(folder: Path, variant: str, built: Path) -> None:
    """Write `model.onnx` with its weights beside it."""
    import torch

    from infra.bench.encoder.engines.m3torch import M3

    raw = built / "exported.onnx"
    axes = {"input_ids": {0: "n", 1: "l"}, "attention_mask": {0: "n", 1: "l"}}
    axes |= {"dense": {0: "n"}, "weights": {0: "n", 1: "l"}, "vectors": {0: "n", 1: "m"}}
    ids = torch.full((2, 16), 5)
    with torch.inference_mode():
        torch.onnx.export(
            M3(folder, torch.float32, "eager"),
            (ids, torch.ones_like(ids)),
            str(raw),
            input_names=["input_ids", "attention_mask"],
            output_names=_NAMES,
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    fused = _fuse(raw, built / ("fused.onnx" if variant == "int8" else _MODEL))
    if variant == "int8":
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        # Shape inference knows no fused attention, so it must be told what comes out of it.
        quantize_dynamic(
            fused,
            built / _MODEL,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    for path in built.iterdir():
        if not path.name.startswith(_MODEL):
            path.unlink()


def _fuse(raw: Path, target: Path) -> Path:
    from onnxruntime.transformers.optimizer import optimize_model

    model = optimize_model(str(raw), model_type="bert", num_heads=16, hidden_size=1024, use_gpu=False, opt_level=0)
    model.save_model_to_file(str(target), use_external_data_format=True)
    return target


class Onnx(PaddedEngine):
    """One session on the CPU."""

    def __init__(self, folder: Path, built: Path) -> None:
        super().__init__(folder)
        options = ort.SessionOptions()
        options.intra_op_num_threads = os.cpu_count() or 1
        self._session = ort.InferenceSession(str(built / _MODEL), options, providers=["CPUExecutionProvider"])

    def forward(self, ids: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> tuple[Any, Any, Any]:
        """See `PaddedEngine`."""
        dense, weights, vectors = self._session.run(_NAMES, {"input_ids": ids, "attention_mask": mask})
        return dense, weights, vectors


def load(folder: Path, variant: str, built: Path) -> Onnx:  # noqa: ARG001 - what is built knows its precision
    """From what `build` made."""
    return Onnx(folder, built)
