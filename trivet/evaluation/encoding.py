"""Texts to legs with the encoder of the settings, kept in the state folder by content: a second run loads no model."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trivet.encoder import Encoder, Legs, load_resolved
from trivet.encoder.batching import pack
from trivet.encoder.models import ResolvedModel, resolve
from trivet.parts.arrow import np
from trivet.parts.writer import gather
from trivet.settings import Settings
from trivet.values import ModelIdentity

if TYPE_CHECKING:
    from trivet.encoder.tokenizer import Kind, Tokenizer

#: What is kept in one file, and is in memory at once, of whichever comes first: some 500 MB at 1024 dimensions.
BLOCK_TEXTS, BLOCK_CHARACTERS = 256, 1_000_000
_ARRAYS = ("dense", "sparse_ids", "sparse_weights", "sparse_offsets", "colbert", "colbert_offsets")


@dataclass(frozen=True, slots=True)
class Block:
    """Texts `first` to `first + len(legs)` of those that were given; ColBERT is float16, as workers store it."""

    first: int
    legs: Legs
    #: Texts that were cut at their end because the model takes no more tokens.
    cut: int


class TextEncoder:
    """Encodes blocks of texts. `said` is told how many texts are done whenever the model has run."""

    def __init__(
        self, settings: Settings, model_id: str, *, max_tokens: int = 0, said: Callable[[int], None] | None = None
    ) -> None:
        """`max_tokens` cuts texts earlier than the model does; 0 leaves it to the model.

        Raises `ModelUnavailable` and `ModelInvalid`; nothing is loaded before it is needed.
        """
        self._settings = settings
        self._model: ResolvedModel = resolve(settings, model_id)
        longest = self.identity.max_tokens
        self._longest = min(max_tokens, longest) if max_tokens else longest
        self._folder = settings.state_dir / "eval" / "legs" / self.identity.encoder_key
        self._said = said or (lambda _count: None)
        self._loaded: tuple[Encoder, Tokenizer] | None = None

    @property
    def identity(self) -> ModelIdentity:
        """The model that runs."""
        return self._model.identity

    def blocks(self, texts: Sequence[str], kind: Kind, *, colbert: bool = True) -> Iterator[Block]:
        """All texts in order. Without `colbert` that leg has width 0."""
        for first, last in _spans(texts):
            some = texts[first:last]
            path = self._folder / f"{self._key(some, kind, colbert)}.npz"
            found = _read(path)
            if found is None:
                found = self._encode(some, kind, colbert)
                _write(path, *found)
                self._said(last)
            yield Block(first, *found)

    def _key(self, texts: Sequence[str], kind: Kind, colbert: bool) -> str:
        # What the numbers depend on: besides the texts, how the model computes.
        settings = self._settings
        how = (kind, self._longest, colbert, settings.dtype, settings.encoder_backend, settings.device)
        digest = hashlib.sha256(repr(how).encode())
        for text in texts:
            body = text.encode("utf-8", "surrogatepass")
            digest.update(len(body).to_bytes(8, "little") + body)
        return digest.hexdigest()[:32]

    def _encode(self, texts: Sequence[str], kind: Kind, colbert: bool) -> tuple[Legs, int]:
        encoder, tokenizer = self._load()
        rows = tokenizer.encode(texts, kind)
        cut = sum(len(row) > self._longest for row in rows)
        # The closing special token stays.
        ids = [row if len(row) <= self._longest else [*row[: self._longest - 1], row[-1]] for row in rows]
        placed: dict[int, tuple[Legs, int]] = {}
        budget = self._settings.forward_tokens or encoder.pass_tokens
        for batch in pack([len(row) for row in ids], budget, padded=encoder.padded):
            legs = encoder.encode([ids[i] for i in batch], colbert=colbert)
            placed |= {i: (legs, place) for place, i in enumerate(batch)}
        return gather([placed[i] for i in range(len(ids))]), cut

    def _load(self) -> tuple[Encoder, Tokenizer]:
        if self._loaded is None:
            from trivet.encoder.tokenizer import Tokenizer

            self._loaded = load_resolved(self._settings, self._model), Tokenizer.load(self._model)
        return self._loaded


def _spans(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    first, characters = 0, 0
    for i, text in enumerate(texts):
        if i > first and (i - first == BLOCK_TEXTS or characters + len(text) > BLOCK_CHARACTERS):
            yield first, i
            first, characters = i, 0
        characters += len(text)
    if texts:
        yield first, len(texts)


def _read(path: Path) -> tuple[Legs, int] | None:
    try:
        # Opened here: numpy leaves a file open that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return Legs(**{name: stored[name] for name in _ARRAYS}), int(stored["cut"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # absent, or cut short by a full disk: computed again


def _write(path: Path, legs: Legs, cut: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            np.savez(file, cut=np.int64(cut), **{name: getattr(legs, name) for name in _ARRAYS})
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
