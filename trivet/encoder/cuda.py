"""The encoder for GPUs: no padding, attention over all texts in one call. Not run on a GPU yet.

What needs no GPU, all but the flash kernel and the asynchronous copies, is tested on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from trivet.encoder.heads import Batch
from trivet.encoder.layers import Blocks, PackedForward
from trivet.encoder.onednn import PlainLinear
from trivet.encoder.torch_encoder import TorchEncoder
from trivet.encoder.varlen import best_attention, flash


class CudaEncoder(TorchEncoder):
    """`PackedForward` in one block, with the shared heads. CUDA; fp16 (the default there), bf16 and fp32."""

    name = "cuda"
    padded = False
    dtypes: ClassVar[Mapping[str, tuple[str, ...]]] = {"cuda": ("fp32", "bf16", "fp16")}

    def prepare(self, state: Mapping[str, Tensor]) -> None:
        """Copy the weights to the device, and choose the attention that works there."""
        heads = self.config.heads
        self._attention = best_attention(self.device, self.dtype, heads, self.config.hidden // heads)
        self._forward = PackedForward(
            state, self.config, self.dtype, linear=PlainLinear, attention=self._attention, device=self.device
        )

    def hidden(self, batch: Batch) -> Tensor:
        """[T, h] last hidden states."""
        return self._forward(batch, Blocks(((0, len(batch.ids)),), tail=0))

    def describe(self) -> str:
        """Names the way its attention is computed too."""
        return f"cuda/{'flash' if self._attention is flash else 'sdpa'}"
