"""What the packed encoder is made of: blocks, attention, and layers in int8."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from tests.unit.encoder.conftest import PRIVATE
from trivet.encoder import attention, onednn
from trivet.encoder.attention import attend
from trivet.encoder.heads import Batch
from trivet.encoder.packed import NARROW, WIDE, Cut


@pytest.mark.parametrize("cut", [NARROW, WIDE])
@given(tokens=st.integers(1, 20_000))
def test_blocks_cover_all_rows_and_little_more(cut: Cut, tokens: int) -> None:
    blocks = cut(tokens)
    ends = [0, *(end for _, end in blocks.spans)]
    assert [start for start, _ in blocks.spans] == ends[:-1]
    assert tokens <= blocks.rows < tokens + (cut.aligned if tokens > 512 else 16)
    assert all(0 < end - start < cut.block * 5 // 4 for start, end in blocks.spans)


@pytest.mark.parametrize(("cut", "most"), [(NARROW, 64 + 36), (WIDE, 64 + 28 + 64)])
def test_batches_of_any_size_are_cut_into_few_shapes(cut: Cut, most: int) -> None:
    shapes = {end - start for tokens in range(1, 9000) for start, end in cut(tokens).spans}
    assert len(shapes) <= most


def batch_of(lengths: list[int]) -> Batch:
    offsets = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])
    return Batch(torch.zeros(sum(lengths), dtype=torch.long), lengths, offsets)


@pytest.fixture(params=[False, True], ids=["rows", "tiles"])
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that multiplies tiles, or does not: what is computed for either, any can compute."""
    monkeypatch.setattr(attention, "cpu_has_tiles", lambda: request.param)


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "lengths", [[1], [16], [17, 3], [40, 5, 64], [32, 33], [512, 2], [520], [1024], [1025, 2], [3, 1500], [2300]]
)
def test_attention_is_that_of_each_text_alone_whatever_lies_behind_it(lengths: list[int], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(len(lengths))
    heads, width, total = 4, 8, sum(lengths)
    qkv = torch.randn((total + 16, 3 * heads * width), generator=generator)
    # As wide as scaled queries are.
    qkv[:, : heads * width] /= width**0.5
    qkv[total:] = torch.nan
    qkv = qkv.to(dtype)
    mixed = attend(qkv, batch_of(lengths), heads)
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    start = 0
    for length in lengths:
        query, key, value = qkv[start : start + length].float().view(length, 3, heads, width).permute(1, 2, 0, 3)
        wanted = functional.scaled_dot_product_attention(query, key, value, scale=1.0).transpose(0, 1).flatten(1)
        assert torch.allclose(mixed[start : start + length].float(), wanted, atol=tolerance)
        start += length
    assert torch.isfinite(mixed).all()


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lengths", [[5, 40, 70], [40, 3, 41], [33, 1030, 34]])
def test_a_text_of_numbers_that_are_none_spoils_no_other(lengths: list[int], dtype: torch.dtype) -> None:
    qkv = torch.randn((sum(lengths) + 16, 3 * 32), generator=torch.Generator().manual_seed(1)).to(dtype)
    qkv[lengths[0] : lengths[0] + lengths[1]] = torch.nan
    finite = torch.isfinite(attend(qkv, batch_of(lengths), 4)).all(dim=1)[: sum(lengths)]
    assert finite.tolist() == [True] * lengths[0] + [False] * lengths[1] + [True] * lengths[2]


def test_quantised_rows_are_off_by_half_a_step_at_most() -> None:
    rows = torch.randn((50, 64), generator=torch.Generator().manual_seed(1)) * torch.logspace(-6, 6, 50)[:, None]
    rows[7] = 0
    quantised, scales = onednn.quantise(rows.clone())
    assert quantised.dtype == torch.int8
    assert (quantised.float() * scales - rows).abs().le(scales * 0.5001).all()
    assert torch.equal(quantised[7], torch.zeros(64, dtype=torch.int8))


@pytest.mark.skipif("int8" not in PRIVATE, reason="int8 saturates on a processor without VNNI")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_int8_layers_compute_the_same_with_private_ops_as_without(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    weight, bias = torch.randn((96, 64), generator=generator) / 8, torch.randn(96, generator=generator)
    # One row is far larger than the others: each has a scale of its own.
    x = (torch.randn((33, 64), generator=generator) * torch.logspace(-2, 2, 33)[:, None]).to(dtype)
    fast, plain = onednn.Int8Linear(weight.clone(), bias, dtype), onednn.PlainInt8Linear(weight.clone(), bias, dtype)
    for gelu in (False, True):
        assert torch.allclose(fast(x, gelu=gelu).float(), plain(x, gelu=gelu).float(), rtol=0.02, atol=0.05)
    exact = functional.linear(x.float(), weight, bias)
    error = (fast(x).float() - exact).norm() / exact.norm()
    assert error < 0.02
