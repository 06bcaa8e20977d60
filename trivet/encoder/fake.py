"""An encoder that computes hashes: deterministic, fast and honest about its name, for tests of everything around it.

Texts that share words get similar vectors, so that searches over its output behave, but it knows no language.
numpy only; its tokenizer is built in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trivet.encoder import Legs, Ready, checked_input
from trivet.encoder.models import ResolvedModel, fake_model
from trivet.faults import fault
from trivet.settings import Settings
from trivet.values import ModelIdentity, Passport

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer as Backend

_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
#: Special tokens, bytes, and pairs of a letter or space with a letter.
_VOCABULARY = len(_SPECIAL) + 256 + (1 + len(_LETTERS)) * len(_LETTERS)


class FakeEncoder:
    """Token vectors are hashes of token ids; dense is their mean, so the same ids always give the same legs."""

    padded = False
    pass_tokens = 2048
    overlaps = False

    def __init__(self, model: ResolvedModel) -> None:
        self.identity: ModelIdentity = model.identity
        self.passport = Passport(
            requested_model=model.identity.requested,
            model=model.identity.name,
            revision=model.identity.revision,
            encoder_key=model.identity.encoder_key,
            provenance="Hashes of token ids, for tests. No model.",
            dtype="fp32",
            device="cpu",
            backend="fake",
        )

    @classmethod
    def load(cls, settings: Settings, model: ResolvedModel, *, dtype: str = "auto") -> FakeEncoder:  # noqa: ARG003 - the registry's signature
        """The encoder; there is nothing to load, and nothing to set."""
        return cls(model)

    @classmethod
    def of(cls, dimensions: int) -> FakeEncoder:
        """One with other dimensions than 64."""
        return cls(fake_model(dimensions))

    def start(self, token_ids: Sequence[Sequence[int]], *, colbert: bool = True, colbert_fp32: bool = False) -> Ready:
        """As `trivet.encoder.Encoder.start`: computes at once."""
        return Ready(self.encode(token_ids, colbert=colbert, colbert_fp32=colbert_fp32))

    def encode(self, token_ids: Sequence[Sequence[int]], *, colbert: bool = True, colbert_fp32: bool = False) -> Legs:
        """As `trivet.encoder.Encoder.encode`; the same text gives the same bytes in any batch."""
        import numpy as np

        fault("encoder.encode", lambda: _text(token_ids))
        flat, lengths = checked_input(token_ids, max_tokens=self.identity.max_tokens, vocabulary=_VOCABULARY)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        tokens = _vectors(flat, self.identity.dimensions)
        dense = np.add.reduceat(tokens, offsets[:-1], axis=0)
        ids, weights, sparse_offsets = _sparse(flat, lengths)
        kept = np.ones(len(flat), bool)
        kept[offsets[:-1]] = False
        rows = tokens[kept] if colbert else tokens[:0, :0]
        return Legs(
            dense=_normalised(dense),
            sparse_ids=ids,
            sparse_weights=weights,
            sparse_offsets=sparse_offsets,
            colbert=np.ascontiguousarray(rows) if colbert_fp32 else np.ascontiguousarray(rows, np.float16),
            colbert_offsets=np.concatenate([[0], np.cumsum(lengths - 1 if colbert else lengths * 0)]),
        )


def _text(token_ids: Sequence[Sequence[int]]) -> str:
    backend = tokenizer_backend()
    return "\n".join("".join(backend.id_to_token(i) or "" for i in ids) for ids in token_ids)


def _hashed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's mixing step (Steele, Lea and Flood 2014)."""
    import numpy as np

    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _uniform(values: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Hashes as float32 in [0, 1)."""
    import numpy as np

    return (_hashed(values) >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)


def _vectors(flat: NDArray[np.int64], dimensions: int) -> NDArray[np.float32]:
    """[n, dimensions] unit vectors, one per token id."""
    import numpy as np

    unique, back = np.unique(flat, return_inverse=True)
    seeds = (unique[:, None] * dimensions + np.arange(dimensions) + 1).astype(np.uint64)
    return _normalised(_uniform(seeds * np.uint64(0x9E3779B97F4A7C15)) * 2 - 1)[back]


def _normalised(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    import numpy as np

    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.maximum(length, np.float32(1e-12)), np.float32)


def _sparse(flat: NDArray[np.int64], lengths: NDArray[np.int64]) -> tuple[Any, Any, Any]:
    """One weight in (0, 1] per distinct id of a text that is no special token."""
    import numpy as np

    text = np.repeat(np.arange(len(lengths)), lengths)
    words = flat >= len(_SPECIAL)
    keys = np.unique(text[words] << 32 | flat[words])
    ids = (keys & 0xFFFFFFFF).astype(np.uint32)
    counts = np.bincount(keys >> 32, minlength=len(lengths))
    weights = 1 - _uniform(ids.astype(np.uint64) + np.uint64(7))
    return ids, weights.astype(np.float32), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def tokenizer_backend() -> Backend:
    """A byte-level tokenizer with one merge per pair of small Latin letters: about two letters a token, no file."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    letters = "".join(sorted(pre_tokenizers.ByteLevel.alphabet()))
    merges = [(a, b) for a in "Ġ" + _LETTERS for b in _LETTERS]
    pieces = [*_SPECIAL, *letters, *(a + b for a, b in merges)]
    backend = Tokenizer(models.BPE({piece: at for at, piece in enumerate(pieces)}, merges, unk_token="<unk>"))  # noqa: S106 - no password
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True)
    backend.add_special_tokens(list(_SPECIAL))
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return backend
