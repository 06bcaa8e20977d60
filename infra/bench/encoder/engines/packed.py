"""Trivet: `load_encoder` with the packed backend, batches by the default budget, as its workers call it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from infra.bench.encoder.engines import Arrays
from trivet.encoder import Legs, load_encoder
from trivet.encoder.batching import pack
from trivet.encoder.models import resolve
from trivet.encoder.tokenizer import Tokenizer
from trivet.settings import Settings

#: Indices of the texts of each batch, and what came out for them.
Made = list[tuple[list[int], Legs]]


class Packed:
    """All three legs; ColBERT in float16, as it is stored."""

    def __init__(self, folder: Path, dtype: str, state: Path) -> None:
        settings = Settings.load().model_copy(update={"state_dir": state, "model_dir": folder.parent})
        self._encoder = load_encoder(settings, str(folder), backend="packed", dtype=dtype)
        self._budget = settings.forward_tokens or self._encoder.pass_tokens
        self._tokenizer = Tokenizer.load(resolve(settings, str(folder)))
        #: Only for results: float32, so that rounding for storage is not taken for the encoder's error.
        self.colbert_fp32 = False

    def encode(self, texts: list[str]) -> Made:
        """Tokenise, batch by cost, encode."""
        ids = self._tokenizer.encode(texts, "passage")
        batches = pack([len(row) for row in ids], self._budget, padded=self._encoder.padded)
        return [
            (batch, self._encoder.encode([ids[i] for i in batch], colbert_fp32=self.colbert_fp32)) for batch in batches
        ]

    def arrays(self, made: Made) -> Arrays:
        """The legs of all batches, in the order of the texts."""
        order = sorted((i, b, at) for b, (batch, _) in enumerate(made) for at, i in enumerate(batch))
        rows = [(made[b][1], at) for _, b, at in order]
        return {
            "dense": np.stack([legs.dense[at] for legs, at in rows]),
            "sparse_ids": np.concatenate([legs.sparse_ids[_part(legs.sparse_offsets, at)] for legs, at in rows]),
            "sparse_weights": np.concatenate(
                [legs.sparse_weights[_part(legs.sparse_offsets, at)] for legs, at in rows]
            ),
            "sparse_offsets": _offsets([_count(legs.sparse_offsets, at) for legs, at in rows]),
            "colbert": np.concatenate([legs.colbert[_part(legs.colbert_offsets, at)] for legs, at in rows]),
            "colbert_offsets": _offsets([_count(legs.colbert_offsets, at) for legs, at in rows]),
        }


def load(folder: Path, variant: str, built: Path) -> Packed:
    """`variant` is the dtype."""
    return Packed(folder, variant, built)


def _part(offsets: Sequence[int] | np.ndarray[tuple[int], np.dtype[np.int64]], at: int) -> slice:
    return slice(int(offsets[at]), int(offsets[at + 1]))


def _count(offsets: np.ndarray[tuple[int], np.dtype[np.int64]], at: int) -> int:
    return int(offsets[at + 1] - offsets[at])


def _offsets(counts: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
