"""Encoders: the seam, and its registry.

An encoder turns token ids into the three legs in one forward pass. Work is split in three, so that a worker can
overlap it: the tokenizer runs in `prepare` (ids are staged), `forward` computes on the device, and
`Encoded.legs()` moves to host arrays. Implementations pass `tests/contract/test_encoders.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from trivet.errors import InvalidRequest
from trivet.settings import Settings
from trivet.values import ModelIdentity, Passport

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Legs:
    """The three representations of `n` texts, as contiguous host arrays, in the order of the input."""

    #: [n, d] float32, L2-normalised.
    dense: NDArray[np.float32]
    #: [sum of terms] uint32 token ids, per text ascending, and [sum of terms] float32 weights > 0.
    sparse_ids: NDArray[np.uint32]
    sparse_weights: NDArray[np.float32]
    #: [n + 1] int64: text i has the terms sparse_offsets[i]:sparse_offsets[i + 1].
    sparse_offsets: NDArray[np.int64]
    #: [sum of (tokens - 1), d] float16 (float32 on request), L2-normalised; CLS dropped, `</s>` kept. Width 0 if off.
    colbert: NDArray[np.float16] | NDArray[np.float32]
    #: [n + 1] int64, as sparse_offsets.
    colbert_offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.dense)


class Encoder(Protocol):
    """One model on one device. Not thread-safe: one thread runs `encode`."""

    identity: ModelIdentity
    #: How this encoder computes: dtype, device, backend, checksums of the files that were loaded.
    passport: Passport

    def encode(self, token_ids: Sequence[Sequence[int]], *, colbert: bool = True, colbert_fp32: bool = False) -> Legs:
        """One forward pass over all texts (ids with special tokens, each ≤ identity.max_tokens, at least one text).

        Callers keep a call within a token budget (see `trivet.encoder.batching`). Raises `EncoderOutOfMemory`.
        """
        ...


#: Name → module:class, imported only when it is asked for.
BACKENDS = {
    "transformers": "trivet.encoder.transformers:TransformersEncoder",
    "fake": "trivet.encoder.fake:FakeEncoder",
}


def load_encoder(settings: Settings, model_id: str, *, revision: str = "", backend: str = "transformers") -> Encoder:
    """Resolve `model_id` and load its weights.

    Raises `ModelUnavailable`, `ModelInvalid`, and `MissingDependency` where torch is not installed.
    """
    if backend not in BACKENDS:
        raise InvalidRequest(f"No encoder backend is called {backend!r}.", hint=f"Choose one of {', '.join(BACKENDS)}.")
    module, name = BACKENDS[backend].split(":")
    encoder: Encoder = getattr(import_module(module), name).load(settings, model_id, revision=revision)
    return encoder
