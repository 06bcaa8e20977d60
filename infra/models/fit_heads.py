"""Fits the two heads of the embedded model and writes them to trivet/embedded/data. `make fit-heads`.

    python -m infra.models.fit_heads [--model FOLDER] [--cache FOLDER]

Text: chapters 1 to 6 of the Debian Reference in English, German and Japanese. Settings are chosen on a quarter of
those sections; then everything is fitted again on all of them. Chapters 7 to 12 are for `evaluate_heads`.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors.torch import save

from infra.models.exam import Exam, Questions, fitting_exam, recall, translated
from infra.models.fit_sparse import GRID, ridge, train, tuning_recall
from infra.models.legs import Head, colbert_scores, dense_scores, sparse_scores
from infra.models.states import StateCache
from trivet.embedded.model import build

LANGUAGES = ("en", "de", "ja")
DATA = Path("trivet/embedded/data")
#: Shares of the mean token state that the ColBERT head takes away.
MEAN_SHARES = (0.0, 0.5, 0.9)
#: bge-m3's published weights of the raw scores (dense, sparse, ColBERT), to which the sparse head is scaled.
PUBLISHED = (0.4, 0.2, 0.4)
SCALES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
#: Weights of sparse and of ColBERT, where dense has 1 and all are z-scores.
SPARSE_WEIGHTS = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
FUSION_GRID = tuple((sparse, colbert) for sparse in SPARSE_WEIGHTS for colbert in (0.5, 1.0, 2.0, 3.0, 5.0))
Groups: TypeAlias = Sequence[tuple[Exam, Questions]]

log = logging.getLogger("fit_heads")


def colbert_head(exams: Sequence[Exam], share: float) -> Head:
    """Identity, less a share of the mean state of all tokens that ColBERT keeps."""
    states = torch.cat([exam.states.states[exam.states.position > 0] for exam in exams])
    mean = states.mean(0)
    return Head(torch.eye(len(mean)), -share * mean)


def tuning_groups(exams: Sequence[Exam]) -> list[tuple[Exam, Questions]]:
    """Tuning queries of every kind in every language, and titles asked of the sections in each other language."""
    groups = [(exam, questions) for exam in exams for questions in exam.questions.values()]
    groups += [(there, translated(here, there)) for here in exams for there in exams if here is not there]
    return [(exam, questions.select(questions.tuning)) for exam, questions in groups]


def colbert_recall(groups: Groups, head: Head) -> float:
    """Mean recall@1 over the groups."""
    found = [recall(colbert_scores(asked.states, exam.states, head), asked) for exam, asked in groups]
    return sum(found) / len(found)


def zscore(scores: torch.Tensor) -> torch.Tensor:
    """Per query: mean 0 and standard deviation 1 over the sections."""
    return (scores - scores.mean(1, keepdim=True)) / (scores.std(1, keepdim=True) + 1e-9)


def fusion(groups: Groups, sparse: Head, colbert: Head) -> tuple[float, dict[str, Any]]:
    """Scale of the sparse head for the published weights of raw scores, and the best weights of z-scores.

    Both by mean recall@1 over the groups.
    """
    hits: dict[str, list[list[float]]] = {"scale": [], "weights": [], "pair": []}
    for exam, asked in groups:
        dense = dense_scores(asked.states, exam.states)
        lexical = sparse_scores(asked.states, exam.states, sparse)
        late = colbert_scores(asked.states, exam.states, colbert)
        d, s, c = PUBLISHED
        hits["scale"].append([recall(d * dense + s * k * k * lexical + c * late, asked) for k in SCALES])
        dense, lexical, late = zscore(dense), zscore(lexical), zscore(late)
        hits["weights"].append([recall(dense + a * lexical + b * late, asked) for a, b in FUSION_GRID])
        hits["pair"].append([recall(dense + a * lexical, asked) for a in SPARSE_WEIGHTS])
    means = {name: torch.tensor(rows).mean(0) for name, rows in hits.items()}
    log.info("fusion: %s", {name: [round(x, 3) for x in values.tolist()] for name, values in means.items()})
    best = FUSION_GRID[int(means["weights"].argmax())]
    pair = SPARSE_WEIGHTS[int(means["pair"].argmax())]
    weights = {"dense": 1.0, "sparse": best[0], "colbert": best[1], "sparse_without_colbert": pair}
    return SCALES[int(means["scale"].argmax())], weights


def fit(exams: Sequence[Exam]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The heads' numbers, and a record of how they came about."""
    start = ridge(exams)
    tried = {"ridge alone": tuning_recall(exams, start)}
    candidates = {}
    for settings in GRID:
        candidates[settings] = tuning_recall(exams, train(exams, start, settings, final=False))
        tried[f"pull {settings.pull:g}, title {settings.title:g}"] = candidates[settings]
        log.info("sparse %s: %.4f", settings, candidates[settings])
    chosen = max(candidates, key=candidates.__getitem__)
    groups = tuning_groups(exams)
    shares = {share: colbert_recall(groups, colbert_head(exams, share)) for share in MEAN_SHARES}
    log.info("colbert: %s", shares)
    share = max(shares, key=shares.__getitem__)
    colbert = colbert_head(exams, share)
    # Scale and weights from a head that has not seen the tuning sections, as they will be used.
    scale, weights = fusion(groups, train(exams, start, chosen, final=False), colbert)
    sparse = train(exams, start, chosen, final=True)
    numbers = {
        "sparse.weight": scale * sparse.weight,
        "sparse.bias": scale * sparse.bias,
        "colbert.bias": colbert.bias,
    }
    record = {
        "text": "Debian Reference, chapters 1 to 6, en, de, ja",
        "sections": sum(len(exam.states) for exam in exams),
        "tokens": sum(len(exam.states.ids) for exam in exams),
        "sparse": {"chosen": asdict(chosen), "scale": scale, "tuning_recall_at_1": rounded(tried)},
        "colbert": {
            "weight": "identity",
            "bias": f"-{share:g} of the mean token state",
            "tuning_recall_at_1": rounded({f"{key:g} of the mean": value for key, value in shares.items()}),
        },
        "zscore_weights": weights,
    }
    return numbers, record


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """Four decimals."""
    return {name: round(value, 4) for name, value in figures.items()}


def arguments(description: str | None) -> argparse.Namespace:
    """The folders that this and `evaluate_heads` work in."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, default=Path(".trivet/models/embedded"), help="built where it is not there"
    )
    parser.add_argument("--cache", type=Path, default=Path(".cache/heads"), help="Debian packages and token states")
    return parser.parse_args()


def main() -> None:
    """Fit, write, and say what was chosen."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = arguments(__doc__)
    began = time.monotonic()
    cache = StateCache(build(given.model), given.cache)
    exams = [fitting_exam(language, cache, given.cache) for language in LANGUAGES]
    log.info("encoded after %.0f s", time.monotonic() - began)
    numbers, record = fit(exams)
    (DATA / "heads.safetensors").write_bytes(save({name: value.contiguous() for name, value in numbers.items()}))
    (DATA / "heads.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    build(given.model)
    log.info("%s\nfitted in %.0f s", json.dumps(record, indent=2, ensure_ascii=False), time.monotonic() - began)


if __name__ == "__main__":
    main()
