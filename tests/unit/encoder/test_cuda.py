"""The encoder for GPUs: its attention on any device, and on a GPU that nothing waits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from trivet.encoder import load_encoder, varlen
from trivet.encoder.compare import differences
from trivet.encoder.heads import Batch
from trivet.encoder.models import resolve
from trivet.encoder.random_model import write_random_model
from trivet.encoder.torch_encoder import TorchEncoder
from trivet.encoder.varlen import best_attention, flash, grouped
from trivet.settings import Settings

HEADS, WIDTH = 4, 8

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def batch_of(lengths: list[int], device: str = "cpu") -> Batch:
    offsets = torch.tensor([0, *lengths]).cumsum(0).to(device)
    return Batch(torch.zeros(sum(lengths), dtype=torch.long, device=device), lengths, offsets)


def numbers(lengths: list[int]) -> Tensor:
    return torch.randn((sum(lengths), 3 * HEADS * WIDTH), generator=torch.Generator().manual_seed(len(lengths)))


def one_by_one(qkv: Tensor, lengths: list[int]) -> Tensor:
    texts = qkv.view(len(qkv), 3, HEADS, WIDTH).split(lengths)
    mixed = [functional.scaled_dot_product_attention(*text.permute(1, 2, 0, 3), scale=1.0) for text in texts]
    return torch.cat([text.transpose(0, 1).flatten(1) for text in mixed])


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=30))
def test_attention_in_groups_is_that_of_each_text_alone(lengths: list[int]) -> None:
    qkv = numbers(lengths)
    mixed = grouped(batch_of(lengths), HEADS)(qkv)
    assert torch.allclose(mixed, one_by_one(qkv, lengths), atol=1e-5)


@pytest.mark.parametrize("start", range(1, 700, 100))
def test_attention_in_groups_takes_every_length(start: int) -> None:
    lengths = list(range(start, start + 100))[::-1]
    qkv = numbers(lengths)
    mixed = grouped(batch_of(lengths), HEADS)(qkv)
    assert torch.allclose(mixed, one_by_one(qkv, lengths), atol=1e-5)


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 2000), min_size=1, max_size=60))
def test_groups_hold_every_token_once_with_little_padding_and_no_mask_of_length_squared(lengths: list[int]) -> None:
    groups, back = varlen._groups(batch_of(lengths))
    padded = torch.cat([places.flatten() for places, _ in groups])
    assert torch.equal(padded[back], torch.arange(sum(lengths)))
    assert len(padded) <= sum(lengths) * 1.125
    for places, mask in groups:
        assert mask is None or mask.shape == (len(places), 1, 1, places.shape[1])


def test_the_longest_text_beside_short_ones_is_computed_without_a_mask() -> None:
    groups, _ = varlen._groups(batch_of([8192, 3, 500, 3]))
    assert [(tuple(places.shape), mask) for places, mask in groups] == [
        ((2, 3), None),
        ((1, 500), None),
        ((1, 8192), None),
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="it is about machines without CUDA")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_where_there_is_no_flash_kernel_groups_are_chosen(dtype: torch.dtype) -> None:
    assert best_attention("cpu", dtype, HEADS, WIDTH) is grouped


def changed(how: Callable[[Tensor], Tensor]) -> Callable[[Batch, int], Callable[[Tensor], Tensor]]:
    return lambda batch, heads: lambda qkv: how(grouped(batch, heads)(qkv))


def one_wrong_number(mixed: Tensor) -> Tensor:
    mixed = mixed.clone()
    mixed[-1, -1] += 0.5
    return mixed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_kernel_is_chosen_where_it_computes_the_same_and_not_where_one_number_is_wrong(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    right, wrong = changed(lambda mixed: mixed), changed(one_wrong_number)
    monkeypatch.setattr(varlen, "flash", right)
    assert best_attention("cpu", dtype, HEADS, WIDTH) is right
    monkeypatch.setattr(varlen, "flash", wrong)
    assert best_attention("cpu", dtype, HEADS, WIDTH) is grouped


def test_a_kernel_that_lets_texts_see_each_other_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "flash", lambda batch, heads: grouped(batch_of([len(batch.ids)]), heads))
    assert best_attention("cpu", torch.bfloat16, HEADS, WIDTH) is grouped


def test_auto_is_cuda_where_the_device_is(local: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trivet.encoder import _backend

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    model = resolve(local, str(folder))
    assert _backend(local.model_copy(update={"device": "auto"}), model, "auto") == "cuda"
    assert _backend(local, model, "auto") == "packed"


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_on_a_gpu_the_flash_kernel_is_chosen(dtype: torch.dtype) -> None:
    assert best_attention("cuda", dtype, 16, 64) is flash


@pytest.fixture
def on_gpu(tmp_path: Path) -> Callable[[str], TorchEncoder]:
    """The encoder of one random model in a dtype."""
    local = Settings(state_dir=tmp_path / "state", model_hub=False, device="cuda")
    model = str(write_random_model(tmp_path / "model", seed=3, layers=2, prompts={"passage": "passage: "}))

    def loaded(dtype: str) -> TorchEncoder:
        encoder = load_encoder(local, model, dtype=dtype)
        assert isinstance(encoder, TorchEncoder)
        return encoder

    return loaded


ROWS = [[0, *range(5, 5 + count), 2] for count in (60, 1, 17, 33)]


@needs_gpu
@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_on_a_gpu_starting_a_batch_waits_for_nothing(on_gpu: Callable[[str], TorchEncoder], dtype: str) -> None:
    encoder = on_gpu(dtype)
    wanted = encoder.encode(ROWS)
    torch.cuda.set_sync_debug_mode("error")
    try:
        pending = encoder.start(ROWS)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (pending.legs().dense == wanted.dense).all()


@needs_gpu
def test_on_a_gpu_every_dtype_is_near_fp32(on_gpu: Callable[[str], TorchEncoder]) -> None:
    exact = on_gpu("fp32").encode(ROWS, colbert_fp32=True)
    for dtype, most in (("fp16", 0.02), ("bf16", 0.1)):
        assert max(differences(on_gpu(dtype).encode(ROWS, colbert_fp32=True), exact).values()) < most
