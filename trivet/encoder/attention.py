"""Attention on a CPU over texts that lie end to end: text by text, since attention does not cross texts."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from trivet.encoder.heads import Batch
from trivet.encoder.layers import Attend
from trivet.encoder.runtime import cpu_has_tiles

#: What lengths are rounded up to, for oneDNN compiles and keeps a kernel for every shape that it meets: up to so many
#: tokens, and beyond.
ALIGNED, _LONG, _LONG_ALIGNED = 16, 1024, 128
#: Shorter texts, with less to compute than to call, go through torch's fused attention; in fp32 long ones too, and in
#: bf16 all where the processor multiplies tiles.
_SHORTEST, _LONGEST_FP32 = 33, 512
#: Scores that are held at once, so that they stay in the cache between product, softmax and product.
_SCORES = 1 << 20


def text_by_text(batch: Batch, heads: int) -> Attend:
    """`attend` over this batch."""
    return partial(attend, batch=batch, heads=heads)


def attend(qkv: Tensor, batch: Batch, heads: int) -> Tensor:
    """[rows, 3h] queries (scaled already), keys and values → [rows, h], zeros after the texts.

    Rows after the texts change nothing, whatever they hold.
    """
    width = qkv.shape[1] // 3 // heads
    views = qkv.view(len(qkv), 3, heads, width).permute(1, 2, 0, 3)
    out = qkv.new_zeros((len(qkv), heads, width))
    target = out.transpose(0, 1)
    tiles = qkv.dtype == torch.bfloat16 and cpu_has_tiles()
    longest = _LONGEST_FP32 if qkv.dtype == torch.float32 else max(batch.lengths)
    start = 0
    for length in batch.lengths:
        one = _masked if tiles else _products if _SHORTEST <= length <= longest else _fused
        one(views[:, :, start : start + length], target[:, start : start + length])
        start += length
    return out.flatten(1)


def _rounded(length: int) -> int:
    unit = ALIGNED if length <= _LONG else _LONG_ALIGNED
    return -(-length // unit) * unit


def _held(views: Tensor, rows: int) -> Tensor:
    """A copy of [3, heads, length, width] with zeros up to `rows`."""
    kinds, heads, length, width = views.shape
    held = views.new_empty((kinds, heads, rows, width))
    held[:, :, :length], held[:, :, length:] = views, 0
    return held


def _masked(views: Tensor, target: Tensor) -> None:
    """torch's fused attention in rounded lengths, with a mask: it keeps kernels for every length that it meets, too."""
    length = views.shape[2]
    rows, mask = _rounded(length), None
    if rows > length:
        views, mask = _held(views, rows), views.new_zeros((1, 1, 1, rows))
        mask[..., length:] = -torch.inf
    _fused(views, target, mask)


def _products(views: Tensor, target: Tensor) -> None:
    """As two matrix products with the scores between them, a few heads and queries at a time.

    [3, heads, length, width] → target [heads, length, width].
    """
    _, heads, length, _ = views.shape
    rows = _rounded(length)
    # Copied: products over rows that lie apart are slower by more than that.
    query, key, value = _held(views, rows)
    group = max(1, min(heads, _SCORES // rows**2))
    part = max(ALIGNED, min(rows, _SCORES // (group * rows) // ALIGNED * ALIGNED))
    for first in range(0, heads, group):
        some = slice(first, first + group)
        keys, values = key[some].transpose(1, 2), value[some]
        for start in range(0, length, part):
            scores = torch.bmm(query[some, start : start + part], keys)
            scores[:, :, length:] = -torch.inf
            mixed = torch.bmm(torch.softmax(scores, -1, out=scores), values)
            target[some, start : start + part] = mixed[:, : length - start]


def _fused(views: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
    query, key, value = views[:, None]
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)[0]
    target.copy_(mixed[:, : target.shape[1]])
