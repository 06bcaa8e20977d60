"""The test sets that packages carry, as `trivet eval` takes them: sections of two Debian manuals in four languages.

Each section is a document; a query is made from one section, which is the only relevant one. Human judgements of
relevance are not among what packages carry: these sets show retrieval by title, by translated title and by keywords.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.eval.corpora import LANGUAGES, Corpus, debian_reference, developers_reference
from trivet.evaluation import Dataset

MANUALS: Mapping[str, Callable[[Path, int], Corpus]] = {
    "developers-reference": developers_reference,
    "debian-reference": debian_reference,
}


@dataclass(frozen=True)
class TestSet:
    """One set, and the manual it comes from."""

    manual: str
    data: Dataset


def installed_sets(folder: Path, sections: int) -> list[TestSet]:
    """Every set, same-language ones and cross-lingual ones. Needs `apt-get download` for what `folder` lacks."""
    return [TestSet(manual, data) for manual, make in MANUALS.items() for data in _sets(manual, make(folder, sections))]


def _sets(manual: str, corpus: Corpus) -> Iterator[Dataset]:
    for language in LANGUAGES:
        yield _set(f"{manual}, titles, {language}", corpus.texts[language], corpus.titles[language])
        if language != "ja":  # keywords are cut at spaces
            yield _set(f"{manual}, keywords, {language}", corpus.texts[language], corpus.keywords(language))
        if language != "en":
            yield _set(f"{manual}, titles, {language} → en", corpus.texts["en"], corpus.titles[language])


def _set(name: str, documents: list[str], queries: list[str]) -> Dataset:
    ids = tuple(f"{i:04}" for i in range(len(documents)))
    return Dataset(
        name=name,
        layout="beir",
        split="test",
        document_ids=ids,
        documents=tuple(documents),
        query_ids=ids,
        queries=tuple(queries),
        judgements={key: {key: 1} for key in ids},
    )
