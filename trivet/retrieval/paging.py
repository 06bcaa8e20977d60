"""Which part of a ranking is returned: thresholds, groups by object, then the page. Pure, for every retriever.

Pages are cut by offset. A cursor that points at a score would not outlive a commit: fused scores depend on all the
candidates, and a new one shifts them. An offset says the same about a ranking that changed as about one that did not:
no page is ever refused, and what a commit moves across its edge is shown twice or not at all. Pages of one ranking
never overlap, since its depth (`SearchRequest.window`) does not depend on the offset; beyond it there is nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from trivet.retrieval.requests import Leg, SearchRequest
from trivet.retrieval.results import LegScore

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scored:
    """What decides whether a ranked chunk is returned."""

    object_id: str
    score: float
    legs: Mapping[Leg, LegScore]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a ranking."""

    items: tuple[T, ...]
    #: Chunks (objects, where they are grouped) of the whole ranking.
    ranked: int


def page(ranking: Sequence[T], request: SearchRequest, scored: Callable[[T], Scored]) -> Page[T]:
    """The page of a ranking (best first) that a request asks for."""
    kept = [item for item in ranking[: request.window] if _enough(scored(item), request)]
    begin, end = request.offset, request.offset + request.top_k
    if request.group_size is None:
        return Page(tuple(kept[begin:end]), len(kept))
    groups: dict[str, list[T]] = {}
    for item in kept:
        groups.setdefault(scored(item).object_id, []).append(item)
    shown = list(groups.values())[begin:end]
    return Page(tuple(item for group in shown for item in group[: request.group_size]), len(groups))


def _enough(found: Scored, request: SearchRequest) -> bool:
    if request.min_score is not None and found.score < request.min_score:
        return False
    return all(leg in found.legs and found.legs[leg].score >= least for leg, least in request.min_leg_scores.items())
