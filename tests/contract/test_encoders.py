"""What every encoder must do. Weights are small and random; that they mean nothing does not matter here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.support import processor
from trivet.encoder import Encoder, Legs, load_encoder
from trivet.encoder.canary import canary_texts
from trivet.encoder.compare import differences, largest, row, terms
from trivet.encoder.cuda import CudaEncoder
from trivet.encoder.models import resolve
from trivet.encoder.random_model import write_random_model
from trivet.encoder.tokenizer import Tokenizer
from trivet.errors import InvalidRequest
from trivet.settings import Settings

#: Device, backend, dtype, pooling, and how much the company of other texts in a batch may change a leg.
KINDS = [
    ("cpu", "transformers", "fp32", "cls", 2e-6),
    ("cpu", "transformers", "bf16", "mean", 0.08),
    ("cpu", "packed", "fp32", "cls", 2e-6),
    ("cpu", "packed", "bf16", "mean", 0.08),
    ("cpu", "packed", "int8", "cls", 0.15),
    ("cpu", "cuda", "fp32", "cls", 2e-6),
    ("cpu", "cuda", "bf16", "mean", 0.08),
    ("cpu", "fake", "fp32", "mean", 0.0),
    ("cuda", "cuda", "fp32", "cls", 1e-5),
    ("cuda", "cuda", "fp16", "cls", 0.02),
    ("cuda", "cuda", "bf16", "mean", 0.08),
    ("cuda", "transformers", "fp16", "cls", 0.02),
]


class CudaOnCpu(CudaEncoder):
    """What of the encoder for GPUs needs none."""

    dtypes: ClassVar[Mapping[str, tuple[str, ...]]] = {"cpu": ("fp32", "bf16")}


class Subject:
    """One encoder with its tokenizer."""

    def __init__(self, encoder: Encoder, tokenizer: Tokenizer, device: str, tolerance: float) -> None:
        self.encoder, self.tokenizer, self.device, self.tolerance = encoder, tokenizer, device, tolerance

    def rows(self, *texts: str) -> list[list[int]]:
        return self.tokenizer.encode(texts, "passage")


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: "-".join(kind[:4]))
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    device, backend, dtype, pooling, tolerance = request.param
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    state: Path = tmp_path_factory.mktemp("state")
    settings = Settings(state_dir=state, model_hub=False, device=device, encoder_threads=1)
    name = "fake"
    if backend != "fake":
        prompts = {"query": "query: ", "passage": "passage: "} if pooling == "mean" else {}
        # Without instructions for bf16 a processor takes forty seconds for a text of 8,192 tokens.
        positions = 2050 if (backend, dtype) == ("packed", "bf16") and not processor.BF16 else 8194
        name = str(
            write_random_model(state / "model", seed=7, layers=2, pooling=pooling, prompts=prompts, positions=positions)
        )
    tokenizer = Tokenizer.load(resolve(settings, name))
    if (device, backend) == ("cpu", "cuda"):
        encoder: Encoder = CudaOnCpu.load(settings, resolve(settings, name), dtype=dtype)
    else:
        encoder = load_encoder(settings, name, backend=backend, dtype=dtype)
    return Subject(encoder, tokenizer, device, tolerance)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return list(canary_texts().values())


def test_shapes_dtypes_and_layout_are_what_legs_promises(subject: Subject, texts: list[str]) -> None:
    rows = subject.rows(*texts)
    legs = subject.encoder.encode(rows)
    identity, total = subject.encoder.identity, sum(map(len, rows))
    assert len(legs) == len(rows)
    assert legs.dense.shape == (len(rows), identity.dimensions)
    assert legs.colbert.shape == (total - len(rows), identity.colbert_dimensions)
    assert [legs.dense.dtype, legs.colbert.dtype] == [np.float32, np.float16]
    assert [legs.sparse_ids.dtype, legs.sparse_weights.dtype] == [np.uint32, np.float32]
    assert [legs.sparse_offsets.dtype, legs.colbert_offsets.dtype] == [np.int64, np.int64]
    assert len(legs.sparse_ids) == len(legs.sparse_weights) == legs.sparse_offsets[-1] > 0
    assert all(getattr(legs, name).flags.c_contiguous for name in Legs.__slots__)


def test_every_token_but_the_first_has_a_colbert_vector(subject: Subject, texts: list[str]) -> None:
    rows = subject.rows(*texts)
    assert np.diff(subject.encoder.encode(rows).colbert_offsets).tolist() == [len(row) - 1 for row in rows]


def test_dense_and_colbert_vectors_have_length_one(subject: Subject, texts: list[str]) -> None:
    legs = subject.encoder.encode(subject.rows(*texts), colbert_fp32=True)
    assert np.allclose(np.linalg.norm(legs.dense, axis=1), 1, atol=1e-5)
    assert np.allclose(np.linalg.norm(legs.colbert, axis=1), 1, atol=1e-5)


def test_sparse_terms_ascend_without_repeats_and_come_from_the_text(subject: Subject, texts: list[str]) -> None:
    rows = subject.rows(*texts, "word word word")
    legs = subject.encoder.encode(rows)
    assert (legs.sparse_weights > 0).all()
    for at, tokens in enumerate(rows):
        found = list(terms(legs, at))
        assert found == sorted(set(found))
        assert set(found) <= set(tokens) - subject.tokenizer.special_ids


def test_prompts_carry_no_sparse_weight(subject: Subject) -> None:
    (tokens,) = subject.rows("")
    legs = subject.encoder.encode([tokens])
    assert len(tokens) == subject.tokenizer.overhead("passage")
    assert len(legs.sparse_ids) == 0


def test_a_text_gets_the_same_legs_alone_as_in_company(subject: Subject, texts: list[str]) -> None:
    rows = subject.rows(*texts, "", "x")
    together = subject.encoder.encode(rows, colbert_fp32=True)
    for at, tokens in enumerate(rows):
        alone = subject.encoder.encode([tokens], colbert_fp32=True)
        assert largest(differences(alone, row(together, at)).values()) <= subject.tolerance


def test_order_of_texts_is_kept(subject: Subject, texts: list[str]) -> None:
    rows = subject.rows(*texts)
    forth = subject.encoder.encode(rows, colbert_fp32=True)
    back = subject.encoder.encode(rows[::-1], colbert_fp32=True)
    for at in range(len(rows)):
        gaps = differences(row(forth, at), row(back, len(rows) - 1 - at))
        assert max(gaps.values()) <= subject.tolerance


def test_different_texts_get_different_vectors(subject: Subject, texts: list[str]) -> None:
    dense = subject.encoder.encode(subject.rows(*texts)).dense
    likeness = dense @ dense.T - 2 * np.eye(len(texts))
    assert likeness.max() < 0.999


def test_an_empty_text_has_a_dense_vector_and_one_colbert_vector_but_no_terms(subject: Subject) -> None:
    legs = subject.encoder.encode(subject.tokenizer.encode([""], "plain"))
    assert legs.dense.shape[0] == 1
    assert legs.sparse_offsets.tolist() == [0, 0]
    assert legs.colbert_offsets.tolist() == [0, 1]


def test_without_colbert_the_other_legs_are_the_same(subject: Subject, texts: list[str]) -> None:
    rows = subject.rows(*texts)
    full, part = subject.encoder.encode(rows), subject.encoder.encode(rows, colbert=False)
    assert part.colbert.shape == (0, 0)
    assert part.colbert_offsets.tolist() == [0] * (len(rows) + 1)
    assert np.array_equal(full.dense, part.dense)
    assert np.array_equal(full.sparse_weights, part.sparse_weights)


def test_colbert_in_float16_is_the_rounded_float32(subject: Subject, texts: list[str]) -> None:
    rows = subject.rows(*texts)
    exact = subject.encoder.encode(rows, colbert_fp32=True).colbert
    assert exact.dtype == np.float32
    assert np.array_equal(subject.encoder.encode(rows).colbert, exact.astype(np.float16))


def test_batches_that_are_started_ahead_get_the_same_legs_in_whatever_order_they_are_read(
    subject: Subject, texts: list[str]
) -> None:
    rows = subject.rows(*texts, "")
    parts = [rows[:3], rows[3:4], rows[4:]]
    alone = [subject.encoder.encode(part) for part in parts]
    pending = [subject.encoder.start(part) for part in parts]
    for at in (1, 0, 2):
        legs = pending[at].legs()
        for name in Legs.__slots__:
            assert np.array_equal(getattr(legs, name), getattr(alone[at], name))


def test_only_an_encoder_on_another_device_overlaps(subject: Subject) -> None:
    assert subject.encoder.overlaps is (subject.device == "cuda")


def test_the_longest_input_is_taken_and_a_longer_one_refused(subject: Subject) -> None:
    longest = subject.encoder.identity.max_tokens
    tokens = [0, *[5 + at % 90 for at in range(longest - 2)], 2]
    assert subject.encoder.encode([tokens], colbert=False).dense.shape[0] == 1
    with pytest.raises(InvalidRequest, match=f"{longest + 1} tokens; the model takes {longest}"):
        subject.encoder.encode([[0, 2], [*tokens, 2]])


@pytest.mark.parametrize(
    ("rows", "message"),
    [([], "no texts"), ([[0, 2], []], "Text 1 has no tokens"), ([[0, 10**7, 2]], "vocabulary"), ([[-1]], "vocabulary")],
)
def test_input_that_no_model_takes_is_refused(subject: Subject, rows: list[list[int]], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        subject.encoder.encode(rows)
    with pytest.raises(InvalidRequest, match=message):
        subject.encoder.start(rows)


def test_the_passport_names_the_model_that_ran(subject: Subject) -> None:
    identity, passport = subject.encoder.identity, subject.encoder.passport
    assert (passport.model, passport.revision) == (identity.name, identity.revision)
    assert (passport.requested_model, passport.encoder_key) == (identity.requested, identity.encoder_key)
    assert passport.dtype in ("fp32", "bf16", "fp16", "int8")
    assert passport.device.startswith(subject.device)


@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.lists(st.integers(0, 120), min_size=1, max_size=40), min_size=1, max_size=6))
def test_any_ids_give_finite_unit_vectors_and_ascending_terms(subject: Subject, rows: list[list[int]]) -> None:
    legs = subject.encoder.encode(rows, colbert_fp32=True)
    assert np.allclose(np.linalg.norm(legs.dense, axis=1), 1, atol=1e-5)
    assert legs.colbert_offsets.tolist() == np.cumsum([0, *(len(row) - 1 for row in rows)]).tolist()
    assert np.isfinite(legs.colbert).all()
    for at, tokens in enumerate(rows):
        found = list(terms(legs, at))
        assert found == sorted(set(found))
        assert set(found) <= set(tokens)


def test_a_query_and_a_passage_differ_by_the_prompt_alone(subject: Subject) -> None:
    kinds: list[Callable[[str], list[int]]] = [
        lambda text: subject.tokenizer.encode([text], "passage")[0],
        lambda text: subject.tokenizer.encode([text], "query")[0],
    ]
    plain = subject.tokenizer.encode(["vector of a token"], "plain")[0]
    for kind in kinds:
        assert kind("vector of a token")[-len(plain) + 1 :] == plain[1:]
