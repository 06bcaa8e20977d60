"""The encoder for GPUs: no padding, attention over many texts in one call, and nothing that the host waits for.

Measured and tested on an H200; what needs no GPU is tested on a CPU too.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from typing import ClassVar

import torch
from torch import Tensor

from trivet.encoder.heads import Batch
from trivet.encoder.layers import AddsAndNorms, Blocks, PackedForward, plain_add_norm
from trivet.encoder.onednn import PlainLinear
from trivet.encoder.torch_encoder import TorchEncoder
from trivet.encoder.varlen import TOLERANCES, best_attention, grouped

#: Not structlog's, which writes to stdout where nobody has set it up, as in the command line.
log = logging.getLogger(__name__)

#: Rows on which a kernel is tried.
_TRIED_ROWS = 130


class CudaEncoder(TorchEncoder):
    """`PackedForward` in one block, with the shared heads. CUDA; fp16 (the default there), bf16 and fp32."""

    name = "cuda"
    padded = False
    dtypes: ClassVar[Mapping[str, tuple[str, ...]]] = {"cuda": ("fp32", "bf16", "fp16")}

    def prepare(self, state: Mapping[str, Tensor]) -> None:
        """Copy the weights to the device, and choose the kernels that work there."""
        heads, hidden = self.config.heads, self.config.hidden
        self._attention = best_attention(self.device, self.dtype, heads, hidden // heads)
        self._add_norm = best_add_norm(self.device, self.dtype, hidden)
        self._forward = PackedForward(
            state,
            self.config,
            self.dtype,
            linear=PlainLinear,
            attention=self._attention,
            device=self.device,
            # In float32 it would be a third of all bytes that move, and the error is that of the products.
            residual=self.dtype,
            add_norm=self._add_norm,
        )

    def hidden(self, batch: Batch) -> Tensor:
        """[T, h] last hidden states."""
        return self._forward(batch, Blocks(((0, len(batch.ids)),)))

    def describe(self) -> str:
        """Names the kernels too."""
        norm = "torch" if self._add_norm is plain_add_norm else "triton"
        return f"cuda/{'sdpa' if self._attention is grouped else 'flash'}/{norm}"


def best_add_norm(device: str, dtype: torch.dtype, width: int) -> AddsAndNorms:
    """The kernel in `triton_norm`, where it can be compiled and computes what torch does; else torch's functions.

    In fp32 always torch's: there is nothing to save beside the products.
    """
    if device != "cuda" or dtype == torch.float32:
        return plain_add_norm
    try:
        fused: AddsAndNorms = import_module("trivet.encoder.triton_norm").fused_add_norm
        agrees = _agrees(fused, device, dtype, width)
    except Exception as error:  # noqa: BLE001 - Triton is another compiler in this process: it can fail in any way
        log.warning("encoder.slow: no kernel for sums and norms: %s", str(error).strip()[:200])
        return plain_add_norm
    if not agrees:
        log.warning("encoder.slow: the kernel for sums and norms computes wrong here")
    return fused if agrees else plain_add_norm


def _agrees(fused: AddsAndNorms, device: str, dtype: torch.dtype, width: int) -> bool:
    """Whether `fused` computes for random numbers what torch does in fp32."""
    numbers = torch.Generator().manual_seed(0)
    inner, x, matrix = (torch.randn((rows, width), generator=numbers) for rows in (_TRIED_ROWS, _TRIED_ROWS, width))
    # Far from 0, so that a mean or an epsilon that is forgotten shows.
    inner, x, matrix = (part.to(device, dtype) for part in (inner, 3 + x / 2, matrix / width**0.5))
    weight, bias = (torch.randn(width, generator=numbers).to(device) for _ in range(2))
    epsilon = 0.01
    got = fused(PlainLinear(matrix, bias, dtype), inner, x, (weight, bias), epsilon).float()
    exact = PlainLinear(matrix, bias.to(dtype), torch.float32)
    want = plain_add_norm(exact, inner.float(), x.float(), (weight, bias), epsilon)
    return torch.allclose(got, want, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])
