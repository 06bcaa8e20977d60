"""Which objects and rows a search lets through."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from trivet.parts.arrow import np
from trivet.parts.reader import RowGroup
from trivet.retrieval import Filters
from trivet.retrieval.conditions import matches
from trivet.values import Chunk

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Described(Protocol):
    """What filters ask of an object: a manifest, or what an index remembers of one."""

    @property
    def metadata(self) -> dict[str, Any]: ...

    @property
    def created_at(self) -> str: ...


def object_matches(manifest: Described, filters: Filters) -> bool:
    """Whether an object's metadata and time of commit are let through (`object_ids` is the caller's to heed)."""
    if not all(matches(manifest.metadata, expression) for expression in filters.metadata):
        return False
    if not (filters.committed_from or filters.committed_before):
        return True
    committed = datetime.fromisoformat(manifest.created_at)
    committed = committed if committed.tzinfo else committed.replace(tzinfo=UTC)
    if filters.committed_from and committed < filters.committed_from:
        return False
    return not filters.committed_before or committed < filters.committed_before


def chunk_matches(chunk: Chunk, filters: Filters) -> bool:
    """Whether a chunk itself is let through: language, pages, headings."""
    return all(test(*(getattr(chunk, name) for name in names)) for names, test in _tests(filters))


def filter_columns(filters: Filters) -> list[str]:
    """Columns of a part that `row_matches` needs."""
    return [name for names, _ in _tests(filters) for name in names]


def row_matches(batch: RowGroup, filters: Filters) -> NDArray[np.bool_]:
    """[n] bool: which rows the filters let through."""
    keep = np.ones(len(batch), bool)
    for names, test in _tests(filters):
        rows = zip(*(batch.table.column(name).to_pylist() for name in names), strict=True)
        keep &= np.fromiter((test(*row) for row in rows), bool, len(batch))
    return keep


def _tests(filters: Filters) -> list[tuple[tuple[str, ...], Callable[..., bool]]]:
    """What the filters ask of a chunk: names of values (columns of a part), and the test of them."""
    tests: list[tuple[tuple[str, ...], Callable[..., bool]]] = []
    if filters.languages:
        tests.append((("language",), lambda language: language in filters.languages))
    if filters.pages:
        first, last = filters.pages.first or 0, filters.pages.last or math.inf
        tests.append(
            (("page_start", "page_end"), lambda start, end: start is not None and start <= last and end >= first)
        )
    if filters.heading:
        size = len(filters.heading)
        tests.append((("heading_path",), lambda path: tuple(path[:size]) == filters.heading))
    return tests
