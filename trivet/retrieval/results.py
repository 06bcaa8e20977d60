"""What a retriever answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LegScore:
    """A leg's own score (see `trivet.retrieval.scores`), and the rank among this leg's candidates.

    `rank` counts from 1; None where the leg did not bring the chunk in, yet its score is known.
    """

    score: float
    rank: int | None


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """A hit's vectors as they are stored: what its scores were computed from."""

    #: [terms] uint32 token ids, ascending, and [terms] float32 weights > 0; None where the leg is not stored.
    sparse: tuple[NDArray[np.uint32], NDArray[np.float32]] | None
    #: [vectors, d] float16, or float32 where int8 is stored; None where the hit has no ColBERT score.
    colbert: NDArray[np.float16] | NDArray[np.float32] | None
    #: Tokens that were pooled into one ColBERT vector; 1 where vector i is that of token i + 1.
    colbert_pooling: int
    #: [d] float32, L2-normalised; None where the leg is not stored.
    dense: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk as a piece of its document."""

    chunk_id: str
    ordinal: int
    text: str
    heading_path: tuple[str, ...]
    page_start: int | None
    page_end: int | None
    #: `[char_start, char_end)` in the parsed document, in Unicode code points.
    char_start: int
    char_end: int
    token_count: int


@dataclass(frozen=True, slots=True)
class Section:
    """What stands around a hit under the same heading, sub-headings included; without headings, in the document."""

    #: In order, the hit's own chunk among them.
    passages: tuple[Passage, ...]
    #: It goes on before or after: there was no room for all of it.
    cut: bool

    @property
    def text(self) -> str:
        """All of it, with an empty line between chunks."""
        return "\n\n".join(passage.text for passage in self.passages)


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found."""

    chunk_id: str
    object_id: str
    collection: str
    generation: int
    ordinal: int
    text: str
    #: Heading path as it was embedded before the text, or empty.
    context: str
    heading_path: tuple[str, ...]
    page_start: int | None
    page_end: int | None
    #: `[char_start, char_end)` in the parsed document, in Unicode code points.
    char_start: int
    char_end: int
    language: str | None
    token_count: int
    #: Redacted.
    source_url: str
    metadata: dict[str, Any]
    #: Commit of the generation, ISO 8601.
    committed_at: str
    #: The fused score: it orders the hits of one search, and means nothing between searches (see `Fusion.absolute`).
    score: float
    #: What each leg brings to `score`, whose sum it is (of the method max: the largest). Empty where no leg that counts
    #: lists the chunk, and for several queries, which are fused by rank.
    shares: Mapping[str, float]
    #: None where the leg has no score: not stored, or not among those that were reranked.
    dense: LegScore | None
    sparse: LegScore | None
    colbert: LegScore | None
    #: Of several queries the one that ranks the chunk best, from 0: the legs' scores are for this one.
    query: int = 0
    #: What the request asks for beside the hit: `neighbours`, `section_tokens`, `return_vectors`.
    before: tuple[Passage, ...] = ()
    after: tuple[Passage, ...] = ()
    section: Section | None = None
    vectors: StoredVectors | None = None


@dataclass(frozen=True, slots=True)
class SearchStats:
    """What a search looked at. What it left out is here, never silent."""

    #: Visible objects in the collection (or of those asked for), and how many of them were scored.
    objects: int = 0
    objects_searched: int = 0
    #: Left out: embedded by another model than the query.
    objects_other_model: int = 0
    parts: int = 0
    row_groups: int = 0
    rows: int = 0
    #: Rows that the filters excluded.
    rows_filtered: int = 0
    rows_reranked: int = 0
    bytes_read: int = 0
    #: Seconds per step, in order: list, scan, rerank, load; extras where the request asks for any.
    seconds: Mapping[str, float] = field(default_factory=dict)
    #: Sentences for the user.
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, best first, equal scores in order of chunk id; grouped by object, the objects' hits one after another."""

    hits: tuple[Hit, ...]
    stats: SearchStats
    #: Hits (objects, where they are grouped) of the whole ranking that this page was cut from.
    ranked: int = 0

    @property
    def groups(self) -> tuple[tuple[str, tuple[Hit, ...]], ...]:
        """(object id, its hits) of hits that stand together: of a request with `group_size`, its groups."""
        return tuple((name, tuple(hits)) for name, hits in groupby(self.hits, key=lambda hit: hit.object_id))
