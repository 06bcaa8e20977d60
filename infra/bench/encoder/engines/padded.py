"""What the engines share that run a padded graph: tokenising, batching, padding and post-processing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from infra.bench.encoder.engines import Arrays
from infra.bench.encoder.forms import BUDGET, Padded, Row, finish, from_finished
from trivet.encoder.batching import pack

_PAD = 1


class PaddedEngine(ABC):
    """All three legs, batches by padded cost; a peer says how one batch is computed."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    @abstractmethod
    def forward(self, ids: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> tuple[Any, Any, Any]:
        """[n, L] int64 ids and mask → dense [n, d], weights [n, L] and vectors [n, L - 1, d], float32 on the host."""

    def encode(self, texts: list[str]) -> list[Row]:
        """Tokenise, sort, pad, run, cut."""
        rows = [row.ids for row in self._tokenizer.encode_batch_fast(texts)]
        made = []
        for batch in pack([len(row) for row in rows], BUDGET, padded=True):
            mine = [rows[i] for i in batch]
            longest = max(map(len, mine))
            ids = np.full((len(mine), longest), _PAD, np.int64)
            for at, row in enumerate(mine):
                ids[at, : len(row)] = row
            made.append(Padded(batch, mine, *self.forward(ids, (ids != _PAD).astype(np.int64))))
        return finish(made)

    def arrays(self, made: list[Row]) -> Arrays:
        """The rows as arrays."""
        return from_finished(made)
