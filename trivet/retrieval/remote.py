"""The index as clients reach it: searches go to the process that owns it, bytes of parts come from S3 as ever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from trivet.clock import Clock
from trivet.errors import IndexUnavailable, TrivetError
from trivet.index.indexer import Standing
from trivet.index.wire import Caller, query_json, result_of
from trivet.retrieval import Hit, Passage, QueryLegs, SearchRequest, SearchResult, StoredVectors
from trivet.retrieval.exact import ExactRetriever
from trivet.retrieval.extras import with_extras
from trivet.settings import Settings

_LOOK_SECONDS = 0.02
#: Chunks of a collection below which its parts are read rather than something missed that an index has not yet. Reading
#: takes the longer the more there are, and an index that is always a little behind must not lead to it every time.
_READABLE = 20_000


class RemoteRetriever:
    """`Retriever` over the socket of a `search` process. Safe to share between threads."""

    def __init__(self, caller: Caller, parts: ExactRetriever) -> None:
        self._caller = caller
        self._parts = parts

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Of the state folder that the settings name; nothing is asked yet."""
        return cls(caller(settings), ExactRetriever.open(settings))

    def search(self, namespace: str, collection: str, query: QueryLegs, request: SearchRequest) -> SearchResult:
        """See `trivet.retrieval.Retriever.search`. Raises `IndexUnavailable` where no process answers."""
        return self.search_whole(namespace, collection, query, request, below=0)

    def search_whole(
        self, namespace: str, collection: str, query: QueryLegs, request: SearchRequest, *, below: int
    ) -> SearchResult:
        """As `search`; raises `IndexUnavailable` also where the index lacks something of under `below` chunks."""
        bare = request.model_copy(update={"neighbours": 0, "section_tokens": None, "return_vectors": False})
        body = {
            "namespace": namespace,
            "collection": collection,
            "query": query_json(query),
            "request": bare.model_dump(mode="json"),
            "whole_below": below,
        }
        result = self._caller.ask(result_of, "search", body)
        return replace(result, hits=with_extras(self, namespace, result.hits, request))

    def vectors(self, namespace: str, hits: Sequence[Hit]) -> tuple[StoredVectors, ...]:
        """See `trivet.retrieval.Retriever.vectors`."""
        return self._parts.vectors(namespace, hits)

    def passages(
        self, namespace: str, collection: str, object_id: str, generation: int, first: int, last: int
    ) -> tuple[Passage, ...]:
        """See `trivet.retrieval.Retriever.passages`."""
        return self._parts.passages(namespace, collection, object_id, generation, first, last)


class AutoRetriever:
    """`Retriever` that asks the index and, where that does not answer, reads the parts. Thread-safe."""

    def __init__(self, index: RemoteRetriever, parts: ExactRetriever, socket: Path | None) -> None:
        """`socket` is where the index answers; None where there is to be none, whatever lies there."""
        self._index = index
        self._parts = parts
        self._socket = socket
        self.vectors = parts.vectors
        self.passages = parts.passages

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Of the state folder that the settings name."""
        socket = settings.search_socket if settings.indexed else None
        return cls(RemoteRetriever.open(settings), ExactRetriever.open(settings), socket)

    def search(self, namespace: str, collection: str, query: QueryLegs, request: SearchRequest) -> SearchResult:
        """See `trivet.retrieval.Retriever.search`; a note says so where there is an index that did not answer."""
        if self._socket is None or not self._socket.exists():
            return self._parts.search(namespace, collection, query, request)
        try:
            return self._index.search_whole(namespace, collection, query, request, below=_READABLE)
        except IndexUnavailable as error:
            found = self._parts.search(namespace, collection, query, request)
            return with_note(found, f"{error.message} The Parquet files were read instead.")


def with_note(result: SearchResult, note: str) -> SearchResult:
    """The result with one more sentence for the user."""
    return replace(result, stats=replace(result.stats, notes=(*result.stats.notes, note)))


def caller(settings: Settings) -> Caller:
    """Asks the `search` process of a state folder."""
    return Caller(settings.search_socket, timeout=settings.index_timeout_seconds)


def reachable(settings: Settings) -> bool:
    """Whether the `search` process of a state folder answers."""
    return _standing(settings) is not None


def _standing(settings: Settings) -> Standing | None:
    try:
        return standing(settings) if settings.search_socket.exists() else None
    except TrivetError:
        return None


def wait_level(settings: Settings, seconds: float, clock: Clock) -> None:
    """Wait until the index has all that was on the stream when this was called; at once where nobody searches in one.

    Raises `TimeoutError`.
    """
    if not settings.indexed or settings.retriever == "exact":
        return
    until, wanted, last = clock.monotonic() + seconds, None, 0
    while (found := _standing(settings)) is not None and found.filled and found.behind:
        if wanted is None or found.events < last:  # Counted from 0 by a process that has begun anew.
            wanted = found.events + found.behind
        if found.events >= wanted:
            return
        if clock.monotonic() >= until:
            raise TimeoutError(f"The index has not taken in the last {found.behind} events after {seconds:g} seconds.")
        last = found.events
        clock.sleep(_LOOK_SECONDS)


def standing(settings: Settings) -> Standing:
    """How far the index of a state folder is. Raises `IndexUnavailable` where no process answers, or is to."""
    if not settings.indexed:
        raise IndexUnavailable("TRIVET_INDEX_URL is off: there is no index.", hint="Set it to embedded.")
    return caller(settings).ask(lambda values: Standing(**values), "status")
