"""The encoder for GPUs: its attention on any device, and on a GPU that nothing waits."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from trivet.encoder import cuda, load_encoder, varlen
from trivet.encoder.compare import differences, largest
from trivet.encoder.cuda import best_add_norm
from trivet.encoder.heads import Batch
from trivet.encoder.layers import Norm, plain_add_norm
from trivet.encoder.models import resolve
from trivet.encoder.onednn import Linear
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
    parts = [text.permute(1, 2, 0, 3).unbind(0) for text in texts]
    mixed = [functional.scaled_dot_product_attention(q, k, v, scale=1.0) for q, k, v in parts]
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
def test_where_there_is_no_flash_kernel_groups_are_chosen_and_a_log_says_so_but_in_fp32(
    dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    assert best_attention("cpu", dtype, HEADS, WIDTH) is grouped
    assert ("flash kernel" in caplog.text) is (dtype != torch.float32)


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


@given(lengths=st.lists(st.sampled_from([1, 7, 500, 2047, 2048, 8192]), min_size=1, max_size=12))
def test_a_long_text_is_a_run_by_itself_and_short_neighbours_are_one(lengths: list[int]) -> None:
    batch = batch_of(lengths)
    runs = varlen._runs(batch)
    assert [run.start for run in runs] == [0, *(run.end for run in runs[:-1])]
    ends = [[run.end] if run.ends is None else (run.ends[1:] + run.start).tolist() for run in runs]
    assert [end for some in ends for end in some] == batch.offsets[1:].tolist()
    assert [run.longest for run in runs if run.ends is None] == [length for length in lengths if length >= 2048]
    assert not any(a.ends is not None and b.ends is not None for a, b in pairwise(runs))


def test_on_a_cpu_and_in_fp32_sums_and_norms_are_torchs() -> None:
    assert best_add_norm("cpu", torch.bfloat16, 64) is plain_add_norm
    assert best_add_norm("cuda", torch.float32, 64) is plain_add_norm


def test_where_triton_is_absent_sums_and_norms_are_torchs_and_a_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "trivet.encoder.triton_norm", raising=False)
    assert best_add_norm("cuda", torch.bfloat16, 64) is plain_add_norm
    assert "no kernel for sums and norms" in caplog.text


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [64, 384, 1024])
def test_what_computes_sums_and_norms_is_taken_where_it_is_right_and_not_where_it_is_wrong(
    width: int, dtype: torch.dtype
) -> None:
    def forgets_epsilon(linear: Linear, inner: Tensor, x: Tensor, norm: Norm, epsilon: float) -> Tensor:
        return plain_add_norm(linear, inner, x, norm, 0.0)

    def one_wrong_number(linear: Linear, inner: Tensor, x: Tensor, norm: Norm, epsilon: float) -> Tensor:
        y = plain_add_norm(linear, inner, x, norm, epsilon)
        y[-1, -1] += 0.5
        return y

    assert cuda._agrees(plain_add_norm, "cpu", dtype, width)
    assert not cuda._agrees(one_wrong_number, "cpu", dtype, width)
    if dtype == torch.float16:
        assert not cuda._agrees(forgets_epsilon, "cpu", dtype, width)


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_on_a_gpu_the_fast_kernels_are_chosen(dtype: torch.dtype) -> None:
    assert best_attention("cuda", dtype, 16, 64) is flash
    for width in (64, 384, 1024):
        assert best_add_norm("cuda", dtype, width) is not plain_add_norm


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


ROWS = [[0, *(5 + at % 90 for at in range(count)), 2] for count in (60, 1, 2100, 17, 33)]


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
        assert largest(differences(on_gpu(dtype).encode(ROWS, colbert_fp32=True), exact).values()) < most
