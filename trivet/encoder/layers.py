"""XLM-RoBERTa's forward pass over texts that lie end to end: nothing is computed for padding.

Every layer but attention works row by row, so the rows go through it in blocks that stay in the cache. Linear layers
and attention are handed in: they are what differs from device to device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from trivet.encoder.heads import Batch
from trivet.encoder.layout import Config
from trivet.encoder.onednn import Linear, MakesLinear
from trivet.errors import ModelInvalid

#: Rows that are taken as they are.
_SMALL = 64

#: Weight and bias of a layer norm.
Norm = tuple[Tensor, Tensor]


#: [rows, 3h] queries (scaled already), keys and values of a batch → [rows, h], finite from row T on too.
Attend = Callable[[Tensor], Tensor]


class AddsAndNorms(Protocol):
    """What ends both halves of a layer."""

    def __call__(self, linear: Linear, inner: Tensor, x: Tensor, norm: Norm, epsilon: float) -> Tensor:
        """Layer norm of `linear(inner) + x`, in the dtype of `x`. `inner` is in the dtype of the encoder."""
        ...


class PreparesAttention(Protocol):
    """A kind of attention within each text."""

    def __call__(self, batch: Batch, heads: int) -> Attend:
        """What all layers do with this batch; done once is what they share."""
        ...


class Blocks(NamedTuple):
    """How T rows are cut: spans `[start, end)` end to end from 0 to at least T."""

    spans: tuple[tuple[int, int], ...]

    @property
    def rows(self) -> int:
        """Rows that linear layers compute."""
        return self.spans[-1][1]


class _Layer(NamedTuple):
    qkv: Linear
    output: Linear
    norm1: Norm
    up: Linear
    down: Linear
    norm2: Norm


class PackedForward:
    """The weights of all layers, and the way through them. Raises `ModelInvalid` for an activation but gelu.

    `residual` is the dtype of what runs along the layers. In float32, it is kept more precise than what goes into a
    product.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        config: Config,
        dtype: torch.dtype,
        *,
        linear: MakesLinear,
        attention: PreparesAttention,
        device: str = "cpu",
        residual: torch.dtype = torch.float32,
        add_norm: AddsAndNorms | None = None,
    ) -> None:
        if config.activation != "gelu":
            raise ModelInvalid(
                f"The encoders without padding compute gelu, and this model uses {config.activation!r}.",
                hint="Set TRIVET_ENCODER_BACKEND=transformers.",
            )
        self._config, self._dtype, self._attention, self._device = config, dtype, attention, device
        self._residual, self._add_norm = residual, add_norm or plain_add_norm
        # Looked up row by row, so on a CPU they stay in the file that they are mapped from.
        self._words = state["embeddings.word_embeddings.weight"].to(device)
        # Token types are all 0, so their row joins the positions.
        types = state["embeddings.token_type_embeddings.weight"][0].float()
        self._positions = (state["embeddings.position_embeddings.weight"].float() + types).to(device)

        def norm(name: str) -> Norm:
            weight, bias = (state[f"{name}.{part}"].to(device, torch.float32) for part in ("weight", "bias"))
            return weight, bias

        def layer(at: int) -> _Layer:
            prefix = f"encoder.layer.{at}"
            made = {
                name: linear(weight.to(device), bias.to(device), dtype)
                for name, (weight, bias) in layer_weights(state, config, at).items()
            }
            return _Layer(
                **made,
                norm1=norm(f"{prefix}.attention.output.LayerNorm"),
                norm2=norm(f"{prefix}.output.LayerNorm"),
            )

        self._embedding_norm = norm("embeddings.LayerNorm")
        self._layers = [layer(at) for at in range(config.layers)]

    def __call__(self, batch: Batch, blocks: Blocks) -> Tensor:
        """[blocks.rows, h] last hidden states, in the dtype of the encoder; rows after the first T mean nothing."""
        attend = self._attention(batch, self._config.heads)
        hidden = self._embedded(batch, blocks.rows)
        parts = [hidden[start:end] for start, end in blocks.spans]
        one = len(parts) == 1
        shape = (0 if one else blocks.rows, 3 * self._config.hidden)
        qkv = torch.empty(shape, dtype=self._dtype, device=self._device)
        for layer in self._layers:
            if one:
                qkv = layer.qkv(parts[0].to(self._dtype))
            else:
                for (start, end), x in zip(blocks.spans, parts, strict=True):
                    qkv[start:end] = layer.qkv(x.to(self._dtype))
            mixed = attend(qkv)
            parts = [
                self._rest(layer, mixed[start:end], x) for (start, end), x in zip(blocks.spans, parts, strict=True)
            ]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).to(self._dtype)

    def _rest(self, layer: _Layer, mixed: Tensor, x: Tensor) -> Tensor:
        epsilon = self._config.epsilon
        x = self._add_norm(layer.output, mixed, x, layer.norm1, epsilon)
        return self._add_norm(layer.down, layer.up(x.to(self._dtype), gelu=True), x, layer.norm2, epsilon)

    def _embedded(self, batch: Batch, rows: int) -> Tensor:
        """[rows, h]; those from T on are the layer norm of zeros."""
        x = self._words[batch.ids].float() + self._positions[self._places(batch)]
        x = functional.pad(x, (0, 0, 0, rows - len(x)))
        x = functional.layer_norm(x, x.shape[-1:], *self._embedding_norm, self._config.epsilon)
        return x.to(self._residual)

    def _places(self, batch: Batch) -> Tensor:
        """Position ids as transformers makes them: counted from pad_id + 1 in every text, over tokens but PAD."""
        counted = (batch.ids != self._config.pad_id).long()
        total = counted.cumsum(0)
        before = (total - counted)[batch.offsets[:-1]]
        return (total - before[batch.text]) * counted + self._config.pad_id


