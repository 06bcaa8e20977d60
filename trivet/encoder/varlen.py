"""Attention over texts that lie end to end, in one call for all of them: torch's private ops, in this module alone.

The flash kernel takes half precision on a GPU. It is private, so it is tried before use, and where it is absent or
wrong, texts go through torch's public function in groups of like length, on any device. The flash kernel was not run on
a GPU here.
"""

from __future__ import annotations

from itertools import groupby

import torch
from torch import Tensor
from torch.nn import functional

from trivet.encoder.heads import Batch
from trivet.encoder.layers import Attend, PreparesAttention
from trivet.encoder.transfer import to_device

#: Lengths of the texts on which a kernel is tried: below, on and beyond the blocks that kernels work in.
_TRIED = (1, 2, 17, 64, 129, 600)
#: Groups of lengths per power of two: texts are padded by less than one in this many.
_STEPS = 8


def flash(batch: Batch, heads: int) -> Attend:
    """The kernel that knows where each text begins: [T, 3h] queries (scaled already), keys and values → [T, h]."""
    ends = batch.offsets.int()
    longest = max(batch.lengths)

    def attend(qkv: Tensor) -> Tensor:
        query, key, value = qkv.view(len(qkv), 3, heads, -1).unbind(1)
        op = torch.ops.aten._flash_attention_forward  # noqa: SLF001 - see module
        mixed: Tensor = op(query, key, value, ends, ends, longest, longest, 0.0, False, False, scale=1.0)[0]
        return mixed.flatten(1)

    return attend


def grouped(batch: Batch, heads: int) -> Attend:
    """torch's public function over texts of like length, padded to the longest of their group. As `flash`.

    A mask holds one number per key, not one per score.
    """
    groups, back = _groups(batch)

    def attend(qkv: Tensor) -> Tensor:
        rows = qkv.view(len(qkv), 3, heads, -1)
        parts = []
        for places, mask in groups:
            query, key, value = rows[places].permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)
            parts.append(mixed.transpose(1, 2).flatten(0, 1).flatten(1))
        return torch.cat(parts)[back]

    return attend


def best_attention(device: str, dtype: torch.dtype, heads: int, width: int) -> PreparesAttention:
    """`flash` where it exists for heads of `width` in `dtype` and computes what torch's public function does."""
    return flash if _agrees(flash, device, dtype, heads, width) else grouped


def _agrees(fast: PreparesAttention, device: str, dtype: torch.dtype, heads: int, width: int) -> bool:
    """Whether `fast` gives for random texts what each gives alone in fp32."""
    offsets = torch.tensor([0, *_TRIED]).cumsum(0)
    total = int(offsets[-1])
    batch = Batch(torch.zeros(total, dtype=torch.long, device=device), _TRIED, offsets.to(device))
    numbers = torch.randn((total, 3, heads, width), generator=torch.Generator().manual_seed(0))
    # Scores as wide as those of scaled queries.
    numbers[:, 0] /= width**0.5
    qkv = numbers.flatten(1).to(device, dtype)
    try:
        got = fast(batch, heads)(qkv).float()
    except (RuntimeError, AttributeError, NotImplementedError, TypeError):
        return False  # another device, dtype or build of torch: no such op, or another signature
    alone = []
    for text in torch.split(qkv.float().view(total, 3, heads, width), list(_TRIED)):
        query, key, value = text.permute(1, 2, 0, 3)
        mixed = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
        alone.append(mixed.transpose(0, 1).flatten(1))
    wanted = torch.cat(alone)
    tolerance = {torch.float16: 4e-3, torch.bfloat16: 3e-2}.get(dtype, 1e-5)
    return torch.allclose(got, wanted, rtol=tolerance, atol=tolerance)


def _groups(batch: Batch) -> tuple[list[tuple[Tensor, Tensor | None]], Tensor]:
    """For each group the row of every token, [texts, longest] int64, with which of them are none's padding,
    [texts, 1, 1, longest] bool (None without padding); and [T] int64 the place of each row in the groups end to end.
    """
    device = str(batch.ids.device)
    lengths = torch.tensor(batch.lengths)
    starts = lengths.cumsum(0) - lengths
    order = sorted(range(len(batch.lengths)), key=lambda at: batch.lengths[at])
    groups, back, before = [], torch.empty(int(lengths.sum()), dtype=torch.long), 0
    for _, members in groupby(order, key=lambda at: _step(batch.lengths[at])):
        chosen = torch.tensor(list(members))
        own, longest = lengths[chosen, None], batch.lengths[int(chosen[-1])]
        column = torch.arange(longest)
        real = column < own
        # Padding is the last token of its own text once more.
        places = starts[chosen, None] + torch.minimum(column, own - 1)
        back[places[real]] = before + real.flatten().nonzero().flatten()
        before += places.numel()
        mask = None if bool(real.all()) else to_device(real[:, None, None], device)
        groups.append((to_device(places, device), mask))
    return groups, to_device(back, device)


def _step(length: int) -> int:
    """Lengths of one step are less than a part in `_STEPS` apart; there are `_STEPS` per power of two."""
    unit = max(1, (1 << length.bit_length() - 1) // _STEPS)
    return length // unit * unit
