"""How many tokens an engine computes: the rows of its matrix products, counted where torch dispatches them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

#: Parts of the names of torch's operations that multiply matrices, the private ones for oneDNN among them.
_PRODUCTS = ("addmm", "mm", "linear", "matmul")


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's own  # torch leaves it untyped
    """Rows of all products whose result has `wide` columns."""

    def __init__(self, wide: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's own
        self.rows: int = 0
        self._wide = wide

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.shape[-1:] == (self._wide,) and _multiplies(func.name()):
            self.rows += out.numel() // self._wide
        return out


def counted_rows(run: Callable[[], object], wide: int) -> int:
    """Rows that products of `wide` columns have in one `run`. Raises `ValueError` where none was seen."""
    counter = _Counter(wide)
    with counter:
        run()
    if not counter.rows:
        raise ValueError("No matrix product of the feed-forward size goes through torch's dispatcher.")
    return counter.rows


def _multiplies(name: str) -> bool:
    bare = name.partition("::")[2]
    return any(part in bare for part in _PRODUCTS)
