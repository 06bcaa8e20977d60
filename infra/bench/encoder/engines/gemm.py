"""Bare matrix products: the peak of this machine, and those of one short query in sequence. 2 threads, as all others.

fp32 and bf16 through the oneDNN op with weights that were reordered once; int8 through `_int_mm` or the quantised
oneDNN op with such weights, whichever is faster for the shape.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infra.bench.encoder.engines import Arrays

#: Rows, inner and outer size of the product that is called the peak.
_M, _K, _N = 2048, 1024, 4096
#: Products of one layer as (out, in): query, key and value; output; up; down.
_LAYER = ((3072, 1024), (1024, 1024), (4096, 1024), (1024, 4096))
_COLBERT = (1024, 1024)

Product = Callable[[], object]


def peak(dtype: str, seconds: float) -> float:
    """GFLOP/s of the best product within `seconds`."""
    product = _product(dtype, _M, _N, _K)
    best = float("inf")
    product()
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        product()
        best = min(best, time.perf_counter() - start)
    return 2 * _M * _N * _K / best / 1e9


def _product(dtype: str, m: int, n: int, k: int) -> Product:
    if dtype == "int8":
        return min(_int8_products(m, n, k), key=_once)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    x, weight, bias = (torch.randn(shape, dtype=torch.float32).to(kind) for shape in ((m, k), (n, k), (n,)))
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, None)  # noqa: SLF001 - the op that the encoder calls
    return lambda: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")  # noqa: SLF001 - the op that the encoder calls


def _int8_products(m: int, n: int, k: int) -> list[Product]:
    """[m, n] int32 of signed numbers, and float32 of unsigned by signed ones with a scale per column."""
    left = torch.randint(-127, 127, (m, k), dtype=torch.int8)
    weight = torch.randint(-127, 127, (n, k), dtype=torch.int8)
    right, out = weight.t(), torch.empty((m, n), dtype=torch.int32)
    unsigned = torch.randint(0, 255, (m, k), dtype=torch.uint8)
    packed = torch.ops.onednn.qlinear_prepack(weight, [m, k])
    scales, zeros = torch.full((n,), 0.01), torch.zeros(n, dtype=torch.int32)
    whole: tuple[Any, ...] = (packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], "none")
    return [
        lambda: torch._int_mm(left, right, out=out),  # noqa: SLF001 - the op that the encoder calls - there is no public one
        lambda: torch.ops.onednn.qlinear_pointwise(unsigned, 0.01, 0, *whole),
    ]


def _once(product: Product) -> float:
    """Seconds of the best of a few."""
    product()
    spent = []
    for _ in range(5):
        start = time.perf_counter()
        product()
        spent.append(time.perf_counter() - start)
    return min(spent)


class Bare:
    """The products of one query alone, weights of their own in each layer, so that they come from memory."""

    def __init__(self, dtype: str, layers: int, rows: int) -> None:
        shapes = [*_LAYER * layers, _COLBERT]
        self._products = [_product(dtype, rows, n, k) for n, k in shapes]

    def encode(self, texts: Sequence[str]) -> None:  # noqa: ARG002 - only how long it takes counts
        """All products in sequence."""
        with torch.inference_mode():
            for product in self._products:
                product()

    def arrays(self, made: Any) -> Arrays:
        """There are no results."""
        raise NotImplementedError("Bare products have no results.")


def load(folder: Path, variant: str, built: Path) -> Bare:  # noqa: ARG001 - the seam's
    """The products of 24 layers for a query of 12 tokens; `peak` has none."""
    with torch.inference_mode():
        return Bare("fp32", 0, 1) if variant == "peak" else Bare(variant, 24, 12)
