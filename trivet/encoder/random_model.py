"""Small random models in bge-m3's published layout, for tests: the real file formats and code paths, no meaning."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from trivet.encoder.canary import canary_texts
from trivet.encoder.layout import COLBERT_HEAD, CONFIG, POOLING, SPARSE_HEAD, TOKENIZER, read_layout
from trivet.encoder.weights import expected_shapes

_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
_LONGEST_WORD = 14
_ROLES = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "mask_token": "<mask>",
    "pad_token": "<pad>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
}


def write_random_model(
    folder: Path,
    *,
    seed: int,
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    positions: int = 8194,
    pooling: str = "cls",
    prompts: dict[str, str] | None = None,
    tokenizer: Path | None = None,
    pickled: bool = False,
) -> Path:
    """Write a model into `folder` (made if need be) and return it; the same arguments give the same weights.

    `tokenizer` is a tokenizer.json to copy, else a small Unigram over the words and letters of the canary texts is
    built. `prompts` has the keys query and passage. `pickled` writes `pytorch_model.bin` in place of safetensors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer is None:
        _tokenizer().save(str(folder / TOKENIZER))
    else:
        shutil.copyfile(tokenizer, folder / TOKENIZER)
    vocabulary = Tokenizer.from_file(str(folder / TOKENIZER)).get_vocab_size()
    small: dict[str, Any] = {
        CONFIG: _config(vocabulary, hidden, layers, heads, positions),
        POOLING: {
            "word_embedding_dimension": hidden,
            "pooling_mode_cls_token": pooling == "cls",
            "pooling_mode_mean_tokens": pooling == "mean",
        },
        "tokenizer_config.json": {
            **_ROLES,
            "model_max_length": positions - 2,
            "tokenizer_class": "XLMRobertaTokenizer",
        },
        "special_tokens_map.json": _ROLES,
        "config_sentence_transformers.json": {"prompts": prompts or {}},
    }
    for name, value in small.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    generator = torch.Generator().manual_seed(seed)
    _write_heads(folder, hidden, generator)
    state = _weights(folder, generator)
    if pickled:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _config(vocabulary: int, hidden: int, layers: int, heads: int, positions: int) -> dict[str, Any]:
    return {
        "architectures": ["XLMRobertaModel"],
        "model_type": "xlm-roberta",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
        "hidden_act": "gelu",
        "max_position_embeddings": positions,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "dtype": "float32",
    }


def _write_heads(folder: Path, hidden: int, generator: torch.Generator) -> None:
    for name, rows in ((SPARSE_HEAD, 1), (COLBERT_HEAD, hidden)):
        weight = torch.randn((rows, hidden), generator=generator) / math.sqrt(hidden)
        torch.save({"weight": weight, "bias": 0.02 * torch.randn(rows, generator=generator)}, folder / name)


def _weights(folder: Path, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Every layer matters, and a token's own embedding still tells its states apart, as in a trained model."""
    state = {}
    for name, shape in expected_shapes(read_layout(folder).config).items():
        values = torch.randn(shape, generator=generator)
        if name.endswith("LayerNorm.weight"):
            state[name] = 1 + 0.1 * values
        elif name.endswith("bias"):
            state[name] = 0.02 * values
        elif name == "embeddings.word_embeddings.weight":
            state[name] = values
        elif "embeddings" in name:
            state[name] = 0.2 * values
        else:
            # The feed-forward part adds little, or all tokens of a text would end up in one direction.
            gain = 0.3 if name.endswith(".output.dense.weight") and ".attention." not in name else 1.0
            state[name] = gain * values / math.sqrt(shape[1])
    return state


def _tokenizer() -> Tokenizer:
    """bge-m3's pipeline over a small vocabulary: the words of the canary texts, their letters and those of Latin-1.

    It has no normalizer: bge-m3's is a compiled table that only a SentencePiece model carries.
    """
    texts = canary_texts().values()
    letters = sorted({*"".join(texts), *map(chr, [*range(33, 127), *range(161, 256)])} - {" "})
    # Scripts without spaces would be one token a sentence.
    words = sorted({"▁" + word for text in texts for word in text.split() if len(word) <= _LONGEST_WORD})
    scored = [*((name, 0.0) for name in _SPECIAL), ("▁", -4.0)]
    scored += [(letter, -9.0) for letter in letters] + [(word, -6.0) for word in words]
    backend = Tokenizer(models.Unigram(scored, unk_id=3, byte_fallback=False))
    metaspace = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    backend.add_special_tokens([*_SPECIAL, "<mask>"])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return backend
