"""Attention on a CPU over texts that lie end to end: text by text, since attention does not cross texts."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from trivet.encoder.heads import Batch
from trivet.encoder.layers import Attend

#: Lengths are rounded up to this, for oneDNN compiles and keeps a kernel for every shape that it meets.
ALIGNED = 16
#: Longer texts go through torch's fused attention, whose buffers do not grow with the square of the length.
_FUSED_FROM = 1024
#: Scores that are held at once, so that they stay in the cache between product, softmax and product.
_SCORES = 1 << 20


def text_by_text(batch: Batch, heads: int) -> Attend:
    """`attend` over this batch."""
    return partial(attend, batch=batch, heads=heads)


def attend(qkv: Tensor, batch: Batch, heads: int) -> Tensor:
    """[rows, 3h] queries (scaled already), keys and values → [rows, h], zeros after the texts.

    At least `ALIGNED` rows must follow the texts, of finite numbers, which change nothing.
    """
    width = qkv.shape[1] // 3 // heads
    views = qkv.view(len(qkv), 3, heads, width).permute(1, 2, 0, 3)
    out = qkv.new_zeros((len(qkv), heads, width))
    target = out.transpose(0, 1)
    start = 0
    for length in batch.lengths:
        one = _fused if length > _FUSED_FROM else _product
        one(views[:, :, start:], length, target[:, start : start + length])
        start += length
    return out.flatten(1)


def _product(views: Tensor, length: int, target: Tensor) -> None:
    """As two matrix products with the scores between them; a few heads at a time. [3, heads, …, width] → target."""
    rows = -(-length // ALIGNED) * ALIGNED
    query, key, value = views[:, :, :rows]
    heads = len(query)
    group = max(1, min(heads, _SCORES // rows**2))
    for at in range(0, heads, group):
        part = slice(at, at + group)
        scores = torch.bmm(query[part], key[part].transpose(1, 2))
        # The rows after the text are the next one's.
        scores[:, :, length:] = -torch.inf
        target[part] = torch.bmm(torch.softmax(scores, -1, out=scores), value[part])[:, :length]


def _fused(views: Tensor, length: int, target: Tensor) -> None:
    query, key, value = views[:, None, :, :length]
    target.copy_(functional.scaled_dot_product_attention(query, key, value, scale=1.0)[0])
