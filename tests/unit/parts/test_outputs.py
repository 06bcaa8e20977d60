"""What an encoder gives into what is stored: how far it may be off, how much of it is left, and that it is the same."""

from __future__ import annotations

from importlib import import_module
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.support.parts import legs
from trivet.errors import MissingDependency, ModelInvalid
from trivet.parts import outputs as module
from trivet.parts.outputs import dequantise, pool, quantise, shaped, truncate
from trivet.values import Outputs

seeds = st.integers(0, 2**32 - 1)
lengths = st.lists(st.integers(0, 40), max_size=6)
factors = st.integers(2, 16)


def tokens(seed: int, sizes: list[int], d: int = 12) -> tuple[Any, Any]:
    """Unit vectors around a few directions, as those of a text are, and offsets."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((5, d))
    found = centres[rng.integers(0, 5, sum(sizes))] + 0.5 * rng.standard_normal((sum(sizes), d))
    units = found / np.linalg.norm(found, axis=1, keepdims=True)
    return units.astype(np.float32), np.cumsum([0, *sizes]).astype(np.int64)


# ---------------------------------------------------------------- truncation


@given(seed=seeds, width=st.integers(1, 12))
def test_truncated_vectors_are_unit_vectors_along_their_first_numbers(seed: int, width: int) -> None:
    vectors, _ = tokens(seed, [9])
    cut = truncate(vectors, width)
    assert cut.shape == (9, width)
    assert cut.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(cut, axis=1), 1, rtol=1e-5)
    along = np.einsum("nd,nd->n", cut, vectors[:, :width])
    np.testing.assert_allclose(along, np.linalg.norm(vectors[:, :width], axis=1), rtol=1e-4, atol=1e-6)


def test_what_is_narrow_enough_is_not_touched_and_zeros_stay_zeros() -> None:
    vectors = np.array([[0, 0, 1], [3, 4, 0]], np.float32)
    assert truncate(vectors, 3) is vectors
    assert truncate(vectors, 2).tolist() == [[0, 0], [pytest.approx(0.6), pytest.approx(0.8)]]


# ---------------------------------------------------------------- pooling


@given(seed=seeds, sizes=lengths, factor=factors, window=st.sampled_from([8, 17, 1024]))
def test_a_text_of_t_tokens_has_t_over_factor_unit_vectors_rounded_up(
    seed: int, sizes: list[int], factor: int, window: int
) -> None:
    vectors, offsets = tokens(seed, sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WINDOW_TOKENS", window)
        pooled, ends = pool(vectors, offsets, factor)
    assert np.diff(ends).tolist() == [-(-size // factor) for size in sizes]
    assert pooled.shape == (ends[-1], 12)
    np.testing.assert_allclose(np.linalg.norm(pooled, axis=1), 1, rtol=1e-5)


@given(seed=seeds, sizes=lengths, factor=factors)
def test_pooling_is_the_same_each_time_and_does_not_depend_on_the_neighbours(
    seed: int, sizes: list[int], factor: int
) -> None:
    vectors, offsets = tokens(seed, sizes)
    pooled, ends = pool(vectors, offsets, factor)
    assert np.array_equal(pool(vectors, offsets, factor)[0], pooled)
    for i, size in enumerate(sizes):
        alone, _ = pool(vectors[offsets[i] : offsets[i + 1]], np.array([0, size]), factor)
        np.testing.assert_allclose(alone, pooled[ends[i] : ends[i + 1]], atol=1e-6)


def brute_force(vectors: Any, count: int) -> list[list[int]]:
    """Ward's method by its definition: merge the two clusters whose union adds least to the squared errors."""
    clusters = [[i] for i in range(len(vectors))]

    def error(rows: list[int]) -> float:
        found = vectors[rows].astype(np.float64)
        return float(((found - found.mean(axis=0)) ** 2).sum())

    while len(clusters) > count:
        one, two = min(combinations(clusters, 2), key=lambda pair: error(pair[0] + pair[1]) - sum(map(error, pair)))
        clusters = [cluster for cluster in clusters if cluster not in (one, two)] + [one + two]
    return sorted((sorted(cluster) for cluster in clusters), key=min)


