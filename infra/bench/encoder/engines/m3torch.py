"""bge-m3 as a torch module around transformers' XLM-RoBERTa: what plain transformers runs and the converters take."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel


class M3(nn.Module):
    """Ids and mask → dense [n, d], weights [n, L], vectors [n, L - 1, d]; the last two also for padding."""

    def __init__(self, folder: Path, dtype: torch.dtype, attention: str) -> None:
        super().__init__()
        self.backbone = AutoModel.from_pretrained(
            str(folder), dtype=dtype, attn_implementation=attention, add_pooling_layer=False
        ).eval()
        self.sparse = _head(folder / "sparse_linear.pt", dtype)
        self.colbert = _head(folder / "colbert_linear.pt", dtype)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        dense = functional.normalize(hidden[:, 0].float(), dim=-1)
        weights = self.sparse(hidden).relu().squeeze(-1).float()
        vectors = functional.normalize(self.colbert(hidden[:, 1:]).float(), dim=-1)
        return dense, weights, vectors


def _head(path: Path, dtype: torch.dtype) -> nn.Linear:
    state = torch.load(path, map_location="cpu", weights_only=True)
    layer = nn.Linear(state["weight"].shape[1], state["weight"].shape[0])
    layer.load_state_dict(state)
    return layer.to(dtype)
