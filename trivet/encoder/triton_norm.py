"""A sum and its layer norm in one kernel for GPUs: they are read once and written once. Needs Triton.

Triton comes with torch's builds for CUDA, and compiles with the C compiler of the machine: where there is none, the
first call fails. `trivet.encoder.cuda` tries it before use.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor
from triton import language as tl

from trivet.encoder.layers import Norm
from trivet.encoder.onednn import Linear

_WARPS = 4


@triton.jit  # type: ignore[untyped-decorator] # Triton gives it no types
def _sum_and_norm(added, x, weight, bias, out, epsilon, WIDTH: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: N803 - pointers, as Triton takes them
    at = tl.program_id(0).to(tl.int64) * WIDTH
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    total = tl.load(added + at + columns, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(x + at + columns, mask=inside, other=0.0).to(tl.float32)
    centred = tl.where(inside, total - tl.sum(total, 0) / WIDTH, 0.0)
    scaled = centred / tl.sqrt(tl.sum(centred * centred, 0) / WIDTH + epsilon)
    scaled = scaled * tl.load(weight + columns, mask=inside, other=0.0)
    scaled += tl.load(bias + columns, mask=inside, other=0.0)
    tl.store(out + at + columns, scaled.to(out.dtype.element_ty), mask=inside)


def fused_add_norm(linear: Linear, inner: Tensor, x: Tensor, norm: Norm, epsilon: float) -> Tensor:
    """As `trivet.encoder.layers.AddsAndNorms`, for half precision on a GPU: the sum itself is never rounded."""
    added, (weight, bias), width = linear(inner).contiguous(), norm, x.shape[1]
    out = torch.empty_like(added)
    block = triton.next_power_of_2(width)
    _sum_and_norm[(len(x),)](
        added, x.contiguous(), weight, bias, out, epsilon, WIDTH=width, BLOCK=block, num_warps=_WARPS
    )
    return out
