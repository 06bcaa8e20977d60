"""Linear layers through oneDNN with weights that are reordered once: torch's private ops, in this module alone.

Measured on Zen 4 and Zen 5 processors: 1.3 to 2.2 times torch's own rate in fp32 with equal results, twice that in
bf16, and twice that again in int8. The ops are private, so they are tried on the model's own weights before use, and
where they are absent or wrong, the same layer goes through torch's public functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

#: u8 = s8 + 128: oneDNN has fast kernels for unsigned activations alone, and takes the 128 off as their zero point.
_ZERO = 128
_LARGEST = 127.0

#: Rows of a block, as `trivet.encoder.packed` cuts a batch. Measured: as fast as 2,048 rows in one product, and what is
#: between two products stays in the cache, which makes the steps between them up to thirty times faster.
BLOCK = 512
#: The same where products take so little time (bf16 on a processor with tiles) that calls and copies between blocks are
#: what is felt.
WIDE_BLOCK = 2048
#: Rows of the inputs on which a kind of layer is tried, beside a whole block: a query, which is not rounded up.
_FEW_ROWS = 12


class Linear(Protocol):
    """A layer whose weights are on hand: `x` [T, in] → [T, out], both in the dtype that the encoder computes in."""

    def __call__(self, x: Tensor, *, gelu: bool = False, plus: Tensor | None = None) -> Tensor:
        """Apply the layer; then exact GELU, or the sum with `plus` [T, out]."""
        ...


class MakesLinear(Protocol):
    """A kind of layer: made of a weight [out, in] and a bias [out]."""

    def __call__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Linear:
        """The layer over these, for inputs and outputs in `dtype`."""
        ...


class PlainLinear:
    """torch's public functions; keeps weights of the right dtype as they are, memory-mapped ones too."""

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        self._weight, self._bias = weight.to(dtype), bias.to(dtype)

    def __call__(self, x: Tensor, *, gelu: bool = False, plus: Tensor | None = None) -> Tensor:
        """Apply the layer."""
        return _after(functional.linear(x, self._weight, self._bias), gelu, plus)


class PackedLinear:
    """oneDNN with the weight in its own blocked order, what comes behind the product fused. CPU, fp32 and bf16."""

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        ops = torch.ops.mkldnn
        self._weight = ops._reorder_linear_weight(weight.to(dtype).contiguous(), None)  # noqa: SLF001 - see module
        self._bias = bias.to(dtype)

    def __call__(self, x: Tensor, *, gelu: bool = False, plus: Tensor | None = None) -> Tensor:
        """Apply the layer."""
        op = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001 - see module
        if plus is not None:
            summed: Tensor = op.binary(x, plus, self._weight, self._bias, "add")
            return summed
        after, variant = ("gelu", "none") if gelu else ("none", "")
        y: Tensor = op(x, self._weight, self._bias, after, [], variant)
        return y


class Int8Linear:
    """oneDNN's int8: weights with one scale per output, activations with one per row, found as they come.

    Both are symmetric: q = round(v / scale), scale = max |v| / 127, over a row of the weight, or of the input. The sum
    of products is exact in int32; both scales, the bias and what comes behind are applied in the dtype of the input.
    """

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        quantised, self._scales = quantise(weight)
        self._scales = self._scales.flatten()
        self._zeros = torch.zeros(len(bias), dtype=torch.int64)
        self._weight = self._pack(quantised)
        self._bias = bias.to(dtype)

    def __call__(self, x: Tensor, *, gelu: bool = False, plus: Tensor | None = None) -> Tensor:
        """Apply the layer."""
        rows, scales = quantise(x)
        y = torch.addcmul(self._bias, self._product(rows, x.dtype), scales.to(x.dtype))
        return _after(y, gelu, plus)

    def _pack(self, weight: Tensor) -> Tensor:
        packed: Tensor = torch.ops.onednn.qlinear_prepack(weight, None)
        return packed

    def _product(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """[T, in] int8 by the weight, times the weight's scales: [T, out] in `dtype`."""
        unsigned = rows.view(torch.uint8).bitwise_xor_(_ZERO)
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            unsigned, 1.0, _ZERO, self._weight, self._scales, self._zeros, None, 1.0, 0, dtype, "none", [], ""
        )
        return y


class PlainInt8Linear(Int8Linear):
    """The same quantised numbers through torch's public functions: what int8 loses, without what it gains."""

    def _pack(self, weight: Tensor) -> Tensor:
        return weight

    def _product(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        return (functional.linear(rows.float(), self._weight.float()) * self._scales).to(dtype)


def quantise(rows: Tensor) -> tuple[Tensor, Tensor]:
    """[n, k] → [n, k] int8 and [n, 1] float32 scales: row = int8 * scale, but for rounding.

    A row of zeros has a scale that is small, not 0.
    """
    scales = rows.abs().amax(1, keepdim=True).float().div_(_LARGEST).clamp_(min=1e-12)
    return rows.to(torch.float32, copy=True).mul_(scales.reciprocal()).round_().to(torch.int8), scales


def best_linear(
    name: str, dtype: torch.dtype, weights: Sequence[tuple[Tensor, Tensor]], block: int = BLOCK
) -> MakesLinear:
    """The fastest kind of layer for the dtype `name` (fp32, bf16 or int8) that computes what torch computes.

    It is tried on `weights`, some of the model's own: weights [out, in] and biases [out], with a few rows and with
    `block`. `dtype` is that of inputs and outputs.
    """
    fast, plain = (Int8Linear, PlainInt8Linear) if name == "int8" else (PackedLinear, PlainLinear)
    tried = (_FEW_ROWS, block)
    return fast if all(_agrees(fast, plain, weight, bias, dtype, tried) for weight, bias in weights) else plain


def _agrees(
    fast: MakesLinear, plain: MakesLinear, weight: Tensor, bias: Tensor, dtype: torch.dtype, tried: Sequence[int]
) -> bool:
    """Whether the ops behind `fast` exist here and give the same as `plain` computes in fp32, on random input."""
    generator = torch.Generator().manual_seed(0)
    scale = float(weight.float().std()) * weight.shape[1] ** 0.5
    tolerance = scale * (1e-5 if dtype == torch.float32 else 0.05)
    try:
        layer, wanted = fast(weight, bias, dtype), plain(weight, bias, torch.float32)
        for rows in tried:
            x = torch.randn((rows, weight.shape[1]), generator=generator).to(dtype)
            plus = torch.randn((rows, len(bias)), generator=generator).to(dtype)
            product = wanted(x.float())
            for gelu, added in ((False, None), (True, None), (False, plus)):
                got = layer(x, gelu=gelu, plus=added)
                want = _after(product, gelu, None if added is None else added.float())
                if not torch.allclose(got.float(), want, rtol=0.02 if dtype != torch.float32 else 1e-5, atol=tolerance):
                    return False
    except (RuntimeError, AttributeError, NotImplementedError, TypeError):
        return False  # another build of torch: no oneDNN, no such op, or another signature
    return True


def _after(y: Tensor, gelu: bool, plus: Tensor | None) -> Tensor:
    if gelu:
        y = functional.gelu(y)
    return y if plus is None else y + plus
