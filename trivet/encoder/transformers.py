"""The encoder through Hugging Face transformers: CPU or CUDA, padded batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from transformers import XLMRobertaConfig, XLMRobertaModel

from trivet.encoder.heads import Batch
from trivet.encoder.torch_encoder import TorchEncoder


class TransformersEncoder(TorchEncoder):
    """`XLMRobertaModel`, with torch's scaled-dot-product attention, which is what transformers chooses by itself."""

    name = "transformers"
    padded = True
    dtypes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "cpu": ("fp32", "bf16", "fp16"),
        "cuda": ("fp32", "bf16", "fp16"),
    }

    def prepare(self, state: Mapping[str, Tensor]) -> None:
        """Build the module around the weights; nothing of the model's own code is run."""
        config = XLMRobertaConfig(
            vocab_size=self.config.vocabulary,
            hidden_size=self.config.hidden,
            num_hidden_layers=self.config.layers,
            num_attention_heads=self.config.heads,
            intermediate_size=self.config.intermediate,
            max_position_embeddings=self.config.positions,
            type_vocab_size=self.config.types,
            layer_norm_eps=self.config.epsilon,
            pad_token_id=self.config.pad_id,
            hidden_act=self.config.activation,
        )
        with torch.device("meta"):
            model = XLMRobertaModel(config, add_pooling_layer=False)
        # Buffers are computed, not stored, so they must be made on the device; parameters are replaced below.
        model.embeddings.register_buffer("position_ids", torch.arange(config.max_position_embeddings)[None])
        model.embeddings.register_buffer("token_type_ids", torch.zeros((1, config.max_position_embeddings)).long())
        cast = {name: tensor.to(self.device, self.dtype) for name, tensor in state.items()}
        model.load_state_dict(cast, strict=False, assign=True)
        module: torch.nn.Module = model
        self._model = module.to(self.device).eval()

    def hidden(self, batch: Batch) -> Tensor:
        """Pad to the longest text, run, and lay the tokens end to end again."""
        lengths = batch.offsets.diff()
        real = torch.arange(max(batch.lengths), device=self.device) < lengths[:, None]
        ids = torch.full(real.shape, self.config.pad_id, device=self.device)
        ids[real] = batch.ids
        states: Tensor = self._model(input_ids=ids, attention_mask=real.long()).last_hidden_state
        return states[real]
