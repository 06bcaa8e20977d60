"""Scores of n queries against m sections for each leg, [n, m] float32, as the encoder defines the legs.

dense is the cosine of mean-pooled states, sparse Σ of products of relu(head(state)) with the greatest per token id,
ColBERT the mean over query tokens of the greatest cosine. In torch, so that heads can be trained through them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from infra.models.states import States


@dataclass(frozen=True, slots=True)
class Head:
    """A linear layer: [out, d] weight and [out] bias."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """[tokens, d] → [tokens, out]."""
        return functional.linear(states, self.weight, self.bias)


def dense_scores(queries: States, sections: States) -> torch.Tensor:
    """Cosine of the mean over all tokens, special tokens and prompt counted."""
    return _pooled(queries) @ _pooled(sections).T


def _pooled(texts: States) -> torch.Tensor:
    sums = torch.zeros(len(texts), texts.states.shape[1]).index_add_(0, texts.owner, texts.states)
    return functional.normalize(sums, dim=1)


class SparsePair:
    """Queries and sections with all that does not depend on the head worked out once: which tokens can meet."""

    def __init__(self, queries: States, sections: States) -> None:
        self._terms = torch.unique(queries.ids[queries.is_text])
        self._shape = (len(queries), len(sections))
        self.query_states, self._query, self._query_term, self._query_runs = self._rows(queries)
        self.section_states, self._section, self._section_term, self._section_runs = self._rows(sections)

    def _rows(self, texts: States) -> tuple[torch.Tensor, ...]:
        """States of tokens that some query has, grouped by (text, term); text and term of each group; group sizes."""
        place = torch.searchsorted(self._terms, texts.ids).clamp_(max=len(self._terms) - 1)
        rows = torch.nonzero(texts.is_text & (self._terms[place] == texts.ids)).squeeze(1)
        groups = texts.owner[rows] * len(self._terms) + place[rows]
        order = torch.argsort(groups, stable=True)
        unique, sizes = torch.unique_consecutive(groups[order], return_counts=True)
        return texts.states[rows[order]], unique // len(self._terms), unique % len(self._terms), sizes

    def scores(self, of_query: torch.Tensor, of_section: torch.Tensor) -> torch.Tensor:
        """[queries, sections] from one weight per row of `query_states` and of `section_states`."""
        of_query = torch.segment_reduce(of_query, "max", lengths=self._query_runs)
        of_section = torch.segment_reduce(of_section, "max", lengths=self._section_runs)
        by_term = torch.zeros(len(self._terms), self._shape[1])
        by_term = by_term.index_put((self._section_term, self._section), of_section)
        products = by_term[self._query_term] * of_query[:, None]
        return torch.zeros(self._shape).index_add(0, self._query, products)


def sparse_scores(queries: States, sections: States, head: Head) -> torch.Tensor:
    """Σ of products of weights over the terms that both have."""
    pair = SparsePair(queries, sections)
    weights = [torch.relu(head(states)).squeeze(1) for states in (pair.query_states, pair.section_states)]
    return pair.scores(*weights)


def colbert_vectors(texts: States, head: Head) -> tuple[torch.Tensor, torch.Tensor]:
    """L2-normalised vectors of every token but `<s>`, and how many each text has."""
    return functional.normalize(head(texts.states[texts.position > 0]), dim=1), texts.offsets.diff() - 1


def colbert_scores(queries: States, sections: States, head: Head, block: int = 512) -> torch.Tensor:
    """Mean over query tokens of the greatest cosine among the section's tokens."""
    vectors, lengths = colbert_vectors(queries, head)
    others, other_lengths = colbert_vectors(sections, head)
    best = [
        torch.segment_reduce(others @ part.T, "max", lengths=other_lengths, axis=0) for part in vectors.split(block)
    ]
    owner = torch.repeat_interleave(torch.arange(len(queries)), lengths)
    sums = torch.zeros(len(sections), len(queries)).index_add(1, owner, torch.cat(best, dim=1))
    return (sums / lengths).T
