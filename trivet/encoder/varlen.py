"""Attention over texts that lie end to end, in few calls for all of them: torch's private ops, in this module alone.

The flash kernel takes half precision on a GPU. It is private, so it is tried before use, and where it is absent or
wrong, texts go through torch's public function in groups of like length, on any device.
"""

from __future__ import annotations

import logging
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from trivet.encoder.heads import Batch
from trivet.encoder.layers import Attend, PreparesAttention
from trivet.encoder.transfer import to_device

#: Not structlog's, which writes to stdout where nobody has set it up, as in the command line.
log = logging.getLogger(__name__)

#: Lengths of the texts on which a kernel is tried: below, on and beyond the blocks that kernels work in, the longest
#: that goes through it, and long ones among short ones.
_TRIED = (1, 2, 17, 2050, 64, 129, 600, 2047, 2048)
#: How far a kernel may be from the same in fp32, relative to a number and absolute.
TOLERANCES = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float32: 1e-5}
#: From this length on a text goes through torch's public function by itself, which chooses the fastest kernel for one
#: text: on an H200 1.45 times as fast as the flash kernel at 8,192 tokens, and equal at 1,024.
_LONG = 2048
#: Groups of lengths per power of two: texts are padded by less than one in this many.
_STEPS = 8


class _Run(NamedTuple):
    """Texts that are neighbours, as rows `[start, end)`: one that is long, or short ones."""

    start: int
    end: int
    #: [n + 1] int32: where the short ones begin and end among these rows.
    ends: Tensor | None
    longest: int


def flash(batch: Batch, heads: int) -> Attend:
    """The kernel that knows where each text begins: [T, 3h] queries (scaled already), keys and values → [T, h].

    Long texts do not go through it; neighbours that are short do so together.
    """
    runs = _runs(batch)

    def attend(qkv: Tensor) -> Tensor:
        rows = qkv.view(len(qkv), 3, heads, -1)
        parts = [_one_run(rows[run.start : run.end], run) for run in runs]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).flatten(1)

    return attend


def _one_run(rows: Tensor, run: _Run) -> Tensor:
    """[T, 3, heads, width] → [T, heads, width]."""
    if run.ends is None:
        query, key, value = rows.permute(1, 2, 0, 3)[:, None]
        return functional.scaled_dot_product_attention(query, key, value, scale=1.0)[0].transpose(0, 1)
    query, key, value = rows.unbind(1)
    op = torch.ops.aten._flash_attention_forward  # noqa: SLF001 - see module
    mixed: Tensor = op(query, key, value, run.ends, run.ends, run.longest, run.longest, 0.0, False, False, scale=1.0)[0]
    return mixed


def _runs(batch: Batch) -> list[_Run]:
    runs, first, start = [], 0, 0
    for long, members in groupby(batch.lengths, key=lambda length: length >= _LONG):
        for lengths in [[length] for length in members] if long else [list(members)]:
            end, last = start + sum(lengths), first + len(lengths)
            ends = None if long else (batch.offsets[first : last + 1] - start).int()
            runs.append(_Run(start, end, ends, max(lengths)))
            first, start = last, end
    return runs


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
    if _agrees(flash, device, dtype, heads, width):
        return flash
    # In fp32 nobody expects it.
    if dtype != torch.float32:
        log.warning("encoder.slow: torch's flash kernel for many texts is absent or computes wrong here")
    return grouped


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
    tolerance = TOLERANCES[dtype]
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
