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
#: Shorter texts, with less to compute than to call, and longer ones, whose scores would not fit, go through torch's
#: fused attention: its buffers do not grow with the square of the length. Between the two it is slower (1.2 to 1.8
#: times in bf16).
_SHORTEST, _LONGEST = 33, 1024
#: Scores that are held at once, so that they stay in the cache between product, softmax and product.
_SCORES = 1 << 20


def text_by_text(batch: Batch, heads: int) -> Attend:
    """`attend` over this batch."""
    return partial(attend, batch=batch, heads=heads)


def attend(qkv: Tensor, batch: Batch, heads: int) -> Tensor:
    """[rows, 3h] queries (scaled already), keys and values → [rows, h], zeros after the texts.

    At least `ALIGNED` rows must follow the texts. They change nothing, whatever they hold.
    """
    width = qkv.shape[1] // 3 // heads
    views = qkv.view(len(qkv), 3, heads, width).permute(1, 2, 0, 3)
    out = qkv.new_zeros((len(qkv), heads, width))
    target = out.transpose(0, 1)
    start = 0
    for length in batch.lengths:
        one = _product if _SHORTEST <= length <= _LONGEST else _fused
        one(views[:, :, start:], length, target[:, start : start + length])
        start += length
    return out.flatten(1)


def _product(views: Tensor, length: int, target: Tensor) -> None:
    """As two matrix products with the scores between them; a few heads at a time. [3, heads, …, width] → target."""
    rows = -(-length // ALIGNED) * ALIGNED
    query, key, value = views[:, :, :rows]
    if rows > length:
        # The rows after the text are the next one's: nothing of it may come in, not even a number that is none.
        value = functional.pad(value[:, :length], (0, 0, 0, rows - length))
    heads = len(query)
    group = max(1, min(heads, _SCORES // rows**2))
    for at in range(0, heads, group):
        part = slice(at, at + group)
        scores = torch.bmm(query[part], key[part].transpose(1, 2))
        scores[:, :, length:] = -torch.inf
        target[part] = torch.bmm(torch.softmax(scores, -1, out=scores), value[part])[:, :length]


def _fused(views: Tensor, length: int, target: Tensor) -> None:
    query, key, value = views[:, None, :, :length]
    target.copy_(functional.scaled_dot_product_attention(query, key, value, scale=1.0)[0])
