"""Fits the sparse head: what a token is worth, from its last hidden state.

First a ridge regression onto each token's log inverse document frequency. Then the same 385 numbers are trained to
find sections: cross-entropy over all sections of a language for title, keyword and fragment queries, with a penalty
on the mean square change of the weights against the ridge solution (queries' and sections' weights multiply, so that
without it a few common words take all).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from infra.models.exam import Exam
from infra.models.legs import Head, SparsePair, sparse_scores

#: Ridge penalty, on the weights alone.
RIDGE = 10.0
#: Target of prompt tokens and special tokens that stay: below zero, so that relu drops them.
PROMPT_TARGET = -1.0
#: Scale of the ridge solution at which its products work as logits (log-IDF reaches 6, a query has 3 to 10 terms).
LOGIT_SCALE = 0.35
ITERATIONS = 30
PROMPT_PENALTY = 5.0


@dataclass(frozen=True, slots=True)
class SparseSettings:
    """What is chosen on the tuning sections."""

    #: Weight of the penalty on leaving the ridge solution.
    pull: float
    #: Weight of titles against keywords and fragments, which have 1.
    title: float


GRID = tuple(SparseSettings(pull, title) for pull in (3.0, 10.0, 30.0) for title in (1.0, 2.0))


def ridge(exams: Sequence[Exam]) -> Head:
    """Linear regression of states onto log(sections / sections with the token), prompts onto -1."""
    frequency: Counter[int] = Counter()
    for exam in exams:
        for row in exam.states.ids.split(exam.states.offsets.diff().tolist()):
            frequency.update(set(row.tolist()))
    sections = sum(len(exam.states) for exam in exams)
    width = exams[0].states.states.shape[1]
    left = torch.diag(torch.tensor([RIDGE] * width + [0.0], dtype=torch.float64))
    right = torch.zeros(width + 1, dtype=torch.float64)
    for exam in exams:
        kept = exam.states.is_text | exam.states.is_prompt
        states = functional.pad(exam.states.states[kept].double(), (0, 1), value=1.0)
        idf = torch.tensor([math.log(sections / frequency[i]) for i in exam.states.ids[kept].tolist()])
        target = torch.where(exam.states.is_prompt[kept], PROMPT_TARGET, idf).double()
        left += states.T @ states
        right += states.T @ target
    found = torch.linalg.solve(left, right).float()
    return Head(found[None, :-1].contiguous(), found[-1:].contiguous())


class _Problem:
    """One language's queries that are fitted on, in whitened coordinates, so that all directions are alike."""

    def __init__(
        self, exam: Exam, settings: SparseSettings, mean: torch.Tensor, into: torch.Tensor, final: bool
    ) -> None:
        self.pairs = []
        for kind, questions in exam.questions.items():
            fitted = questions if final else questions.select(~questions.tuning)
            pair = SparsePair(fitted.states, exam.states)
            rows = [(states - mean) @ into for states in (pair.query_states, pair.section_states)]
            weight = settings.title if kind == "title" else 1.0
            self.pairs.append((pair, rows, fitted.answers, weight * len(fitted.answers)))
        prompts = [texts.states[texts.is_prompt] for texts in (exam.states, exam.questions["title"].states)]
        self.prompts = (torch.cat(prompts) - mean) @ into

    def loss(self, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Weighted mean cross-entropy, and the penalty on prompts with a weight."""
        total = torch.zeros(())
        for pair, rows, answers, share in self.pairs:
            scores = pair.scores(*(torch.relu(part @ weight + bias) for part in rows))
            total = total + share * functional.cross_entropy(scores, answers)
        prompts = torch.relu(self.prompts @ weight + bias + 0.1).square().mean()
        return total / sum(share for *_, share in self.pairs) + PROMPT_PENALTY * prompts


def train(exams: Sequence[Exam], start: Head, settings: SparseSettings, *, final: bool) -> Head:
    """The head that finds sections best and stays near `start`; L-BFGS over all queries at once, no randomness.

    `final` lets the tuning sections' queries in too.
    """
    states = torch.cat([exam.states.states[exam.states.is_text] for exam in exams])
    mean = states.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((states - mean).T.double()))
    spread = (values + 1e-3 * values.mean()).sqrt()
    into, back = (vectors / spread).float(), (vectors * spread).float()
    problems = [_Problem(exam, settings, mean, into, final) for exam in exams]
    weight_0 = LOGIT_SCALE * start.weight[0] @ back
    bias_0 = LOGIT_SCALE * (start.bias + start.weight[0] @ mean)
    weight, bias = weight_0.clone().requires_grad_(), bias_0.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        moved = (weight - weight_0).square().sum() + (bias - bias_0).square().sum()
        loss: torch.Tensor = sum((problem.loss(weight, bias) for problem in problems), torch.zeros(())) / len(problems)
        loss = loss + settings.pull * moved
        loss.backward()
        return loss

    optimiser.step(closure)
    found = (into @ weight).detach()
    return Head(found[None].contiguous(), (bias - found @ mean).detach())


def tuning_recall(exams: Sequence[Exam], head: Head) -> float:
    """Mean recall@1 over languages and kinds of query, on the tuning sections."""
    found = []
    for exam in exams:
        for questions in exam.questions.values():
            kept = questions.select(questions.tuning)
            hits = sparse_scores(kept.states, exam.states, head).argmax(1) == kept.answers
            found.append(float(hits.float().mean()))
    return sum(found) / len(found)
