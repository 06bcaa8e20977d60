"""The index: the seam, its values, and its registry.

An index holds points, one per chunk and generation, in *spaces*: one per collection, encoder fingerprint and set of
legs, so that vectors of different models or widths never meet. `embedded` is Qdrant Edge in this process, `qdrant` a
server or cluster by URL; both pass `tests/contract/test_indexes.py`. What a generation's points go through is
`trivet.index.writing`, what keeps the index level with S3 `trivet.index.indexer` and `trivet.index.sync`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, Self

from trivet.errors import InvalidRequest, MissingDependency
from trivet.retrieval.requests import Leg
from trivet.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Numbers of one chunk's ColBERT vectors that a Qdrant server takes (`MAX_MULTIVECTOR_FLATTENED_LEN` in its source);
#: what has more is read from the parts when it is to be reranked.
MOST_COLBERT_NUMBERS: Final = 1 << 20
#: Numbers up to which a segment is scanned in full: up to 10,000 chunks of 1024 dimensions need no graph, and are
#: found exactly.
SCANNED_NUMBERS: Final = 10_240_000

_SPACE = re.compile(r"(?P<key>[0-9a-f]{1,64})-d(?P<dense>\d+)-s(?P<sparse>[01])-c(?P<colbert>\d+)")
_MARKS = "marks"


@dataclass(frozen=True, slots=True)
class Space:
    """Points that can be compared: of one collection, one encoder fingerprint, and the same legs."""

    namespace: str
    collection: str
    #: `ModelIdentity.encoder_key`; empty for the marks of the collection's objects, which have no vectors.
    encoder_key: str = ""
    #: Width of dense vectors; 0 where the leg is not stored.
    dense: int = 0
    sparse: bool = False
    #: Width of ColBERT vectors; 0 where the leg is not stored.
    colbert: int = 0

    @property
    def name(self) -> str:
        """A name that says all but namespace and collection."""
        if not self.encoder_key:
            return _MARKS
        return f"{self.encoder_key}-d{self.dense}-s{int(self.sparse)}-c{self.colbert}"

    @classmethod
    def named(cls, namespace: str, collection: str, name: str) -> Self | None:
        """The space of this name, or None for what is no such name."""
        if name == _MARKS:
            return cls(namespace, collection)
        found = _SPACE.fullmatch(name)
        if found is None:
            return None
        sizes = int(found["dense"]), found["sparse"] == "1", int(found["colbert"])
        return cls(namespace, collection, found["key"], *sizes)

    def has(self, leg: Leg) -> bool:
        """Whether points of this space have the leg."""
        return bool({Leg.DENSE: self.dense, Leg.SPARSE: self.sparse, Leg.COLBERT: self.colbert}[leg])


@dataclass(frozen=True, slots=True)
class Point:
    """What is written for one chunk. Legs that the space does not have are None."""

    #: A UUID.
    id: str
    #: JSON values; none is None.
    payload: Mapping[str, Any]
    #: [d] float32, L2-normalised.
    dense: NDArray[np.float32] | None = None
    #: [terms] uint32 ids, [terms] float32 weights.
    sparse: tuple[NDArray[np.uint32], NDArray[np.float32]] | None = None
    #: [vectors, d], at most MOST_COLBERT_NUMBERS; kept as float16.
    colbert: NDArray[np.float16] | NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Where:
    """Which points; all that is given must hold."""

    #: Of these objects.
    objects: Collection[str] | None = None
    #: Of none of these objects.
    not_objects: Collection[str] | None = None
    #: Of this generation.
    generation: int | None = None
    #: Of none but this generation.
    not_generation: int | None = None
    live: bool | None = None
    languages: Sequence[str] = ()
    #: On pages `first` to `last`, at least in part; None leaves an end open.
    pages: tuple[int | None, int | None] | None = None
    #: Under these headings, outermost first.
    heading: Sequence[str] = ()
    ids: Collection[str] | None = None

    @property
    def nothing(self) -> bool:
        """Whether no point can match: Qdrant knows no empty set of values."""
        return any(names is not None and not names for names in (self.objects, self.ids))


class Found(NamedTuple):
    """A point that a leg brought in; the payload has the fields that were asked for."""

    id: str
    score: float
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class QueryVector:
    """One leg of a query, as wide as the space's vectors."""

    leg: Leg
    #: DENSE: [d] float32. COLBERT: [q, d] float32.
    numbers: NDArray[np.float32] | None = None
    #: SPARSE: [terms] uint32 ids, [terms] float32 weights.
    terms: tuple[NDArray[np.uint32], NDArray[np.float32]] | None = None


