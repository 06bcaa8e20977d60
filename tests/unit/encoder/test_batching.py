"""Batches are formed by what they cost."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.encoder.batching import cost, pack

lengths_ = st.lists(st.integers(1, 8192), max_size=60)
budgets = st.integers(1, 10_000)


@given(lengths=lengths_, budget=budgets, padded=st.booleans())
def test_every_text_is_in_exactly_one_batch(lengths: list[int], budget: int, padded: bool) -> None:
    batches = pack(lengths, budget, padded=padded)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(batches)


@given(lengths=lengths_, budget=budgets, padded=st.booleans())
def test_no_batch_is_over_the_budget_unless_one_text_is(lengths: list[int], budget: int, padded: bool) -> None:
    for batch in pack(lengths, budget, padded=padded):
        assert len(batch) == 1 or cost([lengths[index] for index in batch], padded=padded) <= budget


@given(lengths=lengths_, budget=budgets, padded=st.booleans())
def test_texts_are_sorted_by_length_across_batches(lengths: list[int], budget: int, padded: bool) -> None:
    in_order = [lengths[index] for batch in pack(lengths, budget, padded=padded) for index in batch]
    assert in_order == sorted(lengths, reverse=True)


@given(lengths=lengths_, budget=budgets, padded=st.booleans())
def test_two_neighbouring_batches_never_fit_into_one(lengths: list[int], budget: int, padded: bool) -> None:
    batches = pack(lengths, budget, padded=padded)
    for one, other in pairwise(batches):
        assert cost([lengths[index] for index in [*one, other[0]]], padded=padded) > budget


def test_padding_is_counted_where_the_backend_computes_it() -> None:
    assert cost([5, 3, 1], padded=False) == 9
    assert cost([5, 3, 1], padded=True) == 15
    assert cost([], padded=True) == 0
    assert pack([5, 3, 1], 9) == [[0, 1, 2]]
    assert pack([5, 3, 1], 9, padded=True) == [[0], [1, 2]]


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        pack([1], 0)
