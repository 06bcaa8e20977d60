"""numpy and pyarrow for the modules of this package; raises `MissingDependency` where they are not installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from trivet.errors import MissingDependency

try:
    import numpy as np

    # By name, since pyarrow ships no types: with or without stubs beside it, these are `Any`.
    pa: Any = import_module("pyarrow")
    pq: Any = import_module("pyarrow.parquet")
except ImportError as error:
    raise MissingDependency(
        f"Reading and writing parts needs the package {error.name!r}.",
        hint="Install one of the extras: pip install 'trivet[prepare]', 'trivet[embed]' or 'trivet[search]'.",
    ) from None

__all__ = ["np", "pa", "pq"]
