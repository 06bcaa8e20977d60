"""Which fusion of the three legs is a good default: tuned on one manual, reported on another.

    python -m infra.eval.fusion --model embedded --data .trivet/eval

Needs Debian or Ubuntu (`apt-get download`). What it measures is finding a section by its title, by a translated
title and by keywords; there are no human judgements of relevance in it.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from infra.eval.corpora import LANGUAGES, Corpus, debian_reference, developers_reference
from trivet.encoder import Encoder, Legs, load_encoder
from trivet.encoder.batching import pack
from trivet.encoder.models import resolve
from trivet.encoder.tokenizer import Kind, Tokenizer
from trivet.retrieval import Fusion, Leg, LegScore
from trivet.retrieval.fusion import fuse
from trivet.retrieval.scores import colbert_scores, dense_scores, sparse_scores
from trivet.settings import Settings

console = Console(width=120)
Scores = Mapping[Leg, Mapping[str, LegScore]]


@dataclass(frozen=True)
class Query:
    """Scores of all sections for one query; `answer` is the one it was made from."""

    group: str
    language: str
    answer: str
    scores: Scores


class Embedder:
    """Texts to legs, one array of legs per corpus side, kept on disk."""

    def __init__(self, settings: Settings, model_id: str, cache: Path, tokens: int) -> None:
        self._settings, self._model_id, self._tokens = settings, model_id, tokens
        model = resolve(settings, model_id)
        self._tokenizer = Tokenizer.load(model)
        self._cache = cache / f"{model.identity.encoder_key}-{tokens}"
        self._cache.mkdir(parents=True, exist_ok=True)
        self._encoder: Encoder | None = None
        self.name = f"{model.identity.name}@{model.identity.revision[:12]}"

    def __call__(self, name: str, texts: Sequence[str], kind: Kind) -> list[Legs]:
        """One `Legs` of one row per text; a text is cut at `tokens`."""
        path = self._cache / f"{name}.npz"
        if not path.exists():
            np.savez(path, allow_pickle=False, **self._encode(texts, kind))
        stored = np.load(path)
        return [_row(stored, i) for i in range(len(texts))]

    def _encode(self, texts: Sequence[str], kind: Kind) -> dict[str, NDArray[Any]]:
        self._encoder = self._encoder or load_encoder(self._settings, self._model_id, dtype="fp32")
        ids = [
            row if len(row) <= self._tokens else [*row[: self._tokens - 1], row[-1]]
            for row in self._tokenizer.encode(texts, kind)
        ]
        rows: dict[int, tuple[Legs, int]] = {}
        for batch in pack([len(row) for row in ids], 2048):
            legs = self._encoder.encode([ids[i] for i in batch])
            rows |= {i: (legs, place) for place, i in enumerate(batch)}
        from trivet.parts.writer import gather

        legs = gather([rows[i] for i in range(len(ids))])
        return {name: getattr(legs, name) for name in Legs.__slots__}


def _row(stored: Mapping[str, NDArray[Any]], i: int) -> Legs:
    terms, tokens = stored["sparse_offsets"], stored["colbert_offsets"]
    t, c = slice(terms[i], terms[i + 1]), slice(tokens[i], tokens[i + 1])
    return Legs(
        dense=stored["dense"][i : i + 1],
        sparse_ids=stored["sparse_ids"][t],
        sparse_weights=stored["sparse_weights"][t],
        sparse_offsets=np.array([0, t.stop - t.start]),
        colbert=stored["colbert"][c],
        colbert_offsets=np.array([0, c.stop - c.start]),
    )


def queries(corpus: Corpus, short: str, embed: Embedder) -> list[Query]:
    """Keywords and titles in each language against its own sections, translated titles against English ones."""
    passages = {language: embed(f"{short}-{language}", corpus.texts[language], "passage") for language in LANGUAGES}
    found: list[Query] = []
    for language in LANGUAGES:
        titles = embed(f"{short}-{language}-titles", corpus.titles[language], "query")
        found += _scored("titles", language, titles, passages[language])
        if language != "ja":  # keywords are cut at spaces
            keywords = embed(f"{short}-{language}-keywords", corpus.keywords(language), "query")
            found += _scored("keywords", language, keywords, passages[language])
        if language != "en":
            found += _scored("cross", f"{language}→en", titles, passages["en"])
    return found


def _scored(group: str, language: str, asked: Sequence[Legs], passages: Sequence[Legs]) -> Iterator[Query]:
    dense = np.concatenate([passage.dense for passage in passages])
    terms = [(p.sparse_ids, p.sparse_weights, p.sparse_offsets) for p in passages]
    tokens = np.concatenate([p.colbert for p in passages]).astype(np.float32)
    ends = np.cumsum([0, *(len(p.colbert) for p in passages)])
    for i, query in enumerate(asked):
        legs = {
            Leg.DENSE: dense_scores(query.dense[0], dense),
            Leg.SPARSE: np.array([sparse_scores(query.sparse_ids, query.sparse_weights, *row)[0] for row in terms]),
            Leg.COLBERT: colbert_scores(query.colbert.astype(np.float32), tokens, ends),
        }
        yield Query(group, language, f"{i:04}", {leg: _ranked(leg, scores) for leg, scores in legs.items()})


def _ranked(leg: Leg, scores: NDArray[np.float32]) -> dict[str, LegScore]:
    ranks = {int(i): rank for rank, i in enumerate(np.argsort(-scores, kind="stable"), 1)}
    return {
        f"{i:04}": LegScore(float(score), ranks[i] if leg != Leg.SPARSE or score > 0 else None)
        for i, score in enumerate(scores)
    }


def reciprocal_ranks(asked: Sequence[Query], fusion: Fusion) -> NDArray[np.float64]:
    """Per query 1 / rank of its answer, 0 below rank 10."""
    return np.array([_reciprocal(query, fusion) for query in asked])


def _reciprocal(query: Query, fusion: Fusion) -> float:
    order = [found.chunk_id for found in fuse(query.scores, fusion)[:10]]
    return 1 / (order.index(query.answer) + 1) if query.answer in order else 0.0


def by_group(asked: Sequence[Query], values: NDArray[np.float64]) -> dict[str, float]:
    """Mean per group, and their mean, in which every group counts the same."""
    groups = {
        group: float(np.mean([value for query, value in zip(asked, values, strict=True) if query.group == group]))
        for group in sorted({query.group for query in asked})
    }
    return groups | {"mean": float(np.mean(list(groups.values())))}


def candidates() -> list[Fusion]:
    """What is tried. Dense always weighs 1: only ratios matter."""
    methods: list[dict[str, object]] = [
        {"method": "weighted", "normalization": "minmax"},
        {"method": "weighted", "normalization": "theoretical"},
        {"method": "weighted", "normalization": "zscore"},
        {"method": "weighted", "normalization": "none"},
        {"method": "rrf", "k": 10},
        {"method": "rrf", "k": 60},
        {"method": "dbsf"},
        {"method": "max"},
    ]
    weights = itertools.product((0, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5), (0, 0.5, 1, 2, 4))
    return [
        Fusion.model_validate(method | {"weights": {"dense": 1, "sparse": sparse, "colbert": colbert}})
        for (sparse, colbert), method in itertools.product(weights, methods)
    ]


def label(fusion: Fusion) -> str:
    """Short and unique."""
    how = {"weighted": fusion.normalization, "rrf": f"k={fusion.k:g}"}.get(fusion.method, "")
    weights = ":".join(f"{fusion.weight(leg):g}" for leg in Leg)
    return f"{fusion.method} {how} {weights}".replace("  ", " ")


def interval(a: NDArray[np.float64], b: NDArray[np.float64], asked: Sequence[Query], draws: int = 2000) -> str:
    """95 % of a paired bootstrap over queries, within groups, of mean(a) - mean(b)."""
    rng = np.random.default_rng(0)
    groups = [np.flatnonzero([q.group == g for q in asked]) for g in sorted({q.group for q in asked})]
    gain = a - b
    drawn = [np.mean([gain[rng.choice(rows, len(rows))].mean() for rows in groups]) for _ in range(draws)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{low:+.3f} … {high:+.3f}"


def report(title: str, asked: Sequence[Query], shown: Mapping[str, Fusion], chosen: Fusion) -> None:
    """One row per fusion: MRR@10 per group."""
    table = Table(title=title)
    groups = [*sorted({query.group for query in asked}), "mean"]
    for heading in ("", "fusion", *groups, "chosen − this, 95 %"):
        table.add_column(heading)
    best = reciprocal_ranks(asked, chosen)
    for name, fusion in shown.items():
        values = reciprocal_ranks(asked, fusion)
        means = by_group(asked, values)
        gap = "" if fusion == chosen else interval(best, values, asked)
        table.add_row(name, label(fusion), *(f"{means[group]:.3f}" for group in groups), gap)
    console.print(table)


def single(leg: Leg) -> Fusion:
    """One leg alone."""
    return Fusion(method="weighted", weights={leg: 1.0}, normalization="none")


def main() -> None:
    """Tune on one corpus, report on both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--data", type=Path, default=Path(".trivet/eval"))
    parser.add_argument("--sections", type=int, default=100, help="sections per manual and language")
    parser.add_argument("--tokens", type=int, default=192, help="a section is cut here")
    options = parser.parse_args()
    embed = Embedder(Settings.load(), options.model, options.data / "cache", options.tokens)
    sources: dict[str, Callable[[Path, int], Corpus]] = {"devref": developers_reference, "debref": debian_reference}
    corpora = {short: make(options.data, options.sections) for short, make in sources.items()}
    tune, test = (queries(corpora[short], f"{short}-{options.sections}", embed) for short in ("devref", "debref"))
    console.print(f"Model {embed.name}; {options.sections} sections of ≤ {options.tokens} tokens per language.")
    tried = sorted(candidates(), key=lambda fusion: -by_group(tune, reciprocal_ranks(tune, fusion))["mean"])
    chosen = tried[0]
    shown = {
        "dense": single(Leg.DENSE),
        "sparse": single(Leg.SPARSE),
        "colbert": single(Leg.COLBERT),
        "even weights": Fusion(method="weighted", weights=dict.fromkeys(Leg, 1.0), normalization="zscore"),
        "RRF, even": Fusion(method="rrf", weights=dict.fromkeys(Leg, 1.0)),
        "bge-m3's card": Fusion(weights={Leg.DENSE: 0.4, Leg.SPARSE: 0.2, Leg.COLBERT: 0.4}, normalization="none"),
        "the default": Fusion(),
    }
    for method in ("weighted", "rrf", "dbsf", "max"):
        shown[f"best {method}"] = next(fusion for fusion in tried if fusion.method == method)
    for how in ("minmax", "theoretical", "zscore", "none"):
        shown[f"best {how}"] = next(f for f in tried if f.method == "weighted" and f.normalization == how)
    two = [fusion for fusion in tried if not fusion.weight(Leg.COLBERT)]
    shown["best of dense, sparse"] = two[0]
    report(f"Tuned on: {corpora['devref'].name} (MRR@10, {len(tune)} queries)", tune, shown, chosen)
    report(f"Reported on: {corpora['debref'].name} (MRR@10, {len(test)} queries)", test, shown, chosen)


if __name__ == "__main__":
    main()
