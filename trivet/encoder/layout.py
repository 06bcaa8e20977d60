"""A model folder in bge-m3's published layout, read without torch and without its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from trivet.errors import ModelInvalid

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
POOLING = "1_Pooling/config.json"
SPARSE_HEAD = "sparse_linear.pt"
COLBERT_HEAD = "colbert_linear.pt"
PROMPTS = "config_sentence_transformers.json"
#: Optional; states name, revision, licence and provenance of a model that is on no hub.
CARD = "trivet_model.json"

REQUIRED = (CONFIG, TOKENIZER, POOLING, SPARSE_HEAD, COLBERT_HEAD)
OPTIONAL = (PROMPTS, "sentence_bert_config.json", "tokenizer_config.json", "special_tokens_map.json", CARD)


@dataclass(frozen=True, slots=True)
class Config:
    """The fields of `config.json` that change what an XLM-RoBERTa computes."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    #: Rows of the position table: tokens + pad_id + 1.
    positions: int
    types: int
    epsilon: float
    pad_id: int
    activation: str


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything that the small files of a model folder say."""

    config: Config
    pooling: Literal["cls", "mean"]
    passage_prompt: str
    query_prompt: str
    #: Longest input in tokens, special tokens counted.
    max_tokens: int
    colbert_dimensions: int
    tokenizer_sha256: str
    card: Mapping[str, Any]


def missing(folder: Path) -> list[str]:
    """Required files that the folder lacks, in the order of `REQUIRED`."""
    return [name for name in REQUIRED if not (folder / name).is_file()]


def read_layout(folder: Path) -> Layout:
    """Read and check the small files. Raises `ModelInvalid`, naming the file and what is wrong with it."""
    lacking = missing(folder)
    if lacking:
        raise ModelInvalid(
            f"The model folder {folder} lacks {' and '.join(lacking)}.",
            hint="Trivet needs bge-m3's published layout: encoder, tokenizer, pooling and both heads.",
        )
    config = _config(folder)
    prompts = read_json(folder, PROMPTS).get("prompts") or {}
    card = read_json(folder, CARD)
    return Layout(
        config=config,
        pooling=_pooling(folder),
        passage_prompt=str(prompts.get("passage", prompts.get("document", "")) or ""),
        query_prompt=str(prompts.get("query", "") or ""),
        max_tokens=_max_tokens(folder, config),
        colbert_dimensions=int(card.get("colbert_dimensions") or config.hidden),
        tokenizer_sha256=sha256_of(folder / TOKENIZER),
        card=card,
    )


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object of the folder; empty where an optional file is absent."""
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelInvalid(f"{name} in the model folder {folder} cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise ModelInvalid(f"{name} in the model folder {folder} holds no JSON object.")
    return value


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a small file; read again only when its size or modification time has changed."""
    found = path.stat()
    return _sha256(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=256)
def _sha256(path: Path, mtime_ns: int, size: int) -> str:  # noqa: ARG001 - they are the cache's key
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _config(folder: Path) -> Config:
    raw = read_json(folder, CONFIG)
    if raw.get("model_type") != "xlm-roberta":
        raise ModelInvalid(
            f"The model in {folder} is of type {raw.get('model_type')!r}.", hint="Trivet runs xlm-roberta encoders."
        )
    try:
        config = Config(
            vocabulary=int(raw["vocab_size"]),
            hidden=int(raw["hidden_size"]),
            layers=int(raw["num_hidden_layers"]),
            heads=int(raw["num_attention_heads"]),
            intermediate=int(raw["intermediate_size"]),
            positions=int(raw["max_position_embeddings"]),
            types=int(raw.get("type_vocab_size", 1)),
            epsilon=float(raw.get("layer_norm_eps", 1e-5)),
            pad_id=int(raw.get("pad_token_id", 1)),
            activation=str(raw.get("hidden_act", "gelu")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelInvalid(f"{CONFIG} in the model folder {folder} is incomplete: {error}.") from error
    if config.heads < 1 or config.hidden % config.heads:
        raise ModelInvalid(f"{CONFIG} in {folder}: hidden_size {config.hidden} is no multiple of {config.heads} heads.")
    return config


def _pooling(folder: Path) -> Literal["cls", "mean"]:
    raw = read_json(folder, POOLING)
    modes = [name for name in ("cls", "mean") if raw.get(f"pooling_mode_{name}_token{'s' * (name == 'mean')}")]
    if not modes and raw.get("pooling_mode") in ("cls", "mean"):
        modes = [raw["pooling_mode"]]  # how sentence-transformers 6 writes it
    if modes == ["cls"]:
        return "cls"
    if modes == ["mean"]:
        return "mean"
    raise ModelInvalid(f"{POOLING} in the model folder {folder} asks for a pooling that is neither cls nor mean.")


def _max_tokens(folder: Path, config: Config) -> int:
    limits = [config.positions - config.pad_id - 1]
    limits.append(read_json(folder, "sentence_bert_config.json").get("max_seq_length") or limits[0])
    limits.append(read_json(folder, "tokenizer_config.json").get("model_max_length") or limits[0])
    return int(min(limits))
