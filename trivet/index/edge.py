"""The embedded index: Qdrant Edge, one shard per space, in the state folder. One process opens it, and no other."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

import qdrant_edge as qe

from trivet.index import Found, Point, QueryVector, Space, Where
from trivet.index.edge_identities import Identities
from trivet.index.edge_order import Order
from trivet.index.edge_shards import Shards
from trivet.index.edge_words import condition, query_vector, vectors
from trivet.index.fields import IDENTITY
from trivet.index.turns import Turns
from trivet.retrieval.requests import Leg
from trivet.settings import Settings

_PAGE = 1000


class EdgeIndex:
    """`Index` in a folder of its own. Create with `open`; close it."""

    def __init__(self, folder: Path, *, ef: int) -> None:
        self._params = qe.SearchParams(hnsw_ef=ef)
        self._shards = Shards(folder)
        self._order = Order(self._shards)
        self._identities = Identities()
        self._turns = Turns()

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """In the state folder. Raises `IndexBusy` where another process has it."""
        return cls(settings.index_folder, ef=settings.index_ef)

    def close(self) -> None:
        self._order.end()
        self._shards.close()

    def spaces(self, namespace: str = "", collection: str = "") -> tuple[Space, ...]:
        return self._shards.spaces(namespace, collection)

    def damaged(self) -> tuple[Space, ...]:
        return tuple(self._shards.damaged)

    def drop(self, space: Space) -> None:
        self._shards.drop(space)
        self._identities.forget_all(space)

    # ------------------------------------------------------------ writing

    def put(self, space: Space, points: Sequence[Point]) -> None:
        if points:
            with self._shards.guard(space):
                rows = [qe.Point(point.id, vectors(point), dict(point.payload)) for point in points]
            objects = {point.payload["object_id"] for point in points}
            self._update(space, qe.UpdateOperation.upsert_points(rows), objects, len(rows), make=True)
            self._identities.forget(space, [point.id for point in points])

    def set_live(self, space: Space, object_id: str, generation: int) -> None:
        of = condition(Where(objects=(object_id,), generation=generation))
        self._update(space, qe.UpdateOperation.set_payload_by_filter(of, {"live": 1}), {object_id})

    def delete(self, space: Space, where: Where) -> None:
        if not where.nothing:
            objects = {found["object_id"] for _, found in self.scroll(space, where, ("object_id",))}
            if objects:
                self._update(space, qe.UpdateOperation.delete_points_by_filter(condition(where)), objects)

    def _update(
        self, space: Space, operation: qe.UpdateOperation, objects: set[str], points: int = 0, *, make: bool = False
    ) -> None:
        with self._shards.writing:
            shard = self._shards.get(space, make=make)
            if shard is None:
                return
            with self._shards.guard(space):
                shard.update(operation)
            self._shards.note(space, objects, points)

    def settle(self) -> None:
        self._shards.flush()

    def optimize(self) -> bool:
        return self._order.bring()

    # ------------------------------------------------------------ reading

    def turn(self) -> AbstractContextManager[None]:
        return self._turns.turn()

    def count(self, space: Space, where: Where) -> int:
        shard = self._shards.get(space)
        if shard is None or where.nothing:
            return 0
        with self._shards.guard(space):
            return int(shard.count(qe.CountRequest(exact=True, filter=condition(where))))

    def nearest(self, space: Space, query: QueryVector, where: Where, limit: int, fields: Sequence[str]) -> list[Found]:
        if tuple(fields) != IDENTITY:
            return self._query(space, query, where, limit, list(fields))
        found = self._query(space, query, where, limit, False)
        known = self._known(space, [point.id for point in found])
        # What was deleted between the two reads is not there any more.
        return [point._replace(payload=known[point.id]) for point in found if point.id in known]

    def _known(self, space: Space, ids: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """The identities of these points."""
        held = self._identities.of(space)
        known = {name: payload for name in ids if (payload := held.get(name)) is not None}
        if len(known) < len(ids):
            fresh = self._retrieved(space, [name for name in ids if name not in known], list(IDENTITY))
            self._identities.keep(space, fresh)
            known |= fresh
        return known

    def scores(self, space: Space, query: QueryVector, ids: Collection[str]) -> dict[str, float]:
        found = self._query(space, query, Where(ids=ids), len(ids), False) if ids else []
        scale = len(query.numbers) if query.leg == Leg.COLBERT and query.numbers is not None else 1
        return {point.id: point.score / scale for point in found}

    def _query(
        self, space: Space, query: QueryVector, where: Where, limit: int, fields: list[str] | bool
    ) -> list[Found]:
        shard = self._shards.get(space)
        if shard is None or where.nothing or not space.has(query.leg):
            return []
        request = qe.QueryRequest(
            limit=limit,
            query=qe.Query.Nearest(query_vector(query), using=query.leg.value),
            filter=condition(where),
            params=self._params,
            with_payload=fields,
        )
        with self._shards.guard(space):
            points = shard.query(request)
        return [Found(str(point.id), point.score, point.payload or {} if fields else {}) for point in points]

    def payloads(self, space: Space, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        return self._retrieved(space, ids, True)

    def _retrieved(self, space: Space, ids: Sequence[str], fields: list[str] | bool) -> dict[str, dict[str, Any]]:
        shard = self._shards.get(space)
        if shard is None or not ids:
            return {}
        with self._shards.guard(space):
            return {str(record.id): record.payload or {} for record in shard.retrieve(list(ids), fields, False)}

    def scroll(self, space: Space, where: Where, fields: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        shard, after, wanted = self._shards.get(space), None, condition(where)
        while shard is not None and not where.nothing:
            request = qe.ScrollRequest(
                offset=after, limit=_PAGE, filter=wanted, with_payload=list(fields), with_vector=False
            )
            with self._shards.guard(space):
                records, after = shard.scroll(request)
            yield from ((str(record.id), record.payload or {}) for record in records)
            if after is None:
                return
