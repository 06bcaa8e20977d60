"""FlagEmbedding's own `BGEM3FlagModel`, as the reference that Trivet's encoder is held against."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from trivet.encoder import Legs
from trivet.errors import MissingDependency

#: Imported by FlagEmbedding's training and LLM reranker modules at the top; `BGEM3FlagModel` never calls them.
_TRAINING_ONLY = ("datasets", "peft")


class FlagReference:
    """fp32 on the CPU, without prompts."""

    def __init__(self, folder: Path, pooling: str, max_tokens: int) -> None:
        kind = flag_class()
        self.name = f"FlagEmbedding {version('FlagEmbedding')}"
        self._max_tokens = max_tokens
        with _quiet():
            self._model = kind(str(folder), use_fp16=False, devices="cpu", pooling_method=pooling)

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids as the reference tokenises, cut at the model's longest input."""
        ids: list[list[int]] = self._model.tokenizer(list(texts), truncation=True, max_length=self._max_tokens)[
            "input_ids"
        ]
        return ids

    def encode(self, texts: Sequence[str]) -> Legs:
        """The legs of the texts in one batch, ColBERT in float32."""
        out = self._model.encode(
            list(texts),
            batch_size=len(texts) + 1,  # one batch; it draws progress bars unless the batch could hold more
            max_length=self._max_tokens,
            return_dense=True,
            return_sparse=True,
            return_colbert_vecs=True,
        )
        rows = [sorted((int(term), float(weight)) for term, weight in row.items()) for row in out["lexical_weights"]]
        return Legs(
            dense=np.ascontiguousarray(out["dense_vecs"], np.float32),
            sparse_ids=np.array([term for row in rows for term, _ in row], np.uint32),
            sparse_weights=np.array([weight for row in rows for _, weight in row], np.float32),
            sparse_offsets=_offsets(rows),
            colbert=np.concatenate(out["colbert_vecs"]).astype(np.float32, copy=False),
            colbert_offsets=_offsets(out["colbert_vecs"]),
        )


def has_flag_embedding() -> bool:
    """Whether the package is installed."""
    return find_spec("FlagEmbedding") is not None


def _offsets(rows: Sequence[Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)


def flag_class() -> Any:
    """`BGEM3FlagModel`. Raises `MissingDependency` where the package is not installed."""
    try:
        # First, for it asks which of the training packages are there.
        import_module("transformers.trainer")
        with _placeholders():
            return import_module("FlagEmbedding").BGEM3FlagModel
    except ImportError as error:
        raise MissingDependency(
            f"The reference encoder needs the package {error.name}, which is not installed.",
            hint="Run: pip install --no-deps FlagEmbedding==1.4.2",
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar, and no report that the pooler, which nothing uses, is not in the weights."""
    logging: Any = import_module("transformers.utils.logging")

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _placeholders() -> Iterator[None]:
    """Let FlagEmbedding be imported without its training stack (100 MB with pandas), which inference never calls.

    Whatever is used of a placeholder at run time raises.
    """
    absent = [name for name in _TRAINING_ONLY if name not in sys.modules and find_spec(name) is None]
    for name in absent:
        sys.modules[name] = _Placeholder(name)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


class _Placeholder(ModuleType):
    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (_Absent,), {})


class _Absent:
    def __init__(self, *_args: object, **_kwargs: object) -> None:
        raise MissingDependency(f"{type(self).__name__} belongs to a training package that is not installed.")
