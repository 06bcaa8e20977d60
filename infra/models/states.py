"""Last hidden states of the embedded encoder, computed once per set of texts and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import XLMRobertaModel
from transformers import logging as transformers_logging

from trivet.embedded.model_source import TOKENIZER, WEIGHTS

#: Tokens of one forward pass, padding counted.
BUDGET = 4096
#: `<s>`, `<pad>`, `</s>` and `<unk>`.
SPECIAL = torch.arange(4)


@dataclass(frozen=True, slots=True)
class States:
    """Texts as the encoder sees them: ids and states of text i are rows offsets[i]:offsets[i + 1]."""

    #: [tokens] int64, special tokens and prompt counted.
    ids: torch.Tensor
    #: [tokens, d] float32.
    states: torch.Tensor
    #: [texts + 1] int64.
    offsets: torch.Tensor
    #: Tokens of the prompt, which follow `<s>`.
    prompt: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def owner(self) -> torch.Tensor:
        """[tokens] int64: the text that a row belongs to."""
        return torch.repeat_interleave(torch.arange(len(self)), self.offsets.diff())

    @property
    def position(self) -> torch.Tensor:
        """[tokens] int64: place of a row in its text."""
        return torch.arange(len(self.ids)) - self.offsets[:-1][self.owner]

    @property
    def is_prompt(self) -> torch.Tensor:
        """[tokens] bool: rows of the prompt."""
        return (self.position > 0) & (self.position <= self.prompt)

    @property
    def is_text(self) -> torch.Tensor:
        """[tokens] bool: rows that are neither special nor prompt, and so have a sparse weight."""
        return ~torch.isin(self.ids, SPECIAL) & ~self.is_prompt

    def select(self, texts: torch.Tensor) -> States:
        """Some of the texts, in the order given."""
        lengths = self.offsets.diff()[texts]
        offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
        within = torch.arange(int(offsets[-1])) - torch.repeat_interleave(offsets[:-1], lengths)
        rows = torch.repeat_interleave(self.offsets[:-1][texts], lengths) + within
        return States(self.ids[rows], self.states[rows], offsets, self.prompt)


class StateCache:
    """The encoder of a built model folder, with everything it computed kept in `cache`."""

    def __init__(self, folder: Path, cache: Path) -> None:
        transformers_logging.disable_progress_bar()
        self._folder = folder
        self._cache = cache / "states"
        self._cache.mkdir(parents=True, exist_ok=True)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(512)
        self._model: XLMRobertaModel | None = None

    def states(self, texts: Sequence[str], prompt: str) -> States:
        """States of `prompt + text` for every text, cut at 512 tokens."""
        key = "\x00".join((WEIGHTS.sha256, TOKENIZER.sha256, prompt, *texts))
        path = self._cache / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npy"
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch([prompt + text for text in texts])]
        if not path.is_file():
            temporary = path.with_suffix(".tmp.npy")
            np.save(temporary, self._compute(ids))
            temporary.rename(path)
        offsets = torch.tensor([0, *np.cumsum([len(row) for row in ids])])
        length = len(self._tokenizer.encode(prompt.strip(), add_special_tokens=False).ids)
        return States(torch.tensor([i for row in ids for i in row]), torch.from_numpy(np.load(path)), offsets, length)

    def _compute(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        if self._model is None:
            self._model = XLMRobertaModel.from_pretrained(self._folder, add_pooling_layer=False).eval()
        found: dict[int, NDArray[np.float32]] = {}
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        while order:
            batch = [order.pop()]
            while order and (len(batch) + 1) * len(ids[batch[0]]) <= BUDGET:
                batch.append(order.pop())
            padded = torch.full((len(batch), len(ids[batch[0]])), 1)
            for row, i in enumerate(batch):
                padded[row, : len(ids[i])] = torch.tensor(ids[i])
            with torch.inference_mode():
                hidden = self._model(input_ids=padded, attention_mask=(padded != 1).long()).last_hidden_state
            found |= {i: hidden[row, : len(ids[i])].numpy().copy() for row, i in enumerate(batch)}
        return np.concatenate([found[i] for i in range(len(ids))])
