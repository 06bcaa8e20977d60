"""Which objects and rows a search lets through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trivet.parts.arrow import np
from trivet.parts.reader import RowGroup
from trivet.retrieval import Filters
from trivet.values import Manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray


def metadata_matches(manifest: Manifest, filters: Filters) -> bool:
    """Whether an object's metadata has every key with this very value (1 is not "1")."""
    missing = object()
    return all(manifest.metadata.get(key, missing) == value for key, value in filters.metadata.items())


def filter_columns(filters: Filters) -> list[str]:
    """Columns of a part that `row_matches` needs."""
    return [*(["language"] if filters.languages else []), *(["page_start", "page_end"] if filters.page else [])]


def row_matches(batch: RowGroup, filters: Filters) -> NDArray[np.bool_]:
    """[n] bool: which rows the filters let through."""
    keep = np.ones(len(batch), bool)
    if filters.languages:
        languages = batch.table.column("language").to_pylist()
        keep &= np.array([language in filters.languages for language in languages], bool)
    if filters.page is not None:
        starts, ends = (batch.table.column(name).to_pylist() for name in ("page_start", "page_end"))
        keep &= np.array([a is not None and a <= filters.page <= b for a, b in zip(starts, ends, strict=True)], bool)
    return keep
