"""What a request asks for beside its hits: neighbouring chunks, sections, vectors. Read once the page is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from trivet.retrieval import Hit, Passage, Retriever, SearchRequest, Section

#: Ordinals that are asked for at once.
_BLOCK = 16


def wants_extras(request: SearchRequest) -> bool:
    """Whether a request asks for anything beside the hits."""
    return bool(request.neighbours or request.section_tokens or request.return_vectors)


def with_extras(retriever: Retriever, namespace: str, hits: Sequence[Hit], request: SearchRequest) -> tuple[Hit, ...]:
    """The hits with what the request asks for. Raises what `Retriever.passages` and `Retriever.vectors` raise."""
    if request.neighbours or request.section_tokens:
        around = _Around(retriever, namespace)
        hits = [_surrounded(around, hit, request) for hit in hits]
    if request.return_vectors:
        found = retriever.vectors(namespace, hits)
        hits = [replace(hit, vectors=vectors) for hit, vectors in zip(hits, found, strict=True)]
    return tuple(hits)


@dataclass(slots=True)
class _Around:
    """Passages of objects, each block of them read once."""

    retriever: Retriever
    namespace: str
    blocks: dict[tuple[str, str, int, int], tuple[Passage, ...]] = field(default_factory=dict)

    def walk(self, hit: Hit, step: int) -> Iterator[Passage]:
        """The passages after a hit (step 1) or before it (step -1), the nearest first."""
        at = hit.ordinal // _BLOCK
        while at >= 0:
            block = self._block(hit, at)
            yield from (passage for passage in block[::step] if (passage.ordinal - hit.ordinal) * step > 0)
            # The hit's own block has the hit, whatever lies around it.
            if not block:
                return
            at += step

    def own(self, hit: Hit) -> Passage:
        """The hit itself."""
        return Passage(
            chunk_id=hit.chunk_id,
            ordinal=hit.ordinal,
            text=hit.text,
            heading_path=hit.heading_path,
            page_start=hit.page_start,
            page_end=hit.page_end,
            char_start=hit.char_start,
            char_end=hit.char_end,
            token_count=hit.token_count,
        )

    def _block(self, hit: Hit, at: int) -> tuple[Passage, ...]:
        key = (hit.collection, hit.object_id, hit.generation, at)
        if key not in self.blocks:
            first = at * _BLOCK
            self.blocks[key] = self.retriever.passages(self.namespace, *key[:3], first, first + _BLOCK - 1)
        return self.blocks[key]


def _surrounded(around: _Around, hit: Hit, request: SearchRequest) -> Hit:
    count = request.neighbours
    before = tuple(islice(around.walk(hit, -1), count))[::-1]
    section = _section(around, hit, request.section_tokens) if request.section_tokens else None
    return replace(hit, before=before, after=tuple(islice(around.walk(hit, 1), count)), section=section)


def _section(around: _Around, hit: Hit, tokens: int) -> Section:
    """Grows from the hit by turns, after it and before it; a side ends at another heading or where there is no room."""
    found, cut, left = [around.own(hit)], False, tokens - hit.token_count
    sides = [around.walk(hit, 1), around.walk(hit, -1)]
    while sides:
        side = sides.pop(0)
        passage = next(side, None)
        if passage is None or passage.heading_path[: len(hit.heading_path)] != hit.heading_path:
            continue
        if passage.token_count > left:
            cut = True
            continue
        left -= passage.token_count
        found.append(passage)
        sides.append(side)
    return Section(tuple(sorted(found, key=lambda passage: passage.ordinal)), cut)
