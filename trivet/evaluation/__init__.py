"""How well the three legs and their fusions find what people judged relevant, over datasets on disk.

`datasets` reads them, `encoding` encodes them once, `lists` scores every document, `measures` asks ir-measures for
figures, and `evaluate` puts it together. Scores and fusion are those of `trivet.retrieval`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from trivet.values import Frozen, ModelIdentity

#: Measures by the name they are shown under, as ir-measures writes them. nDCG has trec_eval's linear gain; a document
#: counts as relevant to recall and reciprocal rank where its judgement is at least 1.
MEASURES: Mapping[str, str] = {"nDCG@10": "nDCG@10", "Recall@10": "R@10", "Recall@100": "R@100", "MRR@10": "RR@10"}


@dataclass(frozen=True, slots=True)
class Dataset:
    """Documents, queries and judgements. Ids are unique, and every query has a judgement."""

    name: str
    layout: Literal["beir", "miracl", "mldr"]
    split: str
    #: Ids and texts, in the same order; a title stands before its text, with a space between.
    document_ids: tuple[str, ...]
    documents: tuple[str, ...]
    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    #: Query id → document id → grade; 0 is judged and not relevant.
    judgements: Mapping[str, Mapping[str, int]]


class Interval(Frozen):
    """A mean over queries, and the percentile interval of its bootstrap."""

    mean: float
    low: float
    high: float


class Row(Frozen):
    """One leg or one fusion."""

    name: str
    kind: Literal["leg", "fusion"]
    #: Measure → figure.
    figures: dict[str, Interval]
    #: Of a fusion: measure → (fusion − best leg), paired over queries; the best leg is that of this measure.
    gain: dict[str, Interval] = Field(default_factory=dict)


class Evaluation(Frozen):
    """What was found on one dataset."""

    dataset: str
    layout: str
    split: str
    documents: int
    queries: int
    #: The model that ran.
    model: ModelIdentity
    rows: tuple[Row, ...]
    #: Measure → name of the leg with the highest mean.
    best_leg: dict[str, str]
    #: Part of the bootstrap's means that the intervals hold.
    level: float
    #: Sentences for the reader: what was cut, and what the judgements name that is not there.
    notes: tuple[str, ...] = ()
