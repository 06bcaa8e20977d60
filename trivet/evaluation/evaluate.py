"""One dataset, one model: figures of every leg and every fusion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from trivet.errors import InvalidRequest
from trivet.evaluation import MEASURES, Dataset, Evaluation, Row
from trivet.evaluation.encoding import Block, TextEncoder
from trivet.evaluation.lists import Lists, Scorer, fused, query_legs, ranked_by
from trivet.evaluation.measures import bootstrap, per_query
from trivet.parts.arrow import np
from trivet.retrieval import Fusion, Leg

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Measure → [queries] float64.
Values = dict[str, "NDArray[np.float64]"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is compared, and how."""

    #: Name → fusion.
    fusions: Mapping[str, Fusion]
    #: Documents that each leg lists.
    depth: int = 1000
    #: ColBERT scores the dense leg's best so many, as the paper of bge-m3 does; 0: every document.
    colbert_candidates: int = 0
    draws: int = 10_000
    level: float = 0.95


@dataclass(slots=True)
class Cut:
    """Counts texts that were cut as blocks pass by."""

    texts: int = 0

    def counted(self, blocks: Iterable[Block]) -> Iterable[Block]:
        """The same blocks."""
        for block in blocks:
            self.texts += block.cut
            yield block


def evaluate(dataset: Dataset, encoder: TextEncoder, plan: Plan, rng: np.random.Generator) -> Evaluation:
    """Encode, score, fuse, measure. Raises the encoder's errors, `InvalidRequest` and `MissingDependency`."""
    cut = Cut()
    lists = score(dataset, encoder, plan, cut)
    legs = {leg.value: values(dataset, {q: ranked_by(leg, of) for q, of in lists.items()}) for leg in Leg}
    fusions = {
        name: values(dataset, {q: fused(of, fusion) for q, of in lists.items()})
        for name, fusion in plan.fusions.items()
    }
    best = {shown: max(legs, key=lambda leg: float(legs[leg][shown].mean())) for shown in MEASURES}
    interval = partial(bootstrap, rng=rng, draws=plan.draws, level=plan.level)
    rows = [
        Row(name=name, kind="leg", figures={shown: interval(numbers) for shown, numbers in found.items()})
        for name, found in legs.items()
    ] + [
        Row(
            name=name,
            kind="fusion",
            figures={shown: interval(numbers) for shown, numbers in found.items()},
            gain={shown: interval(numbers - legs[best[shown]][shown]) for shown, numbers in found.items()},
        )
        for name, found in fusions.items()
    ]
    return Evaluation(
        dataset=dataset.name,
        layout=dataset.layout,
        split=dataset.split,
        documents=len(dataset.documents),
        queries=len(dataset.queries),
        model=encoder.identity,
        rows=tuple(rows),
        best_leg=best,
        level=plan.level,
        notes=_notes(dataset, cut.texts, plan),
    )


def score(dataset: Dataset, encoder: TextEncoder, plan: Plan, cut: Cut | None = None) -> dict[str, Lists]:
    """Query id → what the legs know of it. Memory grows with queries × depth, and with the texts; legs pass by."""
    cut = cut or Cut()
    scorer = Scorer(query_legs(encoder, dataset.queries), dataset.document_ids, plan.depth)
    blocks = partial(encoder.blocks, dataset.documents, "passage", colbert=not plan.colbert_candidates)
    scorer.scan(cut.counted(blocks()))
    if plan.depth < len(dataset.documents):
        scorer.complete(blocks())
    if plan.colbert_candidates:
        scorer.rerank(
            lambda documents: encoder.blocks([dataset.documents[i] for i in documents], "passage"),
            plan.colbert_candidates,
        )
    return dict(zip(dataset.query_ids, scorer.lists(), strict=True))


def values(dataset: Dataset, ranked: Mapping[str, Sequence[str]]) -> Values:
    """Measure → one value per query."""
    return per_query(dataset.judgements, ranked)


def _notes(dataset: Dataset, cut: int, plan: Plan) -> tuple[str, ...]:
    notes = []
    if cut:
        notes.append(f"{cut} of {len(dataset.documents)} documents were cut at their end to the most tokens allowed.")
    known = set(dataset.document_ids)
    absent = {key for grades in dataset.judgements.values() for key in grades if key not in known}
    if absent:
        notes.append(f"{len(absent)} judged documents are not in the corpus; they count as not found.")
    if plan.colbert_candidates:
        notes.append(f"ColBERT ranked the dense leg's best {plan.colbert_candidates} alone.")
    return tuple(notes)


@dataclass(frozen=True, slots=True)
class Gate:
    """A floor that a figure must reach."""

    measure: str
    floor: float

    @classmethod
    def of(cls, text: str) -> Gate:
        """`nDCG@10=0.7`. Raises `InvalidRequest`."""
        name, _, number = text.partition("=")
        try:
            floor = float(number)
        except ValueError:
            floor = float("nan")
        if name not in MEASURES or not 0 <= floor <= 1:
            raise InvalidRequest(
                f"{text[:40]!r} is not measure=number between 0 and 1.",
                hint=f"Measures are {', '.join(MEASURES)}; write nDCG@10=0.7.",
            )
        return cls(name, floor)

    def failures(self, found: Evaluation, name: str) -> list[str]:
        """One sentence where the row `name` is under the floor, else nothing."""
        (row,) = (row for row in found.rows if row.name == name and row.kind == "fusion")
        mean = row.figures[self.measure].mean
        if mean >= self.floor:
            return []
        return [f"{found.dataset}: {self.measure} of {name} is {mean:.4f}, under {self.floor:g}."]
