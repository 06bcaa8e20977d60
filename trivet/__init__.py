"""Trivet: source URLs in, search-ready dense, sparse and ColBERT embeddings out, on your own machines."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trivet.client import Trivet
    from trivet.handles import TaskHandle
    from trivet.parts.reader import read_parts
    from trivet.remote.asynchronous import AsyncTrivet
    from trivet.settings import Settings

__version__ = "0.1.0"

__all__ = ["AsyncTrivet", "Settings", "TaskHandle", "Trivet", "__version__", "read_parts"]

_WHERE = {
    "AsyncTrivet": "trivet.remote.asynchronous",
    "Settings": "trivet.settings",
    "TaskHandle": "trivet.handles",
    "Trivet": "trivet.client",
    "read_parts": "trivet.parts.reader",
}


def __getattr__(name: str) -> Any:
    """Load on first use, so that `import trivet` stays light."""
    if name not in _WHERE:
        raise AttributeError(f"module 'trivet' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
