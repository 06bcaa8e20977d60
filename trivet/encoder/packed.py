"""The encoder for CPUs: no padding, linear layers through oneDNN. The same sums as transformers, in less time."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from torch import Tensor

from trivet.encoder.attention import ALIGNED, text_by_text
from trivet.encoder.heads import Batch
from trivet.encoder.layers import Blocks, PackedForward, blocks_of, layer_weights
from trivet.encoder.onednn import BLOCK, WIDE_BLOCK, PlainInt8Linear, PlainLinear, best_linear
from trivet.encoder.runtime import cpu_has_tiles
from trivet.encoder.torch_encoder import TorchEncoder

#: Not structlog's, which writes to stdout where nobody has set it up, as in the command line.
log = logging.getLogger(__name__)

#: Layers through torch's public functions.
_SLOW = (PlainInt8Linear, PlainLinear)


class Cut(NamedTuple):
    """How the rows of a batch are cut: into blocks of so many, and a rest that is a multiple of `aligned`."""

    block: int
    aligned: int

    def __call__(self, tokens: int) -> Blocks:
        """So many rows in blocks."""
        return blocks_of(tokens, block=self.block, aligned=self.aligned if tokens > BLOCK else ALIGNED)


NARROW, WIDE = Cut(BLOCK, ALIGNED), Cut(WIDE_BLOCK, 2 * ALIGNED)


class PackedEncoder(TorchEncoder):
    """`PackedForward` in blocks, with the shared heads. CPU; fp32, bf16 and int8."""

    name = "packed"
    padded = False
    dtypes: ClassVar[Mapping[str, tuple[str, ...]]] = {"cpu": ("fp32", "bf16", "int8")}

    def prepare(self, state: Mapping[str, Tensor]) -> None:
        """Reorder the weights for oneDNN, or keep them where its ops are not to be had."""
        self._cut = WIDE if self.precision == "bf16" and cpu_has_tiles() else NARROW
        tried = list(layer_weights(state, self.config, 0).values())
        self._linear = best_linear(self.precision, self.dtype, tried, self._cut.block)
        if self._linear in _SLOW:
            # For int8 that means for nothing: it loses what int8 loses, and is slower than fp32.
            log.warning("encoder.slow: %s: oneDNN's ops are absent or compute wrong here", self.precision)
        self._forward = PackedForward(state, self.config, self.dtype, linear=self._linear, attention=text_by_text)

    def hidden(self, batch: Batch) -> Tensor:
        """[≥ T, h] last hidden states."""
        return self._forward(batch, self._cut(len(batch.ids)))

    def describe(self) -> str:
        """Names the way its linear layers are computed too."""
        return f"packed/{'torch' if self._linear in _SLOW else 'onednn'}"