@given(seed=seeds, size=st.integers(1, 12), factor=st.integers(2, 6))
def test_clusters_are_those_of_wards_method_by_its_definition_in_order_of_their_first_token(
    seed: int, size: int, factor: int
) -> None:
    vectors, offsets = tokens(seed, [size])
    pooled, _ = pool(vectors, offsets, factor)
    expected = np.stack([vectors[rows].mean(axis=0) for rows in brute_force(vectors, -(-size // factor))])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(pooled, expected, atol=1e-5)


@given(size=st.integers(1, 30), factor=factors)
def test_equal_tokens_are_pooled_to_the_same_count_as_others(size: int, factor: int) -> None:
    same = np.tile(np.array([[0.6, 0.8]], np.float32), (size, 1))
    pooled, ends = pool(same, np.array([0, size]), factor)
    assert ends.tolist() == [0, -(-size // factor)]
    np.testing.assert_allclose(pooled, same[: ends[-1]], rtol=1e-6)


def test_opposite_tokens_pool_to_zeros_and_never_to_numbers_that_are_not_finite() -> None:
    pooled, _ = pool(np.array([[1, 0], [-1, 0]], np.float32), np.array([0, 2]), 2)
    assert pooled.tolist() == [[0, 0]]


def test_without_scipy_pooling_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        if name.startswith("scipy"):
            raise ModuleNotFoundError(name="scipy")
        return import_module(name)

    monkeypatch.setattr(module, "import_module", missing)
    vectors, offsets = tokens(1, [9])
    with pytest.raises(MissingDependency, match="'scipy'"):
        pool(vectors, offsets, 2)


# ---------------------------------------------------------------- int8


@given(arrays(np.float32, st.tuples(st.integers(0, 9), st.integers(1, 9)), elements=st.floats(-4, 4, width=32)))
def test_int8_is_off_by_half_a_scale_at_most_and_the_scale_is_the_largest_number_over_127(vectors: Any) -> None:
    numbers, scales = quantise(vectors)
    assert numbers.dtype == np.int8
    assert scales.dtype == np.float32
    assert scales.shape == (len(vectors),)
    assert np.abs(numbers.astype(int)).max(initial=0) <= 127
    largest = np.abs(vectors).max(axis=1, initial=0)
    np.testing.assert_allclose(scales, largest / 127, rtol=1e-6, atol=float(np.finfo(np.float32).tiny))
    off = np.abs(dequantise(numbers, scales) - vectors).max(axis=1, initial=0)
    assert (off <= scales / 2 + largest * 1e-6 + 127 * np.finfo(np.float32).tiny).all()


@given(seed=seeds)
def test_what_came_back_from_int8_gives_the_same_int8_again(seed: int) -> None:
    vectors, _ = tokens(seed, [20])
    numbers, scales = quantise(vectors)
    again, _ = quantise(dequantise(numbers, scales))
    assert np.array_equal(again, numbers)


# ---------------------------------------------------------------- together


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused(bad: float) -> None:
    vectors, offsets = tokens(1, [9])
    vectors[4, 3] = bad
    with pytest.raises(ModelInvalid, match="not finite"):
        quantise(vectors)
    with pytest.raises(ModelInvalid, match="not finite"):
        pool(vectors, offsets, 2)


def test_outputs_that_ask_for_nothing_change_nothing() -> None:
    made = legs([4, 6])
    after = shaped(made, Outputs())
    assert all(getattr(after, name) is getattr(made, name) for name in type(made).__slots__)


def test_legs_are_cut_before_they_are_pooled() -> None:
    made = legs([9, 5], colbert=8)
    after = shaped(made, Outputs(colbert_dimensions=3, colbert_pooling=2, dense_dimensions=5))
    pooled, offsets = pool(truncate(made.colbert, 3), made.colbert_offsets, 2)
    assert np.array_equal(after.colbert, pooled)
    assert np.array_equal(after.colbert_offsets, offsets)
    assert np.array_equal(after.dense, truncate(made.dense, 5))
    assert after.sparse_ids is made.sparse_ids
