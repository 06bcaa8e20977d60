"""The vectorised heads against the definitions, written out token by token."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trivet.encoder.compare import terms
from trivet.encoder.heads import Batch, Heads

HIDDEN, WIDTH = 8, 6
PROMPT = (9, 10)


def heads(pooling: str = "cls") -> Heads:
    generator = torch.Generator().manual_seed(0)
    return Heads(
        sparse_weight=torch.randn((1, HIDDEN), generator=generator),
        sparse_bias=torch.tensor([0.1]),
        colbert_weight=torch.randn((WIDTH, HIDDEN), generator=generator),
        colbert_bias=torch.randn(WIDTH, generator=generator),
        pooling=pooling,  # type: ignore[arg-type]  # the two values below
        special_ids=torch.tensor([0, 1, 2, 3]),
        prompts=(torch.tensor(PROMPT),),
    )


def batch(rows: list[list[int]]) -> Batch:
    lengths = [len(row) for row in rows]
    return Batch(
        torch.tensor([token for row in rows for token in row]), lengths, torch.tensor([0, *np.cumsum(lengths).tolist()])
    )


texts = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=12), min_size=1, max_size=5)


@settings(max_examples=200)
@given(rows=texts, seed=st.integers(0, 100))
def test_sparse_is_relu_maximum_per_id_without_special_tokens_prompts_and_zeros(
    rows: list[list[int]], seed: int
) -> None:
    hidden = torch.randn((sum(map(len, rows)), HIDDEN), generator=torch.Generator().manual_seed(seed))
    legs = heads().legs(hidden, batch(rows), colbert=False, colbert_fp32=False)
    start = 0
    for at, row in enumerate(rows):
        wanted: dict[int, float] = {}
        prompted = len(row) >= len(PROMPT) + 2 and tuple(row[1 : 1 + len(PROMPT)]) == PROMPT
        for place, token in enumerate(row):
            weight = float(torch.relu(heads().sparse_weight[0] @ hidden[start + place] + 0.1))
            in_prompt = prompted and 1 <= place <= len(PROMPT)
            if weight > 0 and token not in (0, 1, 2, 3) and not in_prompt:
                wanted[token] = max(wanted.get(token, 0.0), weight)
        assert terms(legs, at) == pytest.approx(wanted, abs=1e-5)
        assert list(terms(legs, at)) == sorted(wanted)
        start += len(row)


@settings(max_examples=50)
@given(rows=texts, pooling=st.sampled_from(["cls", "mean"]))
def test_dense_and_colbert_are_what_the_definitions_say(rows: list[list[int]], pooling: str) -> None:
    hidden = torch.randn((sum(map(len, rows)), HIDDEN), generator=torch.Generator().manual_seed(1))
    layer = heads(pooling)
    legs = layer.legs(hidden, batch(rows), colbert=True, colbert_fp32=True)
    start = 0
    for at, row in enumerate(rows):
        states = hidden[start : start + len(row)]
        pooled = states[0] if pooling == "cls" else states.mean(0)
        assert np.allclose(legs.dense[at], pooled / pooled.norm(), atol=1e-5)
        vectors = states[1:] @ layer.colbert_weight.T + layer.colbert_bias
        part = legs.colbert[legs.colbert_offsets[at] : legs.colbert_offsets[at + 1]]
        assert np.allclose(part, vectors / vectors.norm(dim=1, keepdim=True), atol=1e-5)
        start += len(row)


def test_a_prompt_in_the_middle_of_a_text_keeps_its_weights() -> None:
    row = [0, 11, *PROMPT, 2]
    hidden = heads().sparse_weight.expand(len(row), HIDDEN).clone()  # every weight is large
    legs = heads().legs(hidden, batch([row]), colbert=False, colbert_fp32=False)
    assert list(terms(legs, 0)) == [9, 10, 11]


def test_a_word_of_the_prompt_that_comes_again_keeps_its_weight() -> None:
    row = [0, *PROMPT, 9, 2]
    hidden = heads().sparse_weight.expand(len(row), HIDDEN).clone()
    legs = heads().legs(hidden, batch([row]), colbert=False, colbert_fp32=False)
    assert list(terms(legs, 0)) == [9]