class Index(Protocol):
    """Points in spaces. Safe to share between threads.

    Every method raises `IndexUnavailable`. A write is seen by reads that begin after it, and outlives a kill of the
    process; `settle` makes it outlive a loss of power.
    """

    def spaces(self, namespace: str = "", collection: str = "") -> tuple[Space, ...]:
        """Spaces that were ever written to; of one namespace or collection, where given."""
        ...

    def damaged(self) -> tuple[Space, ...]:
        """Spaces that were found to be unreadable: all of them raises `IndexDamaged` until it is dropped."""
        ...

    def drop(self, space: Space) -> None:
        """Forget a space with all its points. No error where there is none."""
        ...

    def put(self, space: Space, points: Sequence[Point]) -> None:
        """Write points, in place of those with the same ids; the space is made where it is not there."""
        ...

    def set_live(self, space: Space, object_id: str, generation: int) -> None:
        """Let searches find a generation."""
        ...

    def delete(self, space: Space, where: Where) -> None:
        """Remove points."""
        ...

    def count(self, space: Space, where: Where) -> int:
        """How many points there are; exact."""
        ...

    def nearest(self, space: Space, query: QueryVector, where: Where, limit: int, fields: Sequence[str]) -> list[Found]:
        """The best points by dense or sparse score (see `trivet.retrieval.scores`), best first; dense by HNSW.

        Sparse gives points with a term in common alone.
        """
        ...

    def scores(self, space: Space, query: QueryVector, ids: Collection[str]) -> dict[str, float]:
        """The scores of these points in any leg. Points without it (for sparse: without a term in common) are left out.

        MaxSim is computed on float16, the query's too.
        """
        ...

    def turn(self) -> AbstractContextManager[None]:
        """Held by a search while it reads most: one at a time, where several at once would only slow each other down.

        Reads and writes outside of it are right as well; whatever waits for S3 must not be done within.
        """
        ...

    def payloads(self, space: Space, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Whole payloads by id, of those that are there."""
        ...

    def scroll(self, space: Space, where: Where, fields: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every point with these fields of its payload, in no promised order."""
        ...

    def settle(self) -> None:
        """Return when all that was written is on disk."""
        ...

    def optimize(self) -> bool:
        """Build graphs where segments have grown, and reclaim what was deleted; True where there was something to do.

        Reads and writes go on meanwhile.
        """
        ...

    def close(self) -> None:
        """Let go of it. Nothing may be called after that."""
        ...


#: Scheme of the setting `index_url` → module:class, imported only when it is asked for.
INDEXES = {
    "embedded": "trivet.index.edge:EdgeIndex",
    "http": "trivet.index.qdrant:QdrantIndex",
    "https": "trivet.index.qdrant:QdrantIndex",
}


def open_index(settings: Settings) -> Index:
    """The index that the settings name; the embedded one is opened by one process alone.

    Raises `InvalidRequest` for a setting that names none, `MissingDependency`, `IndexBusy` where another process has
    it, and `IndexUnavailable`.
    """
    if not settings.indexed:
        raise InvalidRequest("TRIVET_INDEX_URL is off: there is no index.", hint="Set it to embedded, or leave it out.")
    scheme = settings.index_url.partition("://")[0]
    if scheme not in INDEXES:
        raise InvalidRequest(
            f"TRIVET_INDEX_URL names no kind of index: {scheme[:20]!r}.",
            hint="Set it to embedded, to a Qdrant server's URL such as http://127.0.0.1:6333, or to off for none.",
        )
    module, kind = INDEXES[scheme].split(":")
    try:
        loaded = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("qdrant_edge", "qdrant_client", "numpy"):
            raise
        extra = "search" if scheme == "embedded" else "qdrant"
        raise MissingDependency(
            f"The index needs the package {error.name.partition('.')[0]!r}.",
            hint=f"Install it: pip install 'trivet[{extra}]'.",
        ) from None
    index: Index = getattr(loaded, kind).open(settings)
    return index
