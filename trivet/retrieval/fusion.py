"""Fusion methods: pure functions from the legs' scores to what each leg brings to a chunk's score, registered by name.

A method takes the legs with a weight above zero, each a non-empty mapping of chunk id to `LegScore`. The score of a
chunk is the sum of its legs' shares (of max: the largest). A chunk that a leg does not list has no score there and
counts as the leg's worst. The order of the result is total: score
descending, then chunk id ascending; so it depends on nothing but the input's values.

Normalisations of `weighted` (over the candidates of one query; a leg whose scores are all equal says nothing and
gives 0.5, or 0 for zscore):

    minmax       (s - min) / (max - min)
    theoretical  (s - floor) / (max - floor), floor being the least score the leg can have: -1 for dense and ColBERT
                 (cosines), 0 for sparse. "TM2C2" in Bruch, Gai, Ingber, An Analysis of Fusion Functions for Hybrid
                 Retrieval, ACM TOIS 2023: unlike minmax it does not blow up small differences.
    zscore       (s - mean) / standard deviation of the population
    none         s, as FlagEmbedding's `compute_score` does; bge-m3's card uses 0.4, 0.2, 0.4
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from trivet.errors import InvalidRequest
from trivet.retrieval import Fusion, Leg, LegScore

LegScores: TypeAlias = Mapping[str, LegScore]
Shares: TypeAlias = dict[str, float]
Method: TypeAlias = Callable[[Mapping[Leg, LegScores], Fusion], dict[str, Shares]]

METHODS: dict[str, Method] = {}


class Fused(NamedTuple):
    """A chunk with its fused score, and what each leg brings to it; none for a chunk that no leg lists."""

    chunk_id: str
    score: float
    shares: Mapping[str, float]


#: The least score that a leg can have.
FLOORS: Mapping[Leg, float] = {Leg.DENSE: -1.0, Leg.SPARSE: 0.0, Leg.COLBERT: -1.0}


def method(name: str) -> Callable[[Method], Method]:
    """Register a fusion method under the name that requests use."""

    def register(function: Method) -> Method:
        METHODS[name] = function
        return function

    return register


def fuse(legs: Mapping[Leg, LegScores], fusion: Fusion, also: Iterable[str] = ()) -> list[Fused]:
    """Chunks with their fused scores, best first; empty where no leg with a weight lists anything.

    `also` are chunks that no such leg may list: they count as the worst of those that are listed. Raises
    `InvalidRequest` for a method that is not registered.
    """
    if fusion.method not in METHODS:
        raise InvalidRequest(
            f"No fusion method is called {fusion.method!r}.", hint=f"Choose one of {', '.join(METHODS)}."
        )
    used = {leg: legs[leg] for leg in Leg if legs.get(leg) and fusion.weight(leg) > 0}
    shares = METHODS[fusion.method](used, fusion) if used else {}
    found = [Fused(chunk, _total(brought, fusion.method), brought) for chunk, brought in shares.items()]
    if found:
        worst = min(one.score for one in found)
        found += [Fused(chunk, worst, {}) for chunk in also if chunk not in shares]
    return sorted(found, key=lambda one: (-one.score, one.chunk_id))


def _total(shares: Shares, method: str) -> float:
    return max(shares.values()) if method == "max" else sum(shares.values(), 0.0)


@method("rrf")
def rrf(legs: Mapping[Leg, LegScores], fusion: Fusion) -> dict[str, Shares]:
    """Reciprocal rank fusion: Σ weight / (k + rank), ranks from 1, over the legs that rank the chunk.

    Cormack, Clarke, Büttcher, SIGIR 2009 (k = 60), with a weight per leg.
    """
    shares: dict[str, Shares] = {chunk: {} for chunk in _ids(legs)}
    for leg, listed in legs.items():
        for chunk, found in listed.items():
            if found.rank is not None:
                shares[chunk][leg] = fusion.weight(leg) / (fusion.k + found.rank)
    return shares


@method("weighted")
def weighted(legs: Mapping[Leg, LegScores], fusion: Fusion) -> dict[str, Shares]:
    """Σ weight · normalised score / Σ weight."""
    return _combine(legs, fusion, lambda leg, scores: _normalized(leg, scores, fusion.normalization))


@method("dbsf")
def dbsf(legs: Mapping[Leg, LegScores], fusion: Fusion) -> dict[str, Shares]:
    """Distribution-based score fusion: Σ weight · (s - (μ - 3σ)) / 6σ / Σ weight, clipped to [0, 1] per leg.

    Mazzeschi 2023; σ of the sample, as Qdrant has it. A chunk that the leg does not list counts 0.
    """

    def normalized(_leg: Leg, scores: Mapping[str, float]) -> tuple[dict[str, float], float]:
        values = list(scores.values())
        mean, deviation = _moments(values, len(values) - 1)
        low = mean - 3 * deviation
        if deviation <= _noise(values):
            return dict.fromkeys(scores, 0.5), 0.0
        return {chunk: min(max((s - low) / (6 * deviation), 0.0), 1.0) for chunk, s in scores.items()}, 0.0

    return _combine(legs, fusion, normalized)


@method("max")
def best_leg(legs: Mapping[Leg, LegScores], fusion: Fusion) -> dict[str, Shares]:
    """max over the legs of weight · min-max-normalised score."""
    shares: dict[str, Shares] = {chunk: {} for chunk in _ids(legs)}
    for leg, listed in legs.items():
        normal, _ = _normalized(leg, _scores(listed), "minmax")
        for chunk, score in normal.items():
            shares[chunk][leg] = fusion.weight(leg) * score
    return shares


def _combine(
    legs: Mapping[Leg, LegScores],
    fusion: Fusion,
    normalize: Callable[[Leg, Mapping[str, float]], tuple[dict[str, float], float]],
) -> dict[str, Shares]:
    total = sum(fusion.weight(leg) for leg in legs)
    shares: dict[str, Shares] = {chunk: {} for chunk in _ids(legs)}
    for leg, listed in legs.items():
        normal, missing = normalize(leg, _scores(listed))
        weight = fusion.weight(leg)
        for chunk, brought in shares.items():
            brought[leg] = weight * normal.get(chunk, missing) / total
    return shares


def _normalized(leg: Leg, scores: Mapping[str, float], how: str) -> tuple[dict[str, float], float]:
    """Normalised scores, and what a chunk counts that the leg does not list."""
    if how == "none":
        return dict(scores), min(0.0, *scores.values())
    values = list(scores.values())
    if how == "zscore":
        mean, deviation = _moments(values, len(values))
        if deviation <= _noise(values):
            return dict.fromkeys(scores, 0.0), 0.0
        return {chunk: (s - mean) / deviation for chunk, s in scores.items()}, (min(values) - mean) / deviation
    low, high = (FLOORS[leg] if how == "theoretical" else min(values)), max(values)
    if high - low <= _noise(values):
        return dict.fromkeys(scores, 0.5), 0.0
    return {chunk: max((s - low) / (high - low), 0.0) for chunk, s in scores.items()}, 0.0


def _moments(values: Sequence[float], divisor: int) -> tuple[float, float]:
    """Mean, and standard deviation with this divisor; fsum makes both independent of the order."""
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / max(divisor, 1))


def _noise(values: Iterable[float]) -> float:
    """Spread below which scores count as equal: what rounding in float32 leaves."""
    return 1e-7 * max(abs(value) for value in values)


def _scores(listed: LegScores) -> dict[str, float]:
    return {chunk: found.score for chunk, found in listed.items()}


def _ids(legs: Mapping[Leg, LegScores]) -> list[str]:
    """Every chunk once; sorted, since float sums must not depend on a mapping's order."""
    return sorted({chunk for listed in legs.values() for chunk in listed})
