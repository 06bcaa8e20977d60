"""Cuts a document into chunks by the tokens of the model that will embed them.

A chunk starts at every heading that has text under it. Within a section cuts are made, best first, between
paragraphs, sentences, lines, clauses, words, graphemes; see `trivet.chunking.packing`. Chunks are in order and do not
overlap, every chunk's text is exactly `document.text[char_start:char_end]`, and every character of the document that
is no white space is in one of them or in a receipt.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trivet.chunking.boundaries import middle_cut, trimmed
from trivet.chunking.context import Contexts, embedded_text
from trivet.chunking.language import language_of
from trivet.chunking.packing import Budget, pack
from trivet.chunking.sections import Section, sections
from trivet.chunking.units import Units, measure
from trivet.ids import chunk_id
from trivet.values import Chunk, Chunking, Document, Page, Skipped

if TYPE_CHECKING:
    from trivet.encoder.tokenizer import Tokenizer

__all__ = ["Chunked", "chunk", "embedded_text"]

_BATCH_CHUNKS = 128
#: Units have at most this many tokens, so that a cut lies near wherever one is wanted.
_STEP = 24


@dataclass(frozen=True, slots=True)
class Chunked:
    """The chunks of a document, and the figures of its receipt."""

    chunks: tuple[Chunk, ...]
    #: Tokens as the encoder counts them (prompt, context and special tokens too): embedded + truncated.
    tokens_seen: int
    tokens_truncated: int
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, slots=True)
class _Draft:
    """A chunk before it is tokenised."""

    start: int
    end: int
    path: tuple[str, ...]
    context: str


@dataclass(slots=True)
class _Losses:
    """What could not be embedded."""

    tokens: int = 0
    characters: int = 0
    blank: int = 0


def chunk(document: Document, tokenizer: Tokenizer, chunking: Chunking, object_id: str) -> Chunked:
    """Chunks of `document`, each within `chunking.max_tokens` tokens and what the tokenizer's model takes.

    With `split_by="none"` the whole document is one chunk if the model takes that many tokens; else it is split as
    usual and a receipt says so.
    """
    text = document.text
    model_limit = tokenizer.identity.max_tokens
    overhead = tokenizer.overhead("passage")
    limit = min(chunking.max_tokens, model_limit)
    room = limit - overhead
    parts = sections(document)
    units = measure(text, parts, tokenizer, max(1, min(_STEP, room // 4)))
    skipped: list[Skipped] = []
    drafts: Iterator[_Draft] | list[_Draft]
    if chunking.split_by == "none" and sum(units.tokens) + overhead <= model_limit:
        limit = model_limit
        whole = trimmed(text, 0, len(text))
        drafts = [_Draft(*whole, (), "")] if whole else []
    else:
        if chunking.split_by == "none":
            reason = f"did not fit in one chunk of {model_limit} tokens; split into chunks of {limit}"
            skipped.append(Skipped(what="whole document as one chunk", reason=reason))
        contexts = Contexts(tokenizer, room // 4, enabled=chunking.heading_context)
        contexts.learn({part.above for part in parts} | {part.path for part in parts})
        drafts = _drafts(text, parts, units, contexts, min(chunking.target_tokens, limit) - overhead, room)
    losses = _Losses()
    pages = _PageIndex(document.pages)
    chunks: list[Chunk] = []
    for draft, ids in _tokenised(text, drafts, tokenizer, limit, overhead, losses):
        chunks.append(_finished(text, draft, ids, len(chunks), object_id, pages))
    if losses.characters:
        reason = f"one character alone has more than {limit} tokens"
        skipped.append(Skipped(what="characters", reason=reason, count=losses.characters))
    if losses.blank:
        skipped.append(Skipped(what="characters", reason="no tokens to the model", count=losses.blank))
    seen = sum(made.token_count for made in chunks) + losses.tokens
    return Chunked(tuple(chunks), seen, losses.tokens, tuple(skipped))


def _drafts(
    text: str, parts: Sequence[Section], units: Units, contexts: Contexts, target: int, room: int
) -> Iterator[_Draft]:
    for part in parts:
        low, high = units.within(part.start, part.end)
        first, rest = contexts.of(part.above), contexts.of(part.path)
        runs = pack(
            units.tokens[low:high],
            units.ranks[low:high],
            Budget(max(target - first[1], 1), room - first[1]),
            Budget(max(target - rest[1], 1), room - rest[1]),
        )
        for begin, end in runs:
            stop = units.starts[low + end] if low + end < high else part.end
            if span := trimmed(text, units.starts[low + begin], stop):
                yield _Draft(*span, part.path, (first if begin == 0 else rest)[0])


def _tokenised(
    text: str, drafts: Iterator[_Draft] | list[_Draft], tokenizer: Tokenizer, limit: int, overhead: int, losses: _Losses
) -> Iterator[tuple[_Draft, list[int]]]:
    """Drafts with their ids, in order. One that has more than `limit` tokens after all is cut again."""
    for batch in _batches(drafts):
        rows = tokenizer.encode(
            [embedded_text(draft.context, text[draft.start : draft.end]) for draft in batch], "passage"
        )
        for draft, ids in zip(batch, rows, strict=True):
            if len(ids) > limit:
                yield from _tokenised(
                    text, _cut_again(text, draft, len(ids), losses), tokenizer, limit, overhead, losses
                )
            elif len(ids) <= overhead:
                losses.blank += draft.end - draft.start
            else:
                yield draft, ids


def _batches(drafts: Iterator[_Draft] | list[_Draft]) -> Iterator[list[_Draft]]:
    batch: list[_Draft] = []
    for draft in drafts:
        batch.append(draft)
        if len(batch) == _BATCH_CHUNKS:
            yield batch
            batch = []
    if batch:
        yield batch


def _cut_again(text: str, draft: _Draft, tokens: int, losses: _Losses) -> list[_Draft]:
    """The draft in two halves. A single character gives up its context, and then itself."""
    if draft.end - draft.start > 1:
        cut = middle_cut(text, draft.start, draft.end)
        spans = (trimmed(text, draft.start, cut), trimmed(text, cut, draft.end))
        return [_Draft(*span, draft.path, draft.context) for span in spans if span]
    if draft.context:
        return [_Draft(draft.start, draft.end, draft.path, "")]
    losses.characters += 1
    losses.tokens += tokens
    return []


class _PageIndex:
    """Which pages a stretch of text lies on."""

    def __init__(self, pages: Sequence[Page]) -> None:
        self._pages = [page for page in pages if page.end > page.start]
        self._starts = [page.start for page in self._pages]
        self._ends = [page.end for page in self._pages]

    def of(self, start: int, end: int) -> tuple[int | None, int | None]:
        """Numbers of the first and last page that [start, end) touches."""
        first, last = bisect_right(self._ends, start), bisect_left(self._starts, end) - 1
        if first > last:
            return None, None
        return self._pages[first].number, self._pages[last].number


def _finished(text: str, draft: _Draft, ids: Sequence[int], ordinal: int, object_id: str, pages: _PageIndex) -> Chunk:
    body = text[draft.start : draft.end]
    page_start, page_end = pages.of(draft.start, draft.end)
    return Chunk(
        chunk_id=chunk_id(object_id, ordinal, body, draft.context),
        ordinal=ordinal,
        text=body,
        context=draft.context,
        heading_path=draft.path,
        page_start=page_start,
        page_end=page_end,
        char_start=draft.start,
        char_end=draft.end,
        language=language_of(body),
        token_ids=tuple(ids),
    )
