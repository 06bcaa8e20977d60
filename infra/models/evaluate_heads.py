"""Prints how well each leg and their fusions find sections of text that the heads never saw. `make evaluate-heads`.

    python -m infra.models.evaluate_heads [--model FOLDER] [--cache FOLDER]

Text: chapters 7 to 12 of the Debian Reference, in the three languages of fitting and in others. Recall@1 of three
keywords and of the section's title among the sections of the same language, and of the title among the English
sections. Fusion weights are those that `fit_heads` chose on chapters 1 to 6.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import torch

from infra.models.exam import Exam, Questions, fitting_exam, recall, report_exam, translated
from infra.models.fit_heads import LANGUAGES, arguments, zscore
from infra.models.fit_sparse import ridge
from infra.models.legs import Head, colbert_scores, dense_scores, sparse_scores
from infra.models.states import StateCache, States
from trivet.embedded.model import CARD, build

OTHERS = ("fr", "es", "zh-cn")

log = logging.getLogger("evaluate_heads")


def load_head(folder: Path, leg: str) -> Head:
    """A head as the model's folder has it."""
    state = torch.load(folder / f"{leg}_linear.pt", weights_only=True)
    return Head(state["weight"], state["bias"])


def groups(exams: dict[str, Exam]) -> Iterator[tuple[str, Exam, Questions]]:
    """Name, sections and queries of every row of the table."""
    for kind in ("keyword", "title"):
        for language, exam in exams.items():
            yield f"{kind}, {language}", exam, exam.questions[kind]
    for language, exam in exams.items():
        if language != "en":
            yield f"title, {language} → en", exams["en"], translated(exam, exams["en"])


def main() -> None:
    """Print the table in Markdown."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = arguments(__doc__)
    folder = build(given.model)
    cache = StateCache(folder, given.cache)
    weights = json.loads((folder / CARD).read_text(encoding="utf-8"))["heads"]["zscore_weights"]
    sparse, colbert = load_head(folder, "sparse"), load_head(folder, "colbert")
    start = ridge([fitting_exam(language, cache, given.cache) for language in LANGUAGES])
    identity = Head(torch.eye(colbert.weight.shape[1]), torch.zeros(len(colbert.bias)))
    exams = {language: report_exam(language, cache, given.cache) for language in (*LANGUAGES, *OTHERS)}
    columns = (
        "dense",
        "sparse, ridge",
        "sparse",
        "ColBERT, identity",
        "ColBERT",
        "dense + sparse",
        "all three",
        "all three, raw .4/.2/.4",
    )
    log.info("| recall@1 | queries | %s |\n|---%s|", " | ".join(columns), "|---:" * (len(columns) + 1))
    rows = []
    for name, exam, questions in groups(exams):
        asked = questions.states
        dense, lexical, late = (
            dense_scores(asked, exam.states),
            sparse_scores(asked, exam.states, sparse),
            colbert_scores(asked, exam.states, colbert),
        )
        pair = zscore(dense) + weights["sparse_without_colbert"] * zscore(lexical)
        fused = zscore(dense) + weights["sparse"] * zscore(lexical) + weights["colbert"] * zscore(late)
        scores = (
            dense,
            sparse_scores(asked, exam.states, start),
            lexical,
            colbert_scores(asked, exam.states, identity),
            late,
            pair,
            fused,
            0.4 * dense + 0.2 * lexical + 0.4 * late,
        )
        rows.append([recall(found, questions) for found in scores])
        log.info("| %s | %d | %s |", name, len(asked), " | ".join(f"{value:.2f}" for value in rows[-1]))
    log.info("| mean | | %s |", " | ".join(f"{value:.3f}" for value in torch.tensor(rows).mean(0).tolist()))
    _log_terms(exams["en"].states, sparse)


def _log_terms(sections: States, sparse: Head) -> None:
    weights = torch.relu(sparse(sections.states)).squeeze(1)
    text, prompt = weights[sections.is_text], weights[sections.is_prompt]
    shares = [100 * float((part > 0).float().mean()) for part in (text, prompt)]
    log.info(
        "\nSparse weights in English sections: %.0f %% of tokens above zero, mean %.2f, greatest %.2f; %.0f %% of "
        "prompt tokens above zero (Trivet's encoder drops those).",
        *(shares[0], float(text.mean()), float(text.max()), shares[1]),
    )


if __name__ == "__main__":
    main()
