"""The index on a Qdrant server or cluster: one Qdrant collection per space."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Self

import numpy as np
from qdrant_client import QdrantClient, models

from trivet.errors import IndexUnavailable
from trivet.ids import redact_url
from trivet.index import SCANNED_NUMBERS, Found, Point, QueryVector, Space, Where
from trivet.index.fields import INDEXED, INDEXED_MARKS, heading_key
from trivet.retrieval.requests import Leg
from trivet.settings import Settings

_PAGE = 1000
#: Between the parts of a collection's name: namespaces and collections have no such character, and Qdrant takes it.
_BETWEEN = "~"
_SCHEMAS = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.INTEGER,
}
#: Bytes of one upsert: a server refuses bodies of more than 32 MiB by default.
_MOST_BYTES = 16 << 20


class QdrantIndex:
    """`Index` over a client, under a prefix of collection names. Create with `open`; close it."""

    def __init__(self, client: QdrantClient, *, prefix: str, ef: int | None = None, where: str = "Qdrant") -> None:
        """`ef` None: as many candidates as the server keeps by default."""
        self._client = client
        self._prefix = prefix
        self._params = None if ef is None else models.SearchParams(hnsw_ef=ef)
        self._where = where
        self._known: set[Space] = set()

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """At the URL of the settings; the server is asked only when it is needed."""
        client = QdrantClient(
            url=settings.index_url,
            api_key=settings.index_api_key.get_secret_value() or None,
            timeout=math.ceil(settings.index_timeout_seconds),
            check_compatibility=False,
        )
        return cls(client, prefix=settings.index_prefix, ef=settings.index_ef, where=redact_url(settings.index_url))

    def close(self) -> None:
        self._client.close()

    # ------------------------------------------------------------ spaces

    def spaces(self, namespace: str = "", collection: str = "") -> tuple[Space, ...]:
        with self._errors():
            names = sorted(found.name for found in self._client.get_collections().collections)
        found = []
        for name in names:
            parts = name.split(_BETWEEN)
            if len(parts) == 4 and parts[0] == self._prefix:
                space = Space.named(*parts[1:])
                if space and namespace in ("", space.namespace) and collection in ("", space.collection):
                    found.append(space)
        return tuple(found)

    def damaged(self) -> tuple[Space, ...]:
        """The server looks after its own."""
        return ()

    def drop(self, space: Space) -> None:
        with self._errors():
            self._client.delete_collection(self._name(space))
        self._known.discard(space)

    def _name(self, space: Space) -> str:
        return _BETWEEN.join((self._prefix, space.namespace, space.collection, space.name))

    def _there(self, space: Space) -> bool:
        if space not in self._known:
            with self._errors():
                if not self._client.collection_exists(self._name(space)):
                    return False
            self._known.add(space)
        return True

    def _make(self, space: Space) -> None:
        if self._there(space):
            return
        name = self._name(space)
        with self._errors():
            self._client.create_collection(
                name,
                vectors_config=_vectors_config(space),
                sparse_vectors_config={"sparse": models.SparseVectorParams()},
                optimizers_config=models.OptimizersConfigDiff(indexing_threshold=SCANNED_NUMBERS * 4 // 1024),
            )
            for field, kind in (INDEXED if space.encoder_key else INDEXED_MARKS).items():
                self._client.create_payload_index(name, field, _SCHEMAS[kind])
        self._known.add(space)

    # ------------------------------------------------------------ writing

    def put(self, space: Space, points: Sequence[Point]) -> None:
        if not points:
            return
        self._make(space)
        for page in _pages(points):
            rows = [
                models.PointStruct(id=point.id, vector=_vectors(point), payload=dict(point.payload)) for point in page
            ]
            with self._errors():
                self._client.upsert(self._name(space), rows, wait=True)

    def set_live(self, space: Space, object_id: str, generation: int) -> None:
        if self._there(space):
            where = _filter(Where(objects=(object_id,), generation=generation))
            with self._errors():
                self._client.set_payload(self._name(space), {"live": 1}, points=where, wait=True)

    def delete(self, space: Space, where: Where) -> None:
        if not where.nothing and self._there(space):
            with self._errors():
                selected = models.FilterSelector(filter=_filter(where))
                self._client.delete(self._name(space), selected, wait=True)

    def settle(self) -> None:
        """Every write has waited for the server, which has it in its log."""

    def optimize(self) -> bool:
        """The server does so by itself."""
        return False

    # ------------------------------------------------------------ reading

    def turn(self) -> AbstractContextManager[None]:
        return nullcontext()

    def count(self, space: Space, where: Where) -> int:
        if where.nothing or not self._there(space):
            return 0
        with self._errors():
            return int(self._client.count(self._name(space), _filter(where), exact=True).count)

    def nearest(self, space: Space, query: QueryVector, where: Where, limit: int, fields: Sequence[str]) -> list[Found]:
        return self._query(space, query, where, limit, list(fields))

    def scores(self, space: Space, query: QueryVector, ids: Collection[str]) -> dict[str, float]:
        found = self._query(space, query, Where(ids=ids), len(ids), False) if ids else []
        scale = len(query.numbers) if query.leg == Leg.COLBERT and query.numbers is not None else 1
        return {point.id: point.score / scale for point in found}

    def _query(
        self, space: Space, query: QueryVector, where: Where, limit: int, fields: list[str] | bool
    ) -> list[Found]:
        if where.nothing or not space.has(query.leg) or not self._there(space):
            return []
        with self._errors():
            answer = self._client.query_points(
                self._name(space),
                query=_query_vector(query),
                using=query.leg.value,
                query_filter=_filter(where),
                search_params=self._params,
                limit=limit,
                with_payload=fields,
            )
        return [Found(str(point.id), point.score, point.payload or {}) for point in answer.points]

    def payloads(self, space: Space, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        if not ids or not self._there(space):
            return {}
        with self._errors():
            records = self._client.retrieve(self._name(space), list(ids), with_payload=True)
        return {str(record.id): record.payload or {} for record in records}

    def scroll(self, space: Space, where: Where, fields: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        after: Any = None
        while not where.nothing and self._there(space):
            with self._errors():
                records, after = self._client.scroll(
                    self._name(space), _filter(where), limit=_PAGE, offset=after, with_payload=list(fields)
                )
            yield from ((str(record.id), record.payload or {}) for record in records)
            if after is None:
                return

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - below the client lie httpx's, grpc's and its own
            what = " ".join(str(error).split())[:300] or type(error).__name__
            raise IndexUnavailable(f"{self._where} failed: {what}.") from None


def _vectors_config(space: Space) -> dict[str, models.VectorParams]:
    vectors = {}
    if space.dense:
        vectors["dense"] = models.VectorParams(
            size=space.dense,
            distance=models.Distance.DOT,
            hnsw_config=models.HnswConfigDiff(m=16, ef_construct=128, full_scan_threshold=SCANNED_NUMBERS * 4 // 1024),
        )
    if space.colbert:
        vectors["colbert"] = models.VectorParams(
            size=space.colbert,
            distance=models.Distance.DOT,
            datatype=models.Datatype.FLOAT16,
            multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
            # No graph: only candidates of the two other legs are ever scored.
            hnsw_config=models.HnswConfigDiff(m=0),
        )
    return vectors


def _pages(points: Sequence[Point]) -> Iterator[list[Point]]:
    """Points by turns of so many bytes as a request may have, about: a number takes up to 12 bytes as JSON."""
    page: list[Point] = []
    size = 0
    for point in points:
        bytes_ = 12 * sum(0 if array is None else array.size for array in (point.dense, point.colbert)) + 4096
        if page and size + bytes_ > _MOST_BYTES:
            yield page
            page, size = [], 0
        page.append(point)
        size += bytes_
    yield page


def _vectors(point: Point) -> dict[str, Any]:
    vectors: dict[str, Any] = {}
    if point.dense is not None:
        vectors["dense"] = point.dense.tolist()
    if point.sparse is not None:
        vectors["sparse"] = _sparse(point.sparse)
    if point.colbert is not None:
        vectors["colbert"] = point.colbert.astype(np.float32, copy=False).tolist()
    return vectors


def _query_vector(query: QueryVector) -> Any:
    if query.terms is not None:
        return _sparse(query.terms)
    return None if query.numbers is None else query.numbers.tolist()


def _sparse(terms: tuple[Any, Any]) -> models.SparseVector:
    return models.SparseVector(indices=terms[0].tolist(), values=terms[1].tolist())


def _filter(where: Where) -> models.Filter:
    must: list[models.Condition] = []
    must_not: list[models.Condition] = []

    def equal(key: str, value: Any) -> models.FieldCondition:
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))

    def any_of(key: str, values: Collection[str]) -> models.FieldCondition:
        return models.FieldCondition(key=key, match=models.MatchAny(any=sorted(values)))

    if where.objects is not None:
        must.append(any_of("object_id", where.objects))
    if where.not_objects:
        must_not.append(any_of("object_id", where.not_objects))
    if where.generation is not None:
        must.append(equal("generation", where.generation))
    if where.not_generation is not None:
        must_not.append(equal("generation", where.not_generation))
    if where.live is not None:
        must.append(equal("live", int(where.live)))
    if where.languages:
        must.append(any_of("language", where.languages))
    if where.pages is not None:
        first, last = where.pages
        must.append(models.FieldCondition(key="page_end", range=models.Range(gte=first or 1)))
        if last is not None:
            must.append(models.FieldCondition(key="page_start", range=models.Range(lte=last)))
    if where.heading:
        must.append(equal("headings", heading_key(where.heading)))
    if where.ids is not None:
        must.append(models.HasIdCondition(has_id=list(where.ids)))
    return models.Filter(must=must or None, must_not=must_not or None)
