"""Why a hit was found, down to the words: a step behind the ranking, for the few hits that are shown.

    result = retriever.search(namespace, collection, query.legs, request)
    for hit, why in zip(result.hits, explain(retriever, namespace, encoder.tokenizer, query, result.hits)):
        print([hit.text[h.start : h.end] for h in why.highlights])

The vectors are read again, of the hits alone; the texts are tokenised again, as they were when they were embedded.
Where that does not tell which characters a vector stands for, the explanation says why and leaves it out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trivet.chunking.context import embedded_text
from trivet.encoder.tokenizer import TokenRow
from trivet.errors import InvalidRequest
from trivet.retrieval import Hit, Retriever, StoredVectors
from trivet.retrieval.highlights import Highlight, Span, highlights
from trivet.retrieval.query import EncodedQuery, cut_to
from trivet.retrieval.scores import colbert_alignment, shared_terms

if TYPE_CHECKING:
    from trivet.encoder.tokenizer import Tokenizer

#: A token that stands for white space alone, as SentencePiece writes it.
_BLANK = "▁"


@dataclass(frozen=True, slots=True)
class TermMatch:
    """A token that query and chunk share, and its part of the sparse score."""

    #: As the query writes it.
    term: str
    token_id: int
    query_weight: float
    #: In the chunk: the largest of all places where the token stands, context included.
    weight: float
    #: `query_weight * weight`.
    contribution: float
    #: Every place in the chunk's text; none where the token stands in the context alone.
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class TokenMatch:
    """A query vector, the chunk's vector most like it, and their part of the MaxSim score."""

    query_token: str
    #: In `EncodedQuery.text`; None for tokens of the prompt and special ones.
    query_span: Span | None
    chunk_token: str
    #: In the chunk's text; None for tokens of prompt and context and special ones.
    chunk_span: Span | None
    #: Their dot product.
    similarity: float
    #: `similarity` / number of query vectors.
    contribution: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a hit's scores are made of. Spans are `[start, end)` in Unicode code points."""

    chunk_id: str
    #: Largest part first; the contributions add up to the sparse score. None where `terms_missing` says why.
    terms: tuple[TermMatch, ...] | None
    terms_missing: str
    #: In the query's order; the contributions add up to the ColBERT score. None where `alignment_missing` says why.
    alignment: tuple[TokenMatch, ...] | None
    alignment_missing: str
    #: Words of the text that matched a term or a word of the query, in the text's order.
    highlights: tuple[Highlight, ...]
    #: First and last page of the chunk: on which of them a word stands is not stored.
    page_start: int | None
    page_end: int | None


@dataclass(frozen=True, slots=True)
class _Side:
    """The tokens of a query or a chunk, as text and place."""

    row: TokenRow
    tokens: tuple[str, ...]


def explain(
    retriever: Retriever, namespace: str, tokenizer: Tokenizer, query: EncodedQuery, hits: Sequence[Hit]
) -> tuple[Explanation, ...]:
    """Explanations of hits that `retriever.search` gave for `query`, in their order.

    `tokenizer` is `QueryEncoder.tokenizer`. Raises what `Retriever.vectors` raises, and `InvalidRequest` for the
    tokenizer of another model than the query's.
    """
    if query.legs.encoder_key != tokenizer.identity.encoder_key:
        raise InvalidRequest("The query was encoded by another model than the tokenizer's.")
    if not hits:
        return ()
    longest = tokenizer.identity.max_tokens
    (row,) = tokenizer.placed([query.text], "query")
    row = TokenRow(tuple(cut_to(row.ids, longest)), tuple(cut_to(row.spans, longest)))
    asked = _side(tokenizer, query.text, row, 0)
    rows = tokenizer.placed([embedded_text(hit.context, hit.text) for hit in hits], "passage")
    stored = retriever.vectors(namespace, hits)
    return tuple(
        _explanation(query, asked, hit, _side(tokenizer, hit.text, row, len(embedded_text(hit.context, ""))), vectors)
        for hit, row, vectors in zip(hits, rows, stored, strict=True)
    )


def _side(tokenizer: Tokenizer, text: str, row: TokenRow, before: int) -> _Side:
    """`row` has the tokens of a text with `before` characters before it."""
    spans = tuple(
        None if span is None or span[1] <= before else (max(span[0] - before, 0), span[1] - before)
        for span in row.spans
    )
    tokens = (
        text[slice(*span)] if span else tokenizer.piece(token) or _BLANK
        for token, span in zip(row.ids, spans, strict=True)
    )
    return _Side(TokenRow(row.ids, spans), tuple(tokens))


