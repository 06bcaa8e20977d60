"""Encoders: the seam, and its registry.

An encoder turns token ids into the three legs in one forward pass. Ids come from `trivet.encoder.tokenizer` (they are
staged by `prepare`, which needs no torch), batches from `trivet.encoder.batching`, the model from
`trivet.encoder.models`. Implementations pass `tests/contract/test_encoders.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from trivet.encoder.models import FAKE, ResolvedModel, resolve
from trivet.errors import InvalidRequest, MissingDependency
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


class Pending(Protocol):
    """A batch that was started."""

    def legs(self) -> Legs:
        """Its legs, waited for. Raises `EncoderOutOfMemory`, and `EncoderBroken` where the device fails."""
        ...


@dataclass(frozen=True, slots=True)
class Ready:
    """A batch that was computed as it was started."""

    computed: Legs

    def legs(self) -> Legs:
        """Its legs, at once."""
        return self.computed


class Encoder(Protocol):
    """One model on one device. Not thread-safe: one thread runs `start`, `encode` and what is pending."""

    identity: ModelIdentity
    #: How this encoder computes: dtype, device, backend, checksums of the files that were loaded.
    passport: Passport
    #: Whether a batch costs count x longest tokens rather than their sum; what `batching.pack` wants to know.
    padded: bool
    #: Tokens of a pass from which on it hardly gets faster per token: what is taken where no setting says otherwise.
    pass_tokens: int
    #: Whether `start` returns while the device computes, so that starting one batch before the last is read pays.
    overlaps: bool

    def start(self, token_ids: Sequence[Sequence[int]], *, colbert: bool = True, colbert_fp32: bool = False) -> Pending:
        """As `encode`, for a result that is taken later; batches are computed in the order of their start.

        Raises what `encode` raises. What goes wrong only on the device is raised by `Pending.legs`.
        """
        ...

    def encode(self, token_ids: Sequence[Sequence[int]], *, colbert: bool = True, colbert_fp32: bool = False) -> Legs:
        """One forward pass over all texts (ids with special tokens, each ≤ identity.max_tokens, at least one text).

        Callers keep a call within a token budget (see `trivet.encoder.batching`). Raises `EncoderOutOfMemory`, and
        `InvalidRequest` for no texts, a text of no tokens, one that is too long, or an id that the model lacks.
        """
        ...


#: Name → module:class, imported only when it is asked for.
BACKENDS = {
    "packed": "trivet.encoder.packed:PackedEncoder",
    "cuda": "trivet.encoder.cuda:CudaEncoder",
    "transformers": "trivet.encoder.transformers:TransformersEncoder",
    "fake": "trivet.encoder.fake:FakeEncoder",
}


def load_encoder(
    settings: Settings, model_id: str, *, revision: str = "", backend: str = "auto", dtype: str = "auto"
) -> Encoder:
    """Resolve `model_id` and load its weights.

    `auto` takes `settings.encoder_backend` and `settings.dtype`; where these are auto too, the backend is packed on
    a CPU and cuda on CUDA, and the dtype what the device computes fastest without visible loss.
    Raises `ModelUnavailable`, `ModelInvalid`, and `MissingDependency` where torch is not installed.
    """
    return load_resolved(settings, resolve(settings, model_id, revision), backend=backend, dtype=dtype)


def load_resolved(settings: Settings, model: ResolvedModel, *, backend: str = "auto", dtype: str = "auto") -> Encoder:
    """As `load_encoder`, for a model that is resolved already."""
    name = _backend(settings, model, backend)
    module, _, attribute = BACKENDS[name].partition(":")
    try:
        kind = getattr(import_module(module), attribute)
    except ImportError as error:
        if error.name is None or error.name.startswith("trivet"):
            raise
        raise MissingDependency(
            f"The encoder backend {name!r} needs the package {error.name}, which is not installed.",
            hint="Run: pip install 'trivet[embed]'",
        ) from error
    encoder: Encoder = kind.load(settings, model, dtype=dtype)
    return encoder


def _backend(settings: Settings, model: ResolvedModel, asked: str) -> str:
    name = asked if asked != "auto" else settings.encoder_backend
    is_fake = model.identity.name == FAKE
    if name == "auto":
        if is_fake:
            return "fake"
        from trivet.encoder.runtime import pick_device

        return "cuda" if pick_device(settings.device) == "cuda" else "packed"
    if name not in BACKENDS:
        raise InvalidRequest(f"No encoder backend is called {name!r}.", hint=f"Choose auto or {', '.join(BACKENDS)}.")
    if (name == "fake") != is_fake:
        raise InvalidRequest(
            f"The backend {name!r} cannot run the model {model.identity.name!r}.",
            hint="The fake backend runs the model 'fake', and nothing else does.",
        )
    return name


def checked_input(
    token_ids: Sequence[Sequence[int]], *, max_tokens: int, vocabulary: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[T] int64 ids end to end and [n] int64 lengths.

    Raises `InvalidRequest` for no texts, an empty one, one over `max_tokens`, or an id that is not in the vocabulary:
    on a GPU that last one would cost the process its context.
    """
    import numpy as np

    if not token_ids:
        raise InvalidRequest("The encoder was given no texts.")
    lengths = np.fromiter((len(ids) for ids in token_ids), np.int64, len(token_ids))
    if lengths.min() < 1:
        raise InvalidRequest(f"Text {int(lengths.argmin())} has no tokens, not even special ones.")
    if lengths.max() > max_tokens:
        at = int(lengths.argmax())
        raise InvalidRequest(f"Text {at} has {int(lengths[at])} tokens; the model takes {max_tokens}.")
    flat = np.concatenate([np.asarray(ids, np.int64) for ids in token_ids])
    if flat.min() < 0 or flat.max() >= vocabulary:
        raise InvalidRequest(f"A token id is outside of the model's vocabulary of {vocabulary}.")
    return flat, lengths
