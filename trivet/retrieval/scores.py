"""The scores of the three legs, over blocks of chunks.

As the authors define them (BGE M3-Embedding, Chen et al. 2024, section 3.2, and FlagEmbedding's `M3Embedder`:
`compute_lexical_matching_score`, `colbert_score`):

    dense    q · d
    sparse   Σ w_q · w_d over the ids that both have
    colbert  Σ_q max_d (q · d) / number of query vectors

Where a collection stores fewer dimensions than its model gives, the query is truncated and normalised as its chunks
were (`trivet.parts.outputs.truncate`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trivet.errors import InvalidRequest
from trivet.parts.arrow import np
from trivet.parts.outputs import truncate

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Token vectors that one matrix product takes: 32 MiB in float32 at 1024 dimensions.
BLOCK_TOKENS = 8192


def dense_scores(query: NDArray[np.float32], chunks: NDArray[np.float32]) -> NDArray[np.float32]:
    """[d] or wider and [n, d] float32 → [n] float32 dot products."""
    query = fitted(query, chunks.shape[1], "dense")
    # Row by row in memory order: a BLAS product may round differently with the number of rows in the block, and
    # equal chunks must get equal scores wherever they are stored.
    scores: NDArray[np.float32] = np.einsum("nd,d->n", chunks, query, dtype=np.float32)
    return scores


def sparse_scores(
    query_ids: NDArray[np.uint32],
    query_weights: NDArray[np.float32],
    ids: NDArray[np.uint32],
    weights: NDArray[np.float32],
    offsets: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Query terms (ids ascending, unique) against n chunks → [n] float32.

    Chunk i has the terms `offsets[i]:offsets[i + 1]` of `ids` and `weights`; `offsets` is [n + 1].
    """
    n = len(offsets) - 1
    if not len(query_ids) or not len(ids):
        return np.zeros(n, np.float32)
    place = np.minimum(np.searchsorted(query_ids, ids), len(query_ids) - 1)
    shared = np.flatnonzero(query_ids[place] == ids)
    products = query_weights[place[shared]].astype(np.float64) * weights[shared]
    rows = np.searchsorted(offsets, shared, side="right") - 1
    return np.bincount(rows, weights=products, minlength=n).astype(np.float32)


def shared_terms(
    query_ids: NDArray[np.uint32],
    query_weights: NDArray[np.float32],
    ids: NDArray[np.uint32],
    weights: NDArray[np.float32],
) -> list[tuple[int, float, float]]:
    """What one chunk's sparse score is made of: (token id, query weight, chunk weight), the product is its part.

    Largest part first, equal ones by token id; both arrays of ids are ascending and have no id twice.
    """
    shared, left, right = np.intersect1d(query_ids, ids, assume_unique=True, return_indices=True)
    order = np.argsort(-(query_weights[left] * weights[right]), kind="stable")
    wanted, found = query_weights[left][order].tolist(), weights[right][order].tolist()
    return list(zip(shared[order].tolist(), wanted, found, strict=True))


def colbert_scores(
    query: NDArray[np.float32], tokens: NDArray[np.float16] | NDArray[np.float32], offsets: NDArray[np.int64]
) -> NDArray[np.float32]:
    """MaxSim of [q, d or wider] float32 against n chunks → [n] float32; a chunk without token vectors scores 0.

    Chunk i has the vectors `offsets[i]:offsets[i + 1]` of `tokens` [sum of tokens, d].
    """
    n = len(offsets) - 1
    scores = np.zeros(n, np.float32)
    if not len(query) or not len(tokens):
        return scores
    query = fitted(query, tokens.shape[1], "ColBERT")
    for first, last in _blocks(offsets):
        starts = offsets[first:last]
        begin, end = int(starts[0]), int(offsets[last])
        filled = np.flatnonzero(offsets[first + 1 : last + 1] > starts)
        if len(filled):
            similar = tokens[begin:end].astype(np.float32, copy=False) @ query.T
            best = np.maximum.reduceat(similar, starts[filled] - begin, axis=0)
            scores[first + filled] = best.sum(axis=1) / len(query)
    return scores


def colbert_alignment(
    query: NDArray[np.float32], tokens: NDArray[np.float16] | NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """What one chunk's MaxSim is made of: per query vector the number of its best chunk vector, and their dot product.

    [q, d or wider] float32 and [t, d], both with one vector at least → [q] int64 and [q] float32; the sum of the
    products divided by q is `colbert_scores`. Of equal ones the first counts.
    """
    similar = fitted(query, tokens.shape[1], "ColBERT") @ tokens.astype(np.float32, copy=False).T
    best: NDArray[np.int64] = similar.argmax(axis=1)
    return best, similar[np.arange(len(query)), best]


def _blocks(offsets: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Ranges of chunks with at most BLOCK_TOKENS vectors each, at least one chunk each."""
    blocks, first, n = [], 0, len(offsets) - 1
    while first < n:
        last = int(np.searchsorted(offsets, offsets[first] + BLOCK_TOKENS, side="right")) - 1
        last = min(max(last, first + 1), n)
        blocks.append((first, last))
        first = last
    return blocks


def fitted(query: NDArray[np.float32], stored: int, leg: str) -> NDArray[np.float32]:
    """[…, d] float32 as it is compared with vectors of `stored` numbers. Raises `InvalidRequest` where d is less."""
    if query.shape[-1] < stored:
        raise InvalidRequest(
            f"The query's {leg} vectors have {query.shape[-1]} dimensions, the stored ones {stored}.",
            hint="Encode the query with the model that embedded the collection.",
        )
    return truncate(query, stored)
