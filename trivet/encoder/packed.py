"""The encoder for CPUs: no padding, linear layers through oneDNN. The same sums as transformers, in less time.

Texts lie end to end, so every linear layer is one matrix product over the real tokens of the batch, and attention
runs text by text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from trivet.encoder.heads import Batch
from trivet.encoder.layout import Config
from trivet.encoder.onednn import Linear, PackedLinear, PlainLinear, best_linear
from trivet.encoder.torch_encoder import TorchEncoder
from trivet.errors import InvalidRequest, ModelInvalid

#: Weight and bias of a layer norm.
Norm = tuple[Tensor, Tensor]


class PackedForward:
    """XLM-RoBERTa's forward pass on a CPU over texts that lie end to end."""

    def __init__(
        self,
        state: Mapping[str, Tensor],
        config: Config,
        dtype: torch.dtype,
        linear: type[PackedLinear] | type[PlainLinear],
    ) -> None:
        if config.activation != "gelu":
            raise ModelInvalid(
                f"The packed encoder computes gelu, and this model uses {config.activation!r}.",
                hint="Set TRIVET_ENCODER_BACKEND=transformers.",
            )
        self._config = config

        def tensor(name: str) -> Tensor:
            return state[name].to(dtype)

        def norm(name: str) -> Norm:
            return tensor(f"{name}.weight"), tensor(f"{name}.bias")

        def layer(*names: str) -> Linear:
            """Several layers over the same input are one with their rows stacked."""
            parts = [[tensor(f"{name}.{part}") for name in names] for part in ("weight", "bias")]
            weight, bias = (part[0] if len(part) == 1 else torch.cat(part) for part in parts)
            return linear(weight, bias)

        self._words = tensor("embeddings.word_embeddings.weight")
        # Token types are all 0, so their row joins the positions.
        types = state["embeddings.token_type_embeddings.weight"][0].float()
        self._positions = (state["embeddings.position_embeddings.weight"].float() + types).to(dtype)
        self._embedding_norm = norm("embeddings.LayerNorm")
        self._layers = []
        for at in range(config.layers):
            prefix = f"encoder.layer.{at}"
            attention = f"{prefix}.attention"
            self._layers.append(
                (
                    layer(*(f"{attention}.self.{name}" for name in ("query", "key", "value"))),
                    layer(f"{attention}.output.dense"),
                    norm(f"{attention}.output.LayerNorm"),
                    layer(f"{prefix}.intermediate.dense"),
                    layer(f"{prefix}.output.dense"),
                    norm(f"{prefix}.output.LayerNorm"),
                )
            )

    def __call__(self, batch: Batch) -> Tensor:
        """[T, h] last hidden states."""
        x = self._words[batch.ids] + self._positions[self._places(batch)]
        x = self._normed(x, self._embedding_norm)
        for qkv, output, norm1, up, down, norm2 in self._layers:
            x = self._normed(output(self._attend(qkv(x), batch.lengths)) + x, norm1)
            x = self._normed(down(up(x, gelu=True)) + x, norm2)
        return x

    def _normed(self, x: Tensor, norm: Norm) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], norm[0], norm[1], self._config.epsilon)

    def _places(self, batch: Batch) -> Tensor:
        """Position ids as transformers makes them: counted from pad_id + 1 in every text, over tokens but PAD."""
        counted = (batch.ids != self._config.pad_id).long()
        total = counted.cumsum(0)
        before = (total - counted)[batch.offsets[:-1]]
        return (total - before[batch.text]) * counted + self._config.pad_id

    def _attend(self, qkv: Tensor, lengths: Sequence[int]) -> Tensor:
        """[T, 3h] queries, keys and values → [T, h], text by text: attention does not cross texts."""
        width = qkv.shape[1] // 3
        heads = self._config.heads
        views = qkv.view(-1, 3, heads, width // heads)
        out = torch.empty((len(qkv), heads, width // heads), dtype=qkv.dtype)
        start = 0
        for length in lengths:
            q, k, v = views[start : start + length].permute(1, 2, 0, 3).unsqueeze(1)
            mixed = functional.scaled_dot_product_attention(q, k, v)[0]
            out[start : start + length] = mixed.transpose(0, 1)
            start += length
        return out.view(-1, width)


class PackedEncoder(TorchEncoder):
    """`PackedForward` with the shared heads. CPU, fp32 and bf16."""

    name = "packed"
    padded = False

    def prepare(self, state: Mapping[str, Tensor]) -> None:
        """Reorder the weights for oneDNN, or keep them where its ops are not to be had."""
        if self.device != "cpu" or self.dtype == torch.float16:
            raise InvalidRequest(
                "The packed encoder runs on a CPU in fp32 or bf16.", hint="Set TRIVET_ENCODER_BACKEND=transformers."
            )
        self._linear = best_linear(self.dtype)
        self._forward = PackedForward(state, self.config, self.dtype, self._linear)

    def hidden(self, batch: Batch) -> Tensor:
        """[T, h] last hidden states."""
        return self._forward(batch)

    def describe(self) -> str:
        """Names the way its linear layers are computed too."""
        return f"packed/{'onednn' if self._linear is PackedLinear else 'torch'}"
