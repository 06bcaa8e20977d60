"""From hidden states to the three legs, as bge-m3 defines them; shared by all backends that compute with torch.

Source of the definitions: FlagEmbedding 1.4.2, `EncoderOnlyEmbedderM3Model` and `M3Embedder.encode_single_device`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from trivet.encoder import Legs
from trivet.encoder.layout import COLBERT_HEAD, SPARSE_HEAD
from trivet.encoder.models import ResolvedModel
from trivet.encoder.weights import load_pickle
from trivet.errors import ModelInvalid

#: Rows that the ColBERT head takes at once on a CPU.
_COLBERT_ROWS = 512


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts laid end to end, without padding, on one device. T = tokens of all texts, n = texts."""

    #: [T] int64 token ids.
    ids: Tensor
    #: Tokens of each text, on the host.
    lengths: Sequence[int]
    #: [n + 1] int64: text i has the tokens offsets[i]:offsets[i + 1].
    offsets: Tensor

    @property
    def text(self) -> Tensor:
        """[T] int64: the text that each token belongs to."""
        counts = self.offsets.diff()
        return torch.arange(len(counts), device=self.ids.device).repeat_interleave(counts, output_size=len(self.ids))


@dataclass(frozen=True, slots=True)
class Heads:
    """The two linear heads, the pooling, and which tokens carry no sparse weight."""

    #: [1, h] and [1], float32.
    sparse_weight: Tensor
    sparse_bias: Tensor
    #: [d, h] and [d], in the dtype of the hidden states.
    colbert_weight: Tensor
    colbert_bias: Tensor
    pooling: Literal["cls", "mean"]
    #: [s] int64: CLS, EOS, PAD, UNK.
    special_ids: Tensor
    #: Ids of the model's prompts; where a text begins with one, its positions carry no sparse weight.
    prompts: tuple[Tensor, ...]

    @classmethod
    def load(
        cls,
        model: ResolvedModel,
        special_ids: frozenset[int],
        prompts: Sequence[Sequence[int]],
        *,
        device: str,
        dtype: torch.dtype,
    ) -> Heads:
        """Read `sparse_linear.pt` and `colbert_linear.pt`. Raises `ModelInvalid` where they do not fit the model."""
        wide, narrow = model.identity.dimensions, model.identity.colbert_dimensions
        sparse = _linear(model, SPARSE_HEAD, (1, wide))
        colbert = _linear(model, COLBERT_HEAD, (narrow, wide))
        return cls(
            sparse_weight=sparse[0].to(device, torch.float32),
            sparse_bias=sparse[1].to(device, torch.float32),
            colbert_weight=colbert[0].to(device, dtype),
            colbert_bias=colbert[1].to(device, dtype),
            pooling=model.identity.pooling,
            special_ids=torch.tensor(sorted(special_ids), device=device),
            prompts=tuple(torch.tensor(ids, device=device) for ids in prompts),
        )

    def legs(self, hidden: Tensor, batch: Batch, *, colbert: bool, colbert_fp32: bool) -> Legs:
        """[≥ T, h] last hidden states → host arrays. Post-processing is float32 whatever the model computed in.

        Rows after the first T mean nothing.
        """
        rows, hidden = hidden, hidden[: len(batch.ids)]
        ids, weights, sparse_offsets = self._sparse(hidden, batch)
        if colbert:
            vectors = self._colbert(rows, batch).to(torch.float32 if colbert_fp32 else torch.float16)
            colbert_offsets = batch.offsets - torch.arange(len(batch.offsets), device=batch.offsets.device)
        else:
            vectors = torch.empty((0, 0), dtype=torch.float32 if colbert_fp32 else torch.float16)
            colbert_offsets = torch.zeros_like(batch.offsets)
        return Legs(
            dense=_host(self._dense(hidden, batch)),
            sparse_ids=_host(ids).astype("uint32"),
            sparse_weights=_host(weights),
            sparse_offsets=_host(sparse_offsets),
            colbert=_host(vectors),
            colbert_offsets=_host(colbert_offsets),
        )

    def _dense(self, hidden: Tensor, batch: Batch) -> Tensor:
        """[n, h] float32, L2-normalised: the state of CLS, or the mean over all tokens, special ones included."""
        if self.pooling == "cls":
            pooled = hidden[batch.offsets[:-1]].float()
        else:
            sums = torch.zeros((len(batch.lengths), hidden.shape[1]), device=hidden.device)
            sums.index_add_(0, batch.text, hidden.float())
            pooled = sums / batch.offsets.diff()[:, None]
        return functional.normalize(pooled, dim=-1)

    def _colbert(self, rows: Tensor, batch: Batch) -> Tensor:
        """[T - n, d] float32, L2-normalised: every token but CLS; `</s>` is kept."""
        kept = torch.ones(len(batch.ids), dtype=torch.bool, device=rows.device)
        kept[batch.offsets[:-1]] = False
        # All rows, and in parts of one size: a CPU compiles and keeps a kernel for every shape that it meets.
        parts = torch.split(rows, _COLBERT_ROWS if rows.device.type == "cpu" else len(rows))
        vectors = torch.cat([functional.linear(part, self.colbert_weight, self.colbert_bias) for part in parts])
        return functional.normalize(vectors[: len(kept)][kept].float(), dim=-1)

    def _sparse(self, hidden: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Ids and weights per text, ascending by id, and their offsets: relu, maximum per id, no zeros."""
        weights = functional.linear(hidden.float(), self.sparse_weight, self.sparse_bias).relu().squeeze(-1)
        kept = (weights > 0) & ~torch.isin(batch.ids, self.special_ids) & ~self._in_prompt(batch)
        # One number per (text, id) sorts as both together, so `unique` groups and orders in one step.
        keys, group = torch.unique(batch.text[kept] << 32 | batch.ids[kept], return_inverse=True)
        best = torch.zeros(len(keys), device=hidden.device)
        best = best.scatter_reduce(0, group, weights[kept], "amax")
        counts = torch.bincount(keys >> 32, minlength=len(batch.lengths))
        return keys & 0xFFFFFFFF, best, functional.pad(counts.cumsum(0), (1, 0))

    def _in_prompt(self, batch: Batch) -> Tensor:
        """[T] bool: the positions after CLS of texts that begin with one of the prompts."""
        inside = torch.zeros(len(batch.ids), dtype=torch.bool, device=batch.ids.device)
        for prompt in self.prompts:
            places = batch.offsets[:-1, None] + 1 + torch.arange(len(prompt), device=batch.ids.device)
            long_enough = batch.offsets.diff() >= len(prompt) + 2
            found = batch.ids[places.clamp(max=len(batch.ids) - 1)] == prompt
            inside[places[found.all(1) & long_enough].flatten()] = True
        return inside


def _linear(model: ResolvedModel, name: str, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    state = load_pickle(model.folder / name)
    weight, bias = state.get("weight"), state.get("bias")
    if weight is None or bias is None or tuple(weight.shape) != shape or tuple(bias.shape) != shape[:1]:
        found = {key: tuple(value.shape) for key, value in state.items()}
        raise ModelInvalid(f"{name} in {model.folder} has {found}; the model needs a linear layer of shape {shape}.")
    return weight, bias


def _host(values: Tensor) -> Any:
    """A contiguous host array; `Any`, since torch does not say which element type its arrays have."""
    return values.contiguous().cpu().numpy()
