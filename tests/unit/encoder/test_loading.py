"""Weights, backends, dtypes and passports: what loads, what is refused, and with which words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.unit.encoder.conftest import PRIVATE
from trivet.encoder import load_encoder, onednn, packed, runtime
from trivet.encoder.canary import canary_texts
from trivet.encoder.compare import differences
from trivet.encoder.files import replacing
from trivet.encoder.models import resolve
from trivet.encoder.random_model import write_random_model
from trivet.encoder.tokenizer import Tokenizer
from trivet.encoder.torch_encoder import TorchEncoder
from trivet.errors import EncoderOutOfMemory, InvalidRequest, ModelInvalid, ModelUnavailable
from trivet.settings import Settings


def rows(settings: Settings, folder: Path) -> list[list[int]]:
    texts = ["", "A search engine", *list(canary_texts().values())[:2]]
    return [ids[:100] for ids in Tokenizer.load(resolve(settings, str(folder))).encode(texts, "plain")]


def test_a_pickle_gives_the_same_legs_and_is_converted_once(local: Settings, tmp_path: Path) -> None:
    safe = write_random_model(tmp_path / "safe", seed=5, layers=1)
    pickled = write_random_model(tmp_path / "pickled", seed=5, layers=1, pickled=True)
    assert not (pickled / "model.safetensors").exists()
    first, second = (load_encoder(local, str(folder), dtype="fp32") for folder in (safe, pickled))
    ids = rows(local, safe)
    assert max(differences(first.encode(ids, colbert_fp32=True), second.encode(ids, colbert_fp32=True)).values()) == 0
    (converted,) = (local.state_dir / "converted").iterdir()
    before = converted.stat().st_mtime_ns
    load_encoder(local, str(pickled), dtype="fp32")
    assert converted.stat().st_mtime_ns == before
    assert "pytorch_model.bin" in second.passport.checksums


class Evil:
    """Would run code when unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("code of a model was run",))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "sparse_linear.pt"])
def test_a_pickle_that_holds_code_is_refused_and_not_run(local: Settings, folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / "kept") if name == "pytorch_model.bin" else None
    torch.save({"weight": Evil()}, folder / name)
    with pytest.raises(ModelInvalid, match=f"{name} cannot be read as weights"):
        load_encoder(local, str(folder))


def test_sharded_weights_give_the_same_legs(local: Settings, folder: Path) -> None:
    whole = load_encoder(local, str(folder), dtype="fp32")
    state = load_file(folder / "model.safetensors")
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: state[name].clone() for name in held}, folder / file)
    index = {name: file for file, held in parts.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    ids = rows(local, folder)
    before = whole.encode(ids, colbert_fp32=True)
    (folder / "model.safetensors").unlink()
    sharded = load_encoder(local, str(folder), dtype="fp32")
    assert set(parts) <= set(sharded.passport.checksums)
    assert max(differences(before, sharded.encode(ids, colbert_fp32=True)).values()) == 0
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match="has no weights"):
        load_encoder(local, str(folder))


def test_a_folder_without_weights_is_unavailable(local: Settings, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match=r"has no weights\. Put model\.safetensors or pytorch_model\.bin"):
        load_encoder(local, str(folder))


