"""Figures: measures by ir-measures (trec_eval's), intervals by the bootstrap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from trivet.errors import MissingDependency
from trivet.evaluation import MEASURES, Interval
from trivet.parts.arrow import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Numbers that one step of the bootstrap draws at once.
_DRAWN = 4_000_000


def per_query(
    judgements: Mapping[str, Mapping[str, int]], ranked: Mapping[str, Sequence[str]]
) -> dict[str, NDArray[np.float64]]:
    """Measure → [queries] float64, in the order of `judgements`.

    `ranked` has document ids per query, best first; a query that it lacks counts 0. Raises `MissingDependency`.
    """
    measures = {shown: _ir_measures().parse_measure(name) for shown, name in MEASURES.items()}
    # trec_eval breaks ties in its own way: whole numbers by rank leave none.
    run = {query: {key: float(-place) for place, key in enumerate(keys)} for query, keys in ranked.items() if keys}
    place = {query: i for i, query in enumerate(judgements)}
    values = {shown: np.zeros(len(place)) for shown in MEASURES}
    names = {measure: shown for shown, measure in measures.items()}
    qrels = {query: dict(grades) for query, grades in judgements.items()}
    for metric in _ir_measures().iter_calc(list(measures.values()), qrels, run):
        values[names[metric.measure]][place[metric.query_id]] = metric.value
    return values


def bootstrap(
    values: NDArray[np.float64], rng: np.random.Generator, *, draws: int = 10_000, level: float = 0.95
) -> Interval:
    """Mean of [n] values, and the percentile interval of the means of `draws` samples of n with replacement.

    Of differences per query this is the paired bootstrap (Efron and Tibshirani 1993; Sakai, SIGIR 2006).
    """
    n = len(values)
    step = max(_DRAWN // n, 1)
    means = [values[rng.integers(0, n, (min(step, draws - begin), n))].mean(axis=1) for begin in range(0, draws, step)]
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Interval(mean=float(values.mean()), low=float(low), high=float(high))


def _ir_measures() -> Any:
    try:
        return import_module("ir_measures")
    except ImportError as error:
        raise MissingDependency(
            f"Evaluation needs the package {error.name!r}.", hint="Install it: pip install 'trivet[eval]'."
        ) from None