def plain_add_norm(linear: Linear, inner: Tensor, x: Tensor, norm: Norm, epsilon: float) -> Tensor:
    """As `AddsAndNorms`, on any device."""
    total = linear(inner, plus=x) if inner.dtype == x.dtype else linear(inner).to(x.dtype).add_(x)
    weight, bias = (part.to(x.dtype) for part in norm)
    return functional.layer_norm(total, x.shape[-1:], weight, bias, epsilon)


def layer_weights(state: Mapping[str, Tensor], config: Config, at: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Weight and bias of the four linear layers of layer `at`, by the name that `PackedForward` gives them.

    Queries, keys and values are one layer with their rows stacked; queries are divided by the square root of the width
    of a head here, once, and not at every score.
    """
    prefix = f"encoder.layer.{at}"
    attention = f"{prefix}.attention"

    def whole(name: str) -> tuple[Tensor, Tensor]:
        return state[f"{name}.weight"], state[f"{name}.bias"]

    (query, query_bias), *others = (whole(f"{attention}.self.{name}") for name in ("query", "key", "value"))
    scale = 1 / math.sqrt(config.hidden // config.heads)
    return {
        "qkv": (
            torch.cat([query.float() * scale, *(weight.float() for weight, _ in others)]),
            torch.cat([query_bias.float() * scale, *(bias.float() for _, bias in others)]),
        ),
        "output": whole(f"{attention}.output.dense"),
        "up": whole(f"{prefix}.intermediate.dense"),
        "down": whole(f"{prefix}.output.dense"),
    }


def blocks_of(tokens: int, *, block: int, aligned: int) -> Blocks:
    """`tokens` rows in blocks of `block` and a rest, which is a multiple of `aligned` and, beside others, not small.

    So there are few shapes: oneDNN compiles and keeps a kernel for each that it meets. A batch as small as one query is
    not rounded up: it waits for the weights alone, and a quarter more rows would be felt.
    """
    end = tokens if tokens <= _SMALL else -(-tokens // aligned) * aligned
    cuts = list(range(block, end, block))
    if cuts and end - cuts[-1] < block // 4:
        cuts.pop()
    return Blocks(tuple(zip([0, *cuts], [*cuts, end], strict=True)))