def test_weights_that_do_not_match_the_config_are_invalid(local: Settings, folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    less = {name: value for name, value in state.items() if name != "embeddings.LayerNorm.bias"}
    save_file(less, folder / "model.safetensors")
    with pytest.raises(ModelInvalid, match=r"embeddings\.LayerNorm\.bias .* is missing"):
        load_encoder(local, str(folder))
    save_file(state | {"embeddings.LayerNorm.bias": torch.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(ModelInvalid, match=r"has shape \(3,\)"):
        load_encoder(local, str(folder))
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelInvalid, match="cannot be read"):
        load_encoder(local, str(folder))


def test_weights_under_the_names_of_a_full_model_are_found(local: Settings, folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    renamed = {f"roberta.{name}": value for name, value in state.items()} | {"lm_head.bias": torch.zeros(4)}
    save_file(renamed, folder / "model.safetensors")
    assert load_encoder(local, str(folder)).passport.parity is not None


def test_a_head_of_another_width_is_invalid(local: Settings, folder: Path) -> None:
    torch.save({"weight": torch.zeros(1, 9), "bias": torch.zeros(1)}, folder / "sparse_linear.pt")
    with pytest.raises(ModelInvalid, match=r"sparse_linear\.pt .* linear layer of shape \(1, 32\)"):
        load_encoder(local, str(folder))


def test_a_narrower_colbert_head_is_used_where_the_model_states_it(local: Settings, folder: Path) -> None:
    torch.save({"weight": torch.randn(16, 32), "bias": torch.zeros(16)}, folder / "colbert_linear.pt")
    (folder / "trivet_model.json").write_text('{"colbert_dimensions": 16}')
    encoder = load_encoder(local, str(folder))
    assert encoder.encode([[0, 5, 2]]).colbert.shape == (2, 16)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_transformers_runs_every_dtype(local: Settings, folder: Path, dtype: str) -> None:
    encoder = load_encoder(local, str(folder), backend="transformers", dtype=dtype)
    exact = load_encoder(local, str(folder), backend="packed", dtype="fp32")
    assert encoder.passport.dtype == dtype
    ids = rows(local, folder)
    gaps = differences(encoder.encode(ids, colbert_fp32=True), exact.encode(ids, colbert_fp32=True))
    assert max(gaps.values()) < (1e-5 if dtype == "fp32" else 0.1)


def test_auto_is_packed_on_a_cpu_in_what_the_processor_is_made_for(local: Settings, folder: Path) -> None:
    encoder = load_encoder(local, str(folder))
    assert encoder.passport.backend.startswith("packed/")
    assert encoder.passport.dtype == ("bf16" if runtime.cpu_has_bf16() else "fp32")


def test_settings_choose_backend_and_dtype_where_the_call_does_not(local: Settings, folder: Path) -> None:
    chosen = local.model_copy(update={"encoder_backend": "transformers", "dtype": "fp32"})
    passport = load_encoder(chosen, str(folder)).passport
    assert (passport.backend, passport.dtype) == ("transformers", "fp32")
    assert load_encoder(chosen, str(folder), backend="packed", dtype="bf16").passport.dtype == "bf16"


def test_without_the_private_ops_the_packed_backend_computes_the_same_through_public_ones_and_a_log_says_so(
    local: Settings,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ids = rows(local, folder)
    fast = load_encoder(local, str(folder), backend="packed", dtype="fp32").encode(ids, colbert_fp32=True)

    def absent(*_: object) -> None:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_reorder_linear_weight'")

    monkeypatch.setattr(onednn.PackedLinear, "__init__", absent)
    plain = load_encoder(local, str(folder), backend="packed", dtype="fp32")
    assert plain.passport.backend == "packed/torch"
    assert "encoder.slow: fp32" in caplog.text
    # What is printed there is a command's answer, such as JSON.
    assert capsys.readouterr().out == ""
    assert max(differences(fast, plain.encode(ids, colbert_fp32=True)).values()) < 1e-5


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_private_ops_are_used_for_what_this_processor_computes_right_and_for_nothing_else(
    local: Settings, folder: Path, dtype: str
) -> None:
    passport = load_encoder(local, str(folder), backend="packed", dtype=dtype).passport
    assert passport.backend == ("packed/onednn" if dtype in PRIVATE else "packed/torch")


@pytest.mark.parametrize("spoils", [lambda rows: rows >= onednn.BLOCK, lambda rows: rows < 16], ids=["block", "query"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_private_ops_that_compute_something_else_are_not_used(
    local: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, spoils: Callable[[int], bool]
) -> None:
    if dtype not in PRIVATE:
        pytest.skip(f"this processor's oneDNN has no {dtype}")
    ids = rows(local, folder)
    right = load_encoder(local, str(folder), backend="packed", dtype=dtype)
    wrong = spoiled(onednn.Int8Linear if dtype == "int8" else onednn.PackedLinear, spoils)
    monkeypatch.setattr(onednn, wrong.__bases__[0].__name__, wrong)
    plain = load_encoder(local, str(folder), backend="packed", dtype=dtype)
    assert plain.passport.backend == "packed/torch"
    gaps = differences(right.encode(ids, colbert_fp32=True), plain.encode(ids, colbert_fp32=True))
    assert max(gaps.values()) < (1e-5 if dtype == "fp32" else 0.1)


def spoiled(kind: Any, spoils: Callable[[int], bool]) -> type:
    """The same layer, wrong in one number at some counts of rows: what a kernel with a bug in its rest would do."""

    class Spoiled(kind):  # type: ignore[misc]  # whichever layer it is
        def __call__(self, x: torch.Tensor, **after: Any) -> torch.Tensor:
            y: torch.Tensor = super().__call__(x, **after)
            if spoils(len(x)):
                y[-1, -1] += 5
            return y

    return Spoiled


@pytest.mark.parametrize(
    ("model", "backend", "dtype", "message"),
    [
        ("random", "onnx", "auto", "No encoder backend is called 'onnx'"),
        ("random", "packed", "fp16", "packed encoder computes in fp32, bf16, int8 on cpu; fp16 on cpu was asked for"),
        ("random", "transformers", "int8", "transformers encoder computes in fp32, bf16, fp16 on cpu or"),
        ("random", "packed", "int4", "No dtype is called 'int4'"),
        ("random", "fake", "auto", "'fake' cannot run the model 'random'"),
        ("fake", "packed", "auto", "'packed' cannot run the model 'fake'"),
    ],
)
def test_what_a_backend_cannot_do_is_refused(
    local: Settings, folder: Path, model: str, backend: str, dtype: str, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        load_encoder(local, str(folder) if model == "random" else model, backend=backend, dtype=dtype)


def test_another_activation_is_left_to_transformers(local: Settings, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    with pytest.raises(ModelInvalid, match=r"'relu'.*TRIVET_ENCODER_BACKEND=transformers"):
        load_encoder(local, str(folder), backend="packed")
    assert load_encoder(local, str(folder), backend="transformers").passport.parity is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="it is about machines without CUDA")
def test_cuda_that_is_not_there_is_refused(local: Settings, folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="TRIVET_DEVICE is cuda"):
        load_encoder(local.model_copy(update={"device": "cuda"}), str(folder))
    with pytest.raises(InvalidRequest, match="TRIVET_DEVICE is 'tpu'"):
        runtime.pick_device("tpu")


def test_the_passport_has_the_checksums_of_all_files_and_a_measured_parity(local: Settings, folder: Path) -> None:
    passport = load_encoder(local, str(folder), dtype="fp32").passport
    names = {"config.json", "tokenizer.json", "1_Pooling/config.json", "sparse_linear.pt", "colbert_linear.pt"}
    assert names | {"model.safetensors"} <= set(passport.checksums)
    for name, value in passport.checksums.items():
        assert value == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert passport.parity is not None
    assert 0 <= passport.parity < 1e-5
    assert {"torch", "numpy", "trivet", "python"} <= set(passport.library_versions)


def test_parity_and_checksums_are_computed_again_only_for_other_files(
    local: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_encoder(local, str(folder), dtype="bf16").passport
    monkeypatch.setattr("trivet.encoder.canary.PlainLinear", None)  # would fail if a plain pass were made
    assert load_encoder(local, str(folder), dtype="bf16").passport == first
    assert first.parity is not None
    assert first.parity > 1e-5
    with pytest.raises(TypeError):
        load_encoder(local, str(folder), dtype="fp32")


class Hungry(TorchEncoder):
    """Fails in its forward pass as it is told."""

    error: Exception | None = None

    def prepare(self, state: object) -> None:
        pass

    def hidden(self, batch: object) -> torch.Tensor:
        if self.error is not None:
            raise self.error
        return torch.empty(1 << 55)


@pytest.fixture
def hungry(local: Settings, folder: Path) -> Hungry:
    loaded = load_encoder(local, str(folder), backend="packed", dtype="fp32")
    assert isinstance(loaded, packed.PackedEncoder)
    return Hungry(loaded.resolved, loaded.config, loaded.heads, device="cpu", precision="fp32")


def test_an_allocation_that_fails_is_out_of_memory(hungry: Hungry) -> None:
    with pytest.raises(EncoderOutOfMemory, match="no memory for a batch of 3 tokens"):
        hungry.encode([[0, 5, 2]])


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()])
def test_what_torch_and_python_raise_for_it_is_out_of_memory(hungry: Hungry, error: Exception) -> None:
    hungry.error = error
    with pytest.raises(EncoderOutOfMemory):
        hungry.encode([[0, 5, 2]])


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape '[3]' is invalid for input of size 4"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied; out of memory of nobody"),
        ValueError("no"),
    ],
)
def test_no_other_error_is_taken_for_out_of_memory(hungry: Hungry, error: Exception) -> None:
    hungry.error = error
    with pytest.raises(type(error)) as caught:
        hungry.encode([[0, 5, 2]])
    assert caught.value is error


def test_a_state_folder_that_cannot_be_written_stops_nothing_but_conversion(local: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    blocked = local.model_copy(update={"state_dir": tmp_path / "file"})
    assert load_encoder(blocked, str(write_random_model(tmp_path / "safe", seed=1, layers=1))).passport.checksums
    pickled = write_random_model(tmp_path / "pickled", seed=1, layers=1, pickled=True)
    with pytest.raises(ModelUnavailable, match="cannot be written as safetensors"):
        load_encoder(blocked, str(pickled))


def test_random_models_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    one, two, three = (
        load_file(write_random_model(tmp_path / name, seed=seed, layers=1) / "model.safetensors")
        for name, seed in (("1", 4), ("2", 4), ("3", 5))
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    name = "encoder.layer.0.output.dense.weight"
    assert not np.allclose(one[name], three[name])


def test_two_writers_of_one_file_never_share_a_draft_and_none_is_left_behind(tmp_path: Path) -> None:
    target = tmp_path / "made" / "notes.json"
    with replacing(target) as one, replacing(target) as other:
        one.write_text("one")
        other.write_text("other")
        assert not target.exists()
    assert target.read_text() == "one"
    with suppress(ZeroDivisionError), replacing(target) as broken:
        broken.write_text("half")
        raise ZeroDivisionError
    assert target.read_text() == "one"
    assert [path.name for path in target.parent.iterdir()] == ["notes.json"]


def test_more_threads_than_a_process_could_start_are_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIVET_ENCODER_THREADS", "20000")
    with pytest.raises(InvalidRequest, match="Setting TRIVET_ENCODER_THREADS is wrong"):
        Settings.load()
