"""The embedded index: Qdrant Edge, one shard per space, in the state folder. One process opens it, and no other.

Folders beside a shard's own: `.new-` while it is made, `.copy-` while a copy of it is put in order, `.old-` while the
copy takes its place, `.gone-` while it is removed. What a kill leaves of these is tidied when the index is opened.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import qdrant_edge as qe

from trivet.errors import IndexUnavailable, TrivetError
from trivet.index import SCANNED_NUMBERS, Found, Point, QueryVector, Space, Where
from trivet.index.edge_folder import hold, tidy
from trivet.index.edge_identities import Identities
from trivet.index.edge_words import carry, condition, create, query_vector, vectors
from trivet.index.fields import IDENTITY
from trivet.retrieval.requests import Leg
from trivet.settings import Settings

_PAGE = 1000
#: Objects that are carried while writes wait.
_LAST = 4
#: A shard is put in order when so large a share of it was written since.
_SHARE = 0.5
_WIDE = 1024


class EdgeIndex:
    """`Index` in a folder of its own. Create with `open`; close it."""

    def __init__(self, folder: Path, *, ef: int) -> None:
        self._folder = folder.absolute()
        self._params = qe.SearchParams(hnsw_ef=ef)
        self._shards: dict[Space, qe.EdgeShard] = {}
        self._dirty: set[Space] = set()
        #: Points that were written since the shard was last put in order.
        self._written: Counter[Space] = Counter()
        #: Of shards that are being put in order: the objects that were written to meanwhile.
        self._touched: dict[Space, set[str]] = {}
        self._identities = Identities()
        self._lock = threading.RLock()
        #: Held for every write; taken before `_lock`.
        self._writing = threading.RLock()
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        #: The process that puts a shard in order.
        self._ordering: subprocess.Popen[str] | None = None
        self._closed = False
        self._held = hold(self._folder / "lock")
        tidy(self._folder)

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """In the state folder. Raises `IndexBusy` where another process has it."""
        return cls(settings.index_folder, ef=settings.index_ef)

    def close(self) -> None:
        with self._lock:
            if self._ordering is not None:
                self._ordering.kill()
        # What is put in order must not take a shard's place once another process may have the folder.
        with self._writing, self._lock:
            self._closed = True
            for space, shard in self._shards.items():
                with _errors(space):
                    shard.close()
            self._shards.clear()
            self._held.close()

    # ------------------------------------------------------------ spaces

    def spaces(self, namespace: str = "", collection: str = "") -> tuple[Space, ...]:
        found = self._folder.glob(f"{namespace or '*'}/{collection or '*'}/*/")
        spaces = (Space.named(path.parent.parent.name, path.parent.name, path.name) for path in sorted(found))
        return tuple(space for space in spaces if space is not None)

    def drop(self, space: Space) -> None:
        with self._lock:
            shard = self._shards.pop(space, None)
            self._dirty.discard(space)
            self._identities.forget_all(space)
            if shard is not None:
                with _errors(space):
                    shard.close()
            path = self._path(space)
            if path.is_dir():
                # Under another name first: what is cut short must not be taken for a space.
                gone = path.with_name(f".gone-{path.name}")
                shutil.rmtree(gone, ignore_errors=True)
                path.rename(gone)
                shutil.rmtree(gone, ignore_errors=True)

    def _path(self, space: Space) -> Path:
        return self._folder / space.namespace / space.collection / space.name

    def _shard(self, space: Space, *, make: bool = False) -> qe.EdgeShard | None:
        with self._lock:
            if space not in self._shards:
                path = self._path(space)
                if not path.is_dir():
                    if not make:
                        return None
                    with _errors(space):
                        create(path, space)
                with _errors(space):
                    self._shards[space] = qe.EdgeShard.load(str(path))
            return self._shards[space]

    # ------------------------------------------------------------ writing

    def put(self, space: Space, points: Sequence[Point]) -> None:
        if points:
            with _errors(space):
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
        with self._writing:
            shard = self._shard(space, make=make)
            if shard is None:
                return
            with _errors(space):
                shard.update(operation)
            self._written[space] += points
            if space in self._touched:
                self._touched[space] |= objects
            with self._lock:
                self._dirty.add(space)

    def settle(self) -> None:
        with self._writing:
            with self._lock:
                dirty = [(space, self._shards[space]) for space in self._dirty]
                self._dirty.clear()
            for space, shard in dirty:
                with _errors(space):
                    shard.flush()

    # ------------------------------------------------------------ order

    def optimize(self) -> bool:
        with self._lock:
            worth = [space for space, shard in self._shards.items() if self._worth(space, shard)]
        for space in worth:
            self._order(space)
        return bool(worth)

    def _worth(self, space: Space, shard: qe.EdgeShard) -> bool:
        written = self._written[space]
        least = SCANNED_NUMBERS // max(space.dense, _WIDE)
        return written >= least and written >= _SHARE * int(shard.info().points_count)

    def _order(self, space: Space) -> None:
        """Order a copy in another process, carry over what was written meanwhile, and put it in the shard's place."""
        path, shard = self._path(space), self._shard(space)
        copy = path.with_name(f".copy-{path.name}")
        assert shard is not None
        try:
            with self._writing:
                with _errors(space):
                    shard.flush()
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(path, copy)
                self._touched[space], self._written[space] = set(), 0
            self._ordered(space, copy)
            with _errors(space):
                self._replace(space, shard, copy)
        finally:
            self._touched.pop(space, None)
            shutil.rmtree(copy, ignore_errors=True)

    def _ordered(self, space: Space, copy: Path) -> None:
        with self._lock:
            if self._closed:
                raise IndexUnavailable("The index is closed.")
            command = [sys.executable, "-m", "trivet.index.ordering", str(copy)]
            self._ordering = subprocess.Popen(  # noqa: S603 - this very interpreter
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        _, said = self._ordering.communicate()
        status, self._ordering = self._ordering.returncode, None
        if status != 0:
            last = (said.strip().splitlines() or [f"status {status}"])[-1]
            raise IndexUnavailable(
                f"The index of {space.namespace}/{space.collection} could not be put in order: {last[:300]}."
            )

    def _replace(self, space: Space, shard: qe.EdgeShard, copy: Path) -> None:
        fresh = qe.EdgeShard.load(str(copy))
        while True:
            with self._writing:
                if self._closed:
                    raise IndexUnavailable("The index is closed.")
                touched, self._touched[space] = self._touched[space], set()
                if len(touched) <= _LAST:
                    carry(shard, fresh, touched)
                    fresh.flush()
                    fresh.close()
                    self._swap(space, copy)
                    return
            carry(shard, fresh, touched)

    def _swap(self, space: Space, copy: Path) -> None:
        path = self._path(space)
        old = path.with_name(f".old-{path.name}")
        with self._lock:
            path.rename(old)
            copy.rename(path)
            # Searches that are under way hold the old one, which goes with the last of them.
            self._shards[space] = qe.EdgeShard.load(str(path))
            self._dirty.discard(space)
        shutil.rmtree(old, ignore_errors=True)

    # ------------------------------------------------------------ reading

    def count(self, space: Space, where: Where) -> int:
        shard = self._shard(space)
        if shard is None or where.nothing:
            return 0
        with _errors(space):
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
        shard = self._shard(space)
        if shard is None or where.nothing or not space.has(query.leg):
            return []
        request = qe.QueryRequest(
            limit=limit,
            query=qe.Query.Nearest(query_vector(query), using=query.leg.value),
            filter=condition(where),
            params=self._params,
            with_payload=fields,
        )
        with _errors(space):
            points = shard.query(request)
        return [Found(str(point.id), point.score, point.payload or {} if fields else {}) for point in points]

    def payloads(self, space: Space, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        return self._retrieved(space, ids, True)

    def _retrieved(self, space: Space, ids: Sequence[str], fields: list[str] | bool) -> dict[str, dict[str, Any]]:
        shard = self._shard(space)
        if shard is None or not ids:
            return {}
        with _errors(space):
            return {str(record.id): record.payload or {} for record in shard.retrieve(list(ids), fields, False)}

    def scroll(self, space: Space, where: Where, fields: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        shard, after, wanted = self._shard(space), None, condition(where)
        while shard is not None and not where.nothing:
            request = qe.ScrollRequest(
                offset=after, limit=_PAGE, filter=wanted, with_payload=list(fields), with_vector=False
            )
            with _errors(space):
                records, after = shard.scroll(request)
            yield from ((str(record.id), record.payload or {}) for record in records)
            if after is None:
                return


@contextmanager
def _errors(space: Space) -> Iterator[None]:
    try:
        yield
    except TrivetError:
        raise
    except BaseException as error:  # the library raises no type of its own, and a panic of its Rust is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise IndexUnavailable(
            f"The index of {space.namespace}/{space.collection} failed: {str(error)[:300] or type(error).__name__}.",
            hint="If it stays so, stop Trivet, remove the folder `index` in its state folder and start it again.",
        ) from None
