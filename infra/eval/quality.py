"""Retrieval quality on every set that installs here: legs, fusion, fewer dimensions, smaller ColBERT.

    python -m infra.eval.quality --model embedded --data .trivet/eval [--write]

Fusion weights are tuned on one manual and reported on the other, both ways round: no set is reported with weights
that its own manual had a part in. `make eval` runs it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from infra.eval.sets import TestSet, installed_sets
from infra.eval.storage import storage_tables
from infra.eval.tables import means, table, write
from trivet.evaluation.encoding import TextEncoder
from trivet.evaluation.evaluate import Plan, score, values
from trivet.evaluation.lists import Lists, fused, ranked_by
from trivet.evaluation.measures import bootstrap
from trivet.retrieval import Fusion, Leg
from trivet.settings import Settings

PAGE = Path(__file__).parent.parent.parent / "docs" / "quality.md"
#: What a set may lose against its best leg before the table names it: the lower bound of the interval.
ALLOWED = -0.02
NDCG = "nDCG@10"
#: [queries] nDCG@10 of one set.
Figures: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """A set with what the legs know of each of its queries."""

    of: TestSet
    lists: Mapping[str, Lists]

    def by_leg(self, leg: Leg) -> Figures:
        """Of the fusion or leg alone."""
        return values(self.of.data, {query: ranked_by(leg, lists) for query, lists in self.lists.items()})[NDCG]

    def by_fusion(self, fusion: Fusion) -> Figures:
        """Of the fusion or leg alone."""
        return values(self.of.data, {query: fused(lists, fusion) for query, lists in self.lists.items()})[NDCG]


def candidates() -> list[Fusion]:
    """What is tried; dense weighs 1, since only ratios matter."""
    methods = ({"normalization": "zscore"}, {"normalization": "none"}, {"method": "rrf"})
    weights = itertools.product((0, 0.1, 0.3, 0.5, 1), (1, 2, 4, 8))
    return [
        Fusion.model_validate(method | {"weights": {"dense": 1, "sparse": sparse, "colbert": colbert}})
        for (sparse, colbert), method in itertools.product(weights, methods)
    ]


def label(fusion: Fusion) -> str:
    """Short and unique."""
    how = {"zscore": "z-scores", "none": "plain scores"}.get(fusion.normalization, fusion.normalization)
    return f"{'RRF' if fusion.method == 'rrf' else how} {':'.join(f'{fusion.weight(leg):g}' for leg in Leg)}"


def tuned(sets: Sequence[Scored], say: Callable[[str], None]) -> dict[str, Fusion]:
    """Manual → the fusion that is best, by the mean of its sets' nDCG@10, on the sets of all other manuals."""
    tried = candidates()
    means = np.array([[one.by_fusion(fusion).mean() for one in sets] for fusion in tried])
    chosen = {}
    for manual in dict.fromkeys(one.of.manual for one in sets):
        others = [i for i, one in enumerate(sets) if one.of.manual != manual]
        chosen[manual] = tried[int(means[:, others].mean(axis=1).argmax())]
        say(f"For {manual}: {label(chosen[manual])}, of {len(tried)} tried on the other manual.")
    return chosen


def quality_table(sets: Sequence[Scored], chosen: Mapping[str, Fusion]) -> str:
    """One row per set and their mean, every set the same weight; then where fusion loses."""
    rng = np.random.default_rng(0)
    legs = {leg: [one.by_leg(leg) for one in sets] for leg in Leg}
    fusions = [one.by_fusion(chosen[one.of.manual]) for one in sets]
    default = [one.by_fusion(Fusion()) for one in sets]
    rows, losing = [], []
    for i, one in enumerate(sets):
        best = max(Leg, key=lambda leg: legs[leg][i].mean())
        gain = bootstrap(fusions[i] - legs[best][i], rng)
        figures = [*(legs[leg][i] for leg in Leg), default[i], fusions[i]]
        rows.append([one.of.data.name, *means(figures), f"{best}", f"{gain.mean:+.3f}", f"{gain.low:+.3f}"])
        if gain.mean < 0 or gain.low <= ALLOWED:
            losing.append(f"{one.of.data.name} ({gain.mean:+.3f}, lower bound {gain.low:+.3f})")
    rows.append(_macro(legs, default, fusions, rng))
    headings = ("set", *(leg.value for leg in Leg), "default fusion", "tuned fusion", "best leg", "gain", "lower bound")
    where = f"Where the tuned fusion loses, or may by more than {-ALLOWED:g}: {'; '.join(losing) or 'nowhere'}."
    return f"{table(headings, rows)}\n{where}\n"


def _macro(
    legs: Mapping[Leg, Sequence[Figures]],
    default: Sequence[Figures],
    fusions: Sequence[Figures],
    rng: np.random.Generator,
) -> list[str]:
    """Every set counts the same; the bootstrap draws within each set, so that it keeps its weight."""
    columns = [*(legs[leg] for leg in Leg), default, fusions]
    figures = [float(np.mean([found.mean() for found in column])) for column in columns]
    top = max(Leg, key=lambda leg: figures[list(Leg).index(leg)])
    gains = [one - other for one, other in zip(fusions, legs[top], strict=True)]
    drawn = np.mean([gain[rng.integers(0, len(gain), (10_000, len(gain)))].mean(axis=1) for gain in gains], axis=0)
    gain, low = np.mean([gain.mean() for gain in gains]), np.quantile(drawn, 0.025)
    return ["**macro average**", *(f"{figure:.3f}" for figure in figures), f"{top}", f"{gain:+.3f}", f"{low:+.3f}"]


def _introduction(
    sets: Sequence[TestSet], encoder: TextEncoder, options: argparse.Namespace, chosen: Mapping[str, Fusion]
) -> str:
    model, queries = encoder.identity, sum(len(one.data.queries) for one in sets)
    weights = "; ".join(f"for {manual} {label(fusion)}" for manual, fusion in chosen.items())
    return (
        f"Model that ran: {model.name}, revision `{model.revision[:12]}`, on {os.cpu_count()} cores, "
        f"{platform.machine()}. {len(sets)} sets with {queries:,} queries, {options.sections} sections or fewer each, "
        f"cut at {options.tokens} tokens. nDCG@10; *lower bound* is that of the 95 % paired bootstrap of the gain, "
        f"tuned fusion less the best leg of the set. Tuned on the other manual alone (dense : sparse : ColBERT): "
        f"{weights}."
    )


def main() -> None:
    """Measure, print, and write the page if that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--data", type=Path, default=Path(".trivet/eval"))
    parser.add_argument("--sections", type=int, default=100, help="sections per manual and language")
    parser.add_argument("--tokens", type=int, default=192, help="a section is cut here")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/quality.md")
    options = parser.parse_args()

    def say(text: str) -> None:
        print(text, flush=True)  # noqa: T201 - a command's output

    settings = Settings.load()
    encoder = TextEncoder(
        settings, options.model, max_tokens=options.tokens, said=lambda count: say(f"{count} texts encoded")
    )
    sets = installed_sets(options.data, options.sections)
    plan = Plan({})
    scored = [Scored(one, score(one.data, encoder, plan)) for one in sets]
    chosen = tuned(scored, say)
    text = f"{_introduction(sets, encoder, options, chosen)}\n\n{quality_table(scored, chosen)}\n"
    say(text)
    text += storage_tables([(one.of, one.lists) for one in scored], encoder, chosen, say)
    if options.write:
        write(PAGE, text)


if __name__ == "__main__":
    main()
