"""The encoder for CPUs: no padding, linear layers through oneDNN. The same sums as transformers, in less time."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from trivet.encoder.attention import ALIGNED, text_by_text
from trivet.encoder.heads import Batch
from trivet.encoder.layers import Blocks, PackedForward, blocks_of, layer_weights
from trivet.encoder.onednn import BLOCK, PlainInt8Linear, PlainLinear, best_linear
from trivet.encoder.torch_encoder import TorchEncoder

#: Not structlog's, which writes to stdout where nobody has set it up, as in the command line.
log = logging.getLogger(__name__)

#: Layers through torch's public functions.
_SLOW = (PlainInt8Linear, PlainLinear)


def blocks(batch: Batch) -> Blocks:
    """How the rows of a batch are cut on a CPU."""
    return blocks_of(len(batch.ids), block=BLOCK, aligned=ALIGNED)


class PackedEncoder(TorchEncoder):
    """`PackedForward` in blocks, with the shared heads. CPU; fp32, bf16 and int8."""

    name = "packed"
    padded = False
    dtypes: ClassVar[Mapping[str, tuple[str, ...]]] = {"cpu": ("fp32", "bf16", "int8")}

    def prepare(self, state: Mapping[str, Tensor]) -> None:
        """Reorder the weights for oneDNN, or keep them where its ops are not to be had."""
        tried = list(layer_weights(state, self.config, 0).values())
        self._linear = best_linear(self.precision, self.dtype, tried)
        if self._linear in _SLOW:
            # For int8 that means for nothing: it loses what int8 loses, and is slower than fp32.
            log.warning("encoder.slow: %s: oneDNN's ops are absent or compute wrong here", self.precision)
        self._forward = PackedForward(state, self.config, self.dtype, linear=self._linear, attention=text_by_text)

    def hidden(self, batch: Batch) -> Tensor:
        """[≥ T, h] last hidden states."""
        return self._forward(batch, blocks(batch))

    def describe(self) -> str:
        """Names the way its linear layers are computed too."""
        return f"packed/{'torch' if self._linear in _SLOW else 'onednn'}"
