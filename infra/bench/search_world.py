"""The synthetic chunks and queries of `infra.bench.search`, the same for the same size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivet.index import Point, Space
from trivet.index.fields import metadata_text, point_id
from trivet.retrieval import QueryLegs

D, TERMS, VOCABULARY = 1024, 80, 250_002
LEAST_TOKENS, MOST_TOKENS, TOKEN_VECTORS = 8, 32, 4096
PER_OBJECT, PER_TOPIC, BATCH = 100, 50, 200
SPACE = Space("bench", "docs", "0" * 16, dense=D, sparse=True, colbert=D)


@dataclass(frozen=True, slots=True)
class World:
    """Chunks as arrays."""

    dense: NDArray[np.float32]
    sparse_ids: NDArray[np.uint32]
    sparse_weights: NDArray[np.float32]
    #: Vectors that tokens have, and which of them each chunk's tokens have.
    vectors: NDArray[np.float16]
    tokens: NDArray[np.int64]
    ends: NDArray[np.int64]
    words: tuple[str, ...]
    chunk_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.dense)

    @classmethod
    def made(cls, size: int) -> World:
        """The same chunks for the same size."""
        rng = np.random.default_rng(size)
        centres = _unit(rng, max(size // PER_TOPIC, 1))
        dense = np.empty((size, D), np.float32)
        for first in range(0, size, 10_000):
            part = dense[first : first + 10_000]
            part[:] = centres[rng.integers(0, len(centres), len(part))] + 1.2 * _unit(rng, len(part))
            part /= np.linalg.norm(part, axis=1, keepdims=True)
        ids = np.sort((rng.zipf(1.15, (size, TERMS)) % VOCABULARY).astype(np.uint32), axis=1)
        lengths = rng.integers(LEAST_TOKENS, MOST_TOKENS + 1, size)
        return cls(
            dense,
            ids,
            rng.uniform(0.05, 0.4, (size, TERMS)).astype(np.float32),
            _unit(rng, TOKEN_VECTORS).astype(np.float16),
            rng.integers(0, TOKEN_VECTORS, int(lengths.sum())),
            np.concatenate([[0], np.cumsum(lengths)]),
            tuple("".join(rng.choice(list("abcdefghij"), 6)) for _ in range(2000)),
            tuple(f"doc_{n:024x}" for n in range(size)),
        )

    def terms(self, n: int) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """A chunk's sparse terms; of a term that was drawn twice the first weight."""
        ids, at = np.unique(self.sparse_ids[n], return_index=True)
        return ids, self.sparse_weights[n][at]

    def colbert(self, n: int) -> NDArray[np.float16]:
        """A chunk's token vectors."""
        found: NDArray[np.float16] = self.vectors[self.tokens[self.ends[n] : self.ends[n + 1]]]
        return found

    def query(self, n: int) -> QueryLegs:
        """A chunk with noise."""
        rng = np.random.default_rng(n)
        of = int(rng.integers(len(self)))
        dense = self.dense[of] + 0.7 * _unit(rng, 1)[0]
        ids, _ = self.terms(of)
        asked = np.sort(rng.choice(ids, min(12, len(ids)), replace=False))
        tokens = self.colbert(of)[rng.integers(0, int(self.ends[of + 1] - self.ends[of]), 12)].astype(np.float32)
        tokens += 0.7 * _unit(rng, 12)
        return QueryLegs(
            SPACE.encoder_key,
            dense / np.linalg.norm(dense),
            asked,
            rng.uniform(0.05, 0.4, len(asked)).astype(np.float32),
            tokens / np.linalg.norm(tokens, axis=1, keepdims=True),
        )

    def points(self) -> Iterator[list[Point]]:
        """All chunks, a few at a time."""
        rng = np.random.default_rng(1)
        for first in range(0, len(self), BATCH):
            yield [self._point(n, rng) for n in range(first, min(first + BATCH, len(self)))]

    def _point(self, n: int, rng: np.random.Generator) -> Point:
        object_id = f"o{n // PER_OBJECT}"
        payload = {
            "chunk_id": self.chunk_ids[n],
            "object_id": object_id,
            "generation": 1,
            "live": 1,
            "ordinal": n % PER_OBJECT,
            "text": " ".join(self.words[i] for i in rng.integers(0, len(self.words), 300)),
            "context": "",
            "heading_path": ["Book", "Chapter"],
            "headings": ["Book"],
            "char_start": 0,
            "char_end": 2000,
            "token_count": 400,
            "language": "en",
            "source_url": "https://example.org/a",
            "committed_at": "2026-01-01T00:00:00+00:00",
            "metadata": metadata_text({"year": 2000 + n % 20}),
        }
        chunk = self.chunk_ids[n]
        return Point(point_id(object_id, 1, chunk), payload, self.dense[n], self.terms(n), self.colbert(n))


def _unit(rng: np.random.Generator, n: int) -> Any:
    values = rng.standard_normal((n, D), dtype=np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)
