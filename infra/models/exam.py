"""A language's sections with the queries asked of them, encoded."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from infra.models import corpus
from infra.models.corpus import Query, Section
from infra.models.states import StateCache, States


@dataclass(frozen=True, slots=True)
class Questions:
    """Queries of one kind."""

    states: States
    #: [queries] int64: the right section.
    answers: torch.Tensor
    #: [queries] bool: about a section that chooses between settings and fits nothing.
    tuning: torch.Tensor

    def select(self, mask: torch.Tensor) -> Questions:
        """The queries in the mask."""
        return Questions(self.states.select(torch.nonzero(mask).squeeze(1)), self.answers[mask], self.tuning[mask])


@dataclass(frozen=True, slots=True)
class Exam:
    """The sections of one language, and the queries by kind."""

    language: str
    sections: tuple[Section, ...]
    states: States
    questions: dict[str, Questions]


def is_tuning(section: str) -> bool:
    """A quarter of the sections by a hash of the id: the same sections in every language."""
    return zlib.crc32(section.encode()) % 4 == 0


def fitting_exam(language: str, cache: StateCache, folder: Path) -> Exam:
    """Chapters 1 to 6: per section its title, two keyword queries and two fragments."""
    sections = corpus.debian_reference(language, corpus.FIT_CHAPTERS, folder)
    queries = {
        "title": corpus.title_queries(sections),
        "keyword": [query for seed in (0, 1) for query in corpus.keyword_queries(sections, seed)],
        "fragment": corpus.fragment_queries(sections, 0, 2),
    }
    return _exam(language, sections, queries, cache)


def report_exam(language: str, cache: StateCache, folder: Path) -> Exam:
    """Chapters 7 to 12: per section its title and a keyword query."""
    sections = corpus.debian_reference(language, corpus.REPORT_CHAPTERS, folder)
    queries = {"keyword": corpus.keyword_queries(sections, 0), "title": corpus.title_queries(sections)}
    return _exam(language, sections, queries, cache)


def _exam(language: str, sections: Sequence[Section], queries: dict[str, list[Query]], cache: StateCache) -> Exam:
    place = {section.id: i for i, section in enumerate(sections)}
    questions = {
        kind: Questions(
            cache.states([query.text for query in asked], "query: "),
            torch.tensor([place[query.section] for query in asked]),
            torch.tensor([is_tuning(query.section) for query in asked]),
        )
        for kind, asked in queries.items()
    }
    states = cache.states([section.text for section in sections], "passage: ")
    return Exam(language, tuple(sections), states, questions)


def translated(asked: Exam, answered: Exam) -> Questions:
    """Titles of one language, to be found among the sections of another."""
    place = {section.id: i for i, section in enumerate(answered.sections)}
    titles = asked.questions["title"]
    ids = [asked.sections[i].id for i in titles.answers.tolist()]
    there = torch.tensor([name in place for name in ids])
    kept = titles.select(there)
    return Questions(kept.states, torch.tensor([place[name] for name in ids if name in place]), kept.tuning)


def recall(scores: torch.Tensor, questions: Questions) -> float:
    """Share of the queries whose best section is the right one."""
    return float((scores.argmax(1) == questions.answers).float().mean())