def _explanation(query: EncodedQuery, asked: _Side, hit: Hit, found: _Side, stored: StoredVectors) -> Explanation:
    tokens_missing = ""
    if len(found.row.ids) != hit.token_count:
        tokens_missing = (
            f"The text was embedded as {hit.token_count} tokens and is {len(found.row.ids)} to the tokenizer of now."
        )
    terms_missing = tokens_missing or _terms_missing(hit, stored)
    alignment_missing = tokens_missing or _alignment_missing(query, hit, stored)
    terms = None if terms_missing else _terms(query, asked, found, stored)
    alignment = None if alignment_missing else _alignment(query, asked, found, stored)
    parts = (_term_parts(terms or ()), _token_parts(alignment or ()))
    return Explanation(
        chunk_id=hit.chunk_id,
        terms=terms,
        terms_missing=terms_missing,
        alignment=alignment,
        alignment_missing=alignment_missing,
        highlights=highlights(hit.text, hit.char_start, parts),
        page_start=hit.page_start,
        page_end=hit.page_end,
    )


def _terms_missing(hit: Hit, stored: StoredVectors) -> str:
    return "" if hit.sparse and stored.sparse else "The sparse leg is not stored."


def _alignment_missing(query: EncodedQuery, hit: Hit, stored: StoredVectors) -> str:
    if hit.colbert is None or stored.colbert is None:
        return "MaxSim was not computed for this hit: the colbert leg is not stored, or it was not reranked."
    if stored.colbert_pooling > 1:
        return (
            f"Up to {stored.colbert_pooling} tokens share a stored ColBERT vector, and which ones is not kept: "
            "the collection pools them."
        )
    if not len(query.legs.colbert):
        return "The query was encoded without the colbert leg."
    if len(stored.colbert) != hit.token_count - 1:
        return f"{len(stored.colbert)} ColBERT vectors are stored for {hit.token_count} tokens."
    return ""


def _terms(query: EncodedQuery, asked: _Side, found: _Side, stored: StoredVectors) -> tuple[TermMatch, ...]:
    assert stored.sparse is not None  # _terms_missing
    places: defaultdict[int, list[Span]] = defaultdict(list)
    for token, span in zip(found.row.ids, found.row.spans, strict=True):
        if span:
            places[token].append(span)
    # Of a token that is in the query twice the first one names it.
    names = dict(zip(reversed(asked.row.ids), reversed(asked.tokens), strict=True))
    return tuple(
        TermMatch(names[token], token, wanted, weight, wanted * weight, tuple(places[token]))
        for token, wanted, weight in shared_terms(query.legs.sparse_ids, query.legs.sparse_weights, *stored.sparse)
    )


def _alignment(query: EncodedQuery, asked: _Side, found: _Side, stored: StoredVectors) -> tuple[TokenMatch, ...]:
    assert stored.colbert is not None  # _alignment_missing
    best, similar = colbert_alignment(query.legs.colbert, stored.colbert)
    # Vector i is that of token i + 1: the first special token has none.
    pairs = zip(best.tolist(), similar.tolist(), strict=True)
    return tuple(
        TokenMatch(
            query_token=asked.tokens[at],
            query_span=asked.row.spans[at],
            chunk_token=found.tokens[vector + 1],
            chunk_span=found.row.spans[vector + 1],
            similarity=similarity,
            contribution=similarity / len(best),
        )
        for at, (vector, similarity) in enumerate(pairs, 1)
    )


def _term_parts(terms: Sequence[TermMatch]) -> Mapping[Span, float]:
    """Part of the sparse score per span: which place of a term its weight comes from is not stored, so all have it."""
    return {span: term.contribution for term in terms for span in term.spans}


def _token_parts(alignment: Sequence[TokenMatch]) -> Mapping[Span, float]:
    """Part of the MaxSim score per span; what prompt and special tokens of the query found is no match of a word."""
    parts: defaultdict[Span, float] = defaultdict(float)
    for match in alignment:
        if match.query_span and match.chunk_span and match.contribution > 0:
            parts[match.chunk_span] += match.contribution
    return parts
