"""What a search over HTTP found, as the library has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from trivet.retrieval.results import Hit, LegScore, Passage, SearchResult, SearchStats, Section, StoredVectors

_LEGS = ("dense", "sparse", "colbert")
_HIT = frozenset(field.name for field in fields(Hit))
_STATS = frozenset(field.name for field in fields(SearchStats))
_PASSAGE = frozenset(field.name for field in fields(Passage))


@dataclass(frozen=True, slots=True)
class RemoteFound:
    """Hits, best first, and which model encoded the query."""

    model: str
    result: SearchResult
    #: Sentences for the user: what was cut, or left out.
    notes: tuple[str, ...]
    #: Of each hit, in their order, where they were asked for: `trivet.retrieval.explaining.Explanation` as JSON.
    explanations: tuple[Mapping[str, Any], ...] = ()

    @property
    def hits(self) -> tuple[Hit, ...]:
        """The hits, best first."""
        return self.result.hits


def read_found(answer: Mapping[str, Any]) -> RemoteFound:
    """What `trivet.retrieval.as_json.found_json` has written; fields of a newer server are passed over."""
    hits = tuple(_hit(given) for given in answer["hits"])
    stats = {name: value for name, value in answer["stats"].items() if name in _STATS}
    result = SearchResult(hits, SearchStats(**{**stats, "notes": tuple(stats["notes"])}), answer["ranked"])
    whys = tuple(given["explanation"] for given in answer["hits"] if "explanation" in given)
    return RemoteFound(answer["model"], result, tuple(answer["notes"]), whys)


def _hit(given: Mapping[str, Any]) -> Hit:
    values = {name: value for name, value in given.items() if name in _HIT}
    values |= {leg: given[leg] and LegScore(given[leg]["score"], given[leg]["rank"]) for leg in _LEGS}
    values |= {side: tuple(map(_passage, given[side])) for side in ("before", "after")}
    section, vectors = given["section"], given.get("vectors")
    values["section"] = section and Section(tuple(map(_passage, section["passages"])), section["cut"])
    values["vectors"] = vectors and _vectors(vectors)
    return Hit(**{**values, "heading_path": tuple(given["heading_path"])})


def _passage(given: Mapping[str, Any]) -> Passage:
    values = {name: value for name, value in given.items() if name in _PASSAGE}
    return Passage(**{**values, "heading_path": tuple(given["heading_path"])})


def _vectors(given: Mapping[str, Any]) -> StoredVectors:
    import numpy as np

    sparse, dense, colbert = given["sparse"], given["dense"], given["colbert"]
    return StoredVectors(
        sparse=sparse and (np.array(sparse["ids"], np.uint32), np.array(sparse["weights"], np.float32)),
        colbert=None if colbert is None else np.array(colbert, np.float32),
        colbert_pooling=given["colbert_pooling"],
        dense=None if dense is None else np.array(dense, np.float32),
    )
