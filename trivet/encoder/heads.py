"""From hidden states to the three legs, as bge-m3 defines them; shared by all backends that compute with torch.

Source of the definitions: FlagEmbedding 1.4.2, `EncoderOnlyEmbedderM3Model` and `M3Embedder.encode_single_device`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trivet.encoder import Legs
from trivet.encoder.layout import COLBERT_HEAD, SPARSE_HEAD
from trivet.encoder.models import ResolvedModel
from trivet.encoder.onednn import BLOCK
from trivet.encoder.transfer import mark, to_host
from trivet.encoder.weights import load_pickle
from trivet.errors import ModelInvalid


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
class Coming:
    """What `Heads` computed of a batch, in host memory or on the way there."""

    #: Tokens of each text.
    lengths: Sequence[int]
    #: [n, h] float32.
    dense: Tensor
    #: [T] int64 text << 32 | token id, ascending, and [T] float32: behind the terms of the last text stand those of
    #: a text n, which are none.
    terms: Tensor
    weights: Tensor
    #: [T - n, d] float16 or float32; [0, 0] if off.
    colbert: Tensor
    #: Waits until all of these are there.
    arrived: Callable[[], None]

    def legs(self) -> Legs:
        """The legs, waited for, in the memory that they came to."""
        self.arrived()
        terms: Any = self.terms.numpy()
        texts = np.arange(len(self.lengths) + 1)
        sparse_offsets = terms.searchsorted(texts << 32)
        end = sparse_offsets[-1]
        ends = np.concatenate([[0], np.cumsum(self.lengths)])
        return Legs(
            dense=self.dense.numpy(),
            sparse_ids=(terms[:end] & 0xFFFFFFFF).astype(np.uint32),
            sparse_weights=self.weights.numpy()[:end],
            sparse_offsets=sparse_offsets,
            colbert=self.colbert.numpy(),
            colbert_offsets=ends - texts if self.colbert.shape[1] else ends * 0,
        )


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
        """As `start`, waited for."""
        return self.start(hidden, batch, colbert=colbert, colbert_fp32=colbert_fp32).legs()

    def start(self, hidden: Tensor, batch: Batch, *, colbert: bool, colbert_fp32: bool) -> Coming:
        """[≥ T, h] last hidden states → the legs, on their way to the host.

        Post-processing is float32 whatever the model computed in. Rows after the first T mean nothing. Nothing here has
        a size that only the device knows, which would make the host wait for it.
        """
        rows, hidden = hidden, hidden[: len(batch.ids)]
        element = torch.float32 if colbert_fp32 else torch.float16
        terms, weights = self._sparse(hidden, batch)
        vectors = self._colbert(rows, batch).to(element) if colbert else torch.empty((0, 0), dtype=element)
        return Coming(
            lengths=batch.lengths,
            dense=to_host(self._dense(hidden, batch)),
            terms=to_host(terms),
            weights=to_host(weights),
            colbert=to_host(vectors),
            arrived=mark(hidden.device),
        )

    def _dense(self, hidden: Tensor, batch: Batch) -> Tensor:
        """[n, h] float32, L2-normalised: the state of CLS, or the mean over all tokens, special ones included."""
        if self.pooling == "cls":
            pooled = hidden[batch.offsets[:-1]].float()
        else:
            # The order of the sum is the same every time, which that of `index_add_` is not on a GPU.
            pooled = torch.segment_reduce(hidden.float(), "mean", offsets=batch.offsets, axis=0, unsafe=True)
        return functional.normalize(pooled, dim=-1)

    def _colbert(self, rows: Tensor, batch: Batch) -> Tensor:
        """[T - n, d] float32, L2-normalised: every token but CLS; `</s>` is kept."""
        counts = batch.offsets.diff() - 1
        total = len(batch.ids) - len(counts)
        # Token j of those kept has so many CLS before it as texts have begun.
        begun = torch.arange(1, len(counts) + 1, device=rows.device).repeat_interleave(counts, output_size=total)
        kept = torch.arange(total, device=rows.device) + begun
        # All rows, and in parts of one size: a CPU compiles and keeps a kernel for every shape that it meets.
        parts = torch.split(rows, BLOCK if rows.device.type == "cpu" else len(rows))
        vectors = torch.cat([functional.linear(part, self.colbert_weight, self.colbert_bias) for part in parts])
        return functional.normalize(vectors[kept].float(), dim=-1)

    def _sparse(self, hidden: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """[T] int64 text << 32 | id, ascending, and [T] float32 weights: relu, maximum per id, no zeros.

        Those of text n are none: they fill what other terms leave.
        """
        weights = functional.linear(hidden.float(), self.sparse_weight, self.sparse_bias).relu().squeeze(-1)
        kept = (weights > 0) & ~torch.isin(batch.ids, self.special_ids) & ~self._in_prompt(batch)
        nobody = len(batch.lengths) << 32
        # One number per (text, id) sorts as both together, so one sort groups and orders.
        keys, order = torch.where(kept, batch.text << 32 | batch.ids, nobody).sort()
        group = functional.pad((keys[1:] != keys[:-1]).cumsum(0), (1, 0))
        terms = torch.full_like(keys, nobody).scatter_(0, group, keys)
        return terms, torch.zeros_like(weights).scatter_reduce_(0, group, weights[order], "amax")

    def _in_prompt(self, batch: Batch) -> Tensor:
        """[T] bool: the positions after CLS of texts that begin with one of the prompts."""
        total = len(batch.ids)
        inside = torch.zeros(total + 1, dtype=torch.bool, device=batch.ids.device)
        for prompt in self.prompts:
            places = batch.offsets[:-1, None] + 1 + torch.arange(len(prompt), device=batch.ids.device)
            long_enough = batch.offsets.diff() >= len(prompt) + 2
            found = batch.ids[places.clamp(max=total - 1)] == prompt
            # Places outside of a prompt all stand for the one behind the last token.
            places = places.where((found.all(1) & long_enough)[:, None], total)
            inside.index_fill_(0, places.flatten(), value=True)
        return inside[:total]


def _linear(model: ResolvedModel, name: str, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    state = load_pickle(model.folder / name)
    weight, bias = state.get("weight"), state.get("bias")
    if weight is None or bias is None or tuple(weight.shape) != shape or tuple(bias.shape) != shape[:1]:
        found = {key: tuple(value.shape) for key, value in state.items()}
        raise ModelInvalid(f"{name} in {model.folder} has {found}; the model needs a linear layer of shape {shape}.")
    return weight, bias
