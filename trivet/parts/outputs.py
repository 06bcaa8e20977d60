"""What an encoder gives into what a collection stores: truncated, pooled, quantised; and numbers back from int8.

The order is: truncate, pool, quantise. All over arrays, in float32, and the same for the same input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from trivet.encoder import Legs
from trivet.errors import MissingDependency, ModelInvalid
from trivet.parts.arrow import np
from trivet.values import Outputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Tokens that are clustered together: clustering takes 16 bytes per pair of them.
WINDOW_TOKENS = 1024
#: Largest number of an int8 vector: symmetric, so that -128 is not used.
_LARGEST = 127


def shaped(legs: Legs, outputs: Outputs) -> Legs:
    """Legs of the widths and the number of token vectors that `outputs` asks for; as they are where it asks for none.

    What is cut or pooled is float32. Raises `ModelInvalid` for vectors to be pooled that are not finite, and
    `MissingDependency` where pooling has no scipy.
    """
    dense, colbert, offsets = legs.dense, legs.colbert, legs.colbert_offsets
    if outputs.dense_dimensions is not None:
        dense = truncate(dense, outputs.dense_dimensions)
    if outputs.colbert_dimensions is not None:
        colbert = truncate(colbert, outputs.colbert_dimensions)
    if outputs.colbert_pooling > 1:
        colbert, offsets = pool(colbert, offsets, outputs.colbert_pooling)
    return replace(legs, dense=dense, colbert=colbert, colbert_offsets=offsets)


def truncate(vectors: NDArray[Any], width: int) -> NDArray[Any]:
    """[…, d] → […, width] float32: the first `width` numbers, L2-normalised again; as they are where d ≤ width.

    Zeros stay zeros. The scheme is that of Matryoshka representations (Kusupati et al. 2022), which bge-m3 was not
    trained for.
    """
    return vectors if vectors.shape[-1] <= width else _normalised(vectors[..., :width].astype(np.float32))


def _normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    units: NDArray[np.float32] = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return units


# ---------------------------------------------------------------- pooling


def pool(
    vectors: NDArray[np.float16] | NDArray[np.float32], offsets: NDArray[np.int64], factor: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Similar token vectors of a text become their mean, L2-normalised again.

    [sum of tokens, d] and [n + 1] offsets → [sum of vectors, d] float32 and [n + 1] int64 offsets; a text of t tokens
    has ceil(t / factor) vectors, in order of the first token of each. Which tokens a vector stands for is lost.

    Source: Clavié, Chaffin and Adams 2024, "Reducing the Footprint of Multi-Vector Retrieval with Minimal Performance
    Impact via Token Pooling" (hierarchical pooling; `pool_embeddings_hierarchical` in ColBERT, `pool_factor` in
    PyLate): Ward's linkage over cosine distance, cut at a number of clusters. Where this differs:

    - for unit vectors |a - b|² = 2 (1 - cos), so Ward's criterion is applied to the vectors themselves, whereas the
      reference takes the rows of the matrix of distances for points;
    - exactly ceil(t / factor) clusters are kept, the reference's `maxclust` keeps at most floor(t / factor);
    - the reference protects the first token, which is CLS; here CLS is gone already, and `</s>` is a token as others;
    - a text of more than `WINDOW_TOKENS` tokens is clustered window by window, so that memory stays bounded.

    Raises `ModelInvalid` for numbers that are not finite, and `MissingDependency` without scipy.
    """
    tokens = np.ascontiguousarray(vectors, np.float32)
    _check_finite(np.isfinite(tokens).all())
    kept = -(-np.diff(offsets) // factor)
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
    if not len(tokens):
        return tokens, ends
    clusters, first = np.empty(len(tokens), np.int64), 0
    for start, stop in _windows(offsets, factor):
        count = -(-(stop - start) // factor)
        clusters[start:stop] = first + _clusters(tokens[start:stop], count)
        first += count
    order = np.argsort(clusters, kind="stable")
    starts = np.searchsorted(clusters[order], np.arange(first))
    # The sum has the direction of the mean.
    return _normalised(np.add.reduceat(tokens[order], starts, axis=0)), ends


def _windows(offsets: NDArray[np.int64], factor: int) -> Iterator[tuple[int, int]]:
    # Whole multiples of the factor, so that windows keep as many vectors as the text would.
    size = max(WINDOW_TOKENS // factor, 1) * factor
    bounds = offsets.tolist()
    for start, stop in pairwise(bounds):
        for begin in range(start, stop, size):
            yield begin, min(begin + size, stop)


def _clusters(tokens: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """[t, d] → [t] numbers from 0 to count - 1, given out in order of first token."""
    t = len(tokens)
    if count in (1, t):
        return np.arange(t) if count == t else np.zeros(t, np.int64)
    hierarchy, distance = _scipy("cluster.hierarchy"), _scipy("spatial.distance")
    squares = np.einsum("td,td->t", tokens, tokens)
    apart = squares[:, None] + squares[None, :] - 2 * (tokens @ tokens.T)
    np.sqrt(np.maximum(apart, 0, out=apart), out=apart)
    tree = hierarchy.linkage(distance.squareform(apart, checks=False), "ward")
    # Merge m makes node t + m of two nodes; the first t - count merges leave `count` nodes.
    merged = tree[: t - count, :2].astype(np.int64)
    parent = np.arange(2 * t - count)
    parent[merged] = np.arange(t, len(parent))[:, None]
    while not np.array_equal(up := parent[parent], parent):
        parent = up
    _, firsts, numbers = np.unique(parent[:t], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(firsts))[numbers]


def _scipy(name: str) -> Any:
    try:
        return import_module(f"scipy.{name}")
    except ImportError as error:
        raise MissingDependency(
            f"Pooling token vectors needs the package {error.name!r}.", hint="Install it: pip install 'trivet[embed]'."
        ) from None


# ---------------------------------------------------------------- int8


def quantise(
    vectors: NDArray[np.float16] | NDArray[np.float32],
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """[n, d] → [n, d] int8 and [n] float32 scales: number · scale is the vector again, to within scale / 2 per number.

    Symmetric, scale = max|x| / 127. Zeros have scale 0. Raises `ModelInvalid` for numbers that are not finite.
    """
    numbers = vectors.astype(np.float32)
    scales = np.maximum(numbers.max(axis=1, initial=0), -numbers.min(axis=1, initial=0)) / np.float32(_LARGEST)
    _check_finite(np.isfinite(scales).all())
    # Below the smallest normal number a quotient may come out above 127.
    scales[scales < np.finfo(np.float32).tiny] = 0
    numbers *= np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)[:, None]
    return np.rint(numbers, out=numbers).astype(np.int8), scales


def dequantise(numbers: NDArray[np.int8], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n, d] int8 and [n] float32 → [n, d] float32."""
    return numbers * scales[:, None]


def _check_finite(finite: Any) -> None:
    if not finite:
        raise ModelInvalid("The encoder gave ColBERT numbers that are not finite.", hint="Try dtype fp32 or bf16.")
