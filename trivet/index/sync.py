"""The index held against S3 as a whole: brought level with it, or compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import structlog

from trivet.errors import IndexDamaged, IndexUnavailable, StoreDamaged, StoreUnavailable
from trivet.index import Index, Where
from trivet.index.fields import point_id
from trivet.index.marks import Marks
from trivet.index.writing import Seen, Writer, Written
from trivet.rebuild.records import layouts
from trivet.retrieval.rows import open_part
from trivet.retrieval.visible import in_order, listed_objects
from trivet.settings import Settings
from trivet.stores import ObjectStore
from trivet.stores.layout import Layout

log = structlog.get_logger(__name__)

#: Objects that are looked at ahead.
_WINDOW = 64
#: Differences and damages that a report names; more are only counted.
_NAMED = 100


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something about one object; `object_id` is empty where it is about the collection."""

    namespace: str
    collection: str
    object_id: str
    reason: str


def trouble_of(values: Mapping[str, str]) -> Trouble:
    """A trouble out of JSON values."""
    return Trouble(**values)


@dataclass(frozen=True, slots=True)
class FillReport:
    """What was brought in."""

    indexed: int = 0
    removed: int = 0
    known: int = 0
    #: Objects whose bytes on S3 cannot be read.
    damaged: int = 0
    #: It was told to stop before the end.
    stopped: bool = False
    #: The first of the damaged.
    troubles: tuple[Trouble, ...] = ()


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was compared, and what differs."""

    objects: int = 0
    chunks: int = 0
    differences: int = 0
    #: The first of them.
    troubles: tuple[Trouble, ...] = ()


class Sync:
    """One index and one store."""

    def __init__(self, settings: Settings, index: Index, marks: Marks, writer: Writer, store: ObjectStore) -> None:
        self._settings = settings
        self._index = index
        self._marks = marks
        self._writer = writer
        self._store = store

    def fill(
        self,
        namespace: str = "",
        collection: str = "",
        *,
        anew: bool = False,
        stopping: Callable[[], bool] = lambda: False,
    ) -> FillReport:
        """Bring in all that S3 shows and the index has not, and remove what S3 has not; of all, or one collection.

        `anew` writes every object again; searches miss each for as long as that takes. Raises `IndexUnavailable` and
        the store's errors; what is damaged on S3 is reported.
        """
        counts: Counter[str] = Counter()
        troubles: list[Trouble] = []
        for layout, seen in self._seen(namespace, collection):
            if stopping():
                return _filled(counts, troubles, stopped=True)
            if isinstance(seen, Trouble):
                counts["damaged"] += 1
                troubles.append(seen)
            elif seen.level and not (anew and seen.manifest):
                counts[Written.KNOWN] += 1
                if anew and seen.current is None:
                    self._writer.forget(layout, seen.object_id)
            else:
                try:
                    counts[self._writer.bring(layout, seen.object_id, anew=anew)] += 1
                except StoreDamaged as error:
                    counts["damaged"] += 1
                    troubles.append(Trouble(layout.namespace, layout.collection, seen.object_id, error.message))
                    log.warning("index.damaged", object_id=seen.object_id, error=error.message)
        self._index.settle()
        log.info("index.filled", **counts)
        return _filled(counts, troubles, stopped=False)

    def remade(self, namespace: str = "", collection: str = "") -> FillReport:
        """`fill` anew in a process that has nothing else to do with the index: what is damaged is dropped before."""
        self.check()
        return self.fill(namespace, collection, anew=True)

    def verify(self, namespace: str = "", collection: str = "", *, deep: bool = False) -> VerifyReport:
        """Compare every object with its visible manifest: generation, chunks, and that nothing else is there.

        `deep` reads the chunk ids out of the parts and compares each. Objects that are committed meanwhile may be
        named although nothing is wrong: what differs at a second look as well is a difference. Raises as `fill` does.
        """
        found = [0, 0]
        troubles: list[Trouble] = []
        for layout, seen in self._seen(namespace, collection):
            if isinstance(seen, Trouble):
                troubles.append(seen)
                continue
            found[0] += seen.manifest is not None
            found[1] += sum(part.rows for part in seen.manifest.parts) if seen.manifest else 0
            if self._difference(layout, seen, deep):
                reason = self._difference(layout, self._writer.look(layout, seen.object_id), deep)
                if reason:
                    troubles.append(Trouble(layout.namespace, layout.collection, seen.object_id, reason))
        troubles += self._strangers(namespace, collection)
        return VerifyReport(found[0], found[1], len(troubles), tuple(troubles[:_NAMED]))

    # ------------------------------------------------------------ damage

    @property
    def damaged(self) -> bool:
        """Whether something is to be healed."""
        return bool(self._marks.damaged())

    def heal(self) -> tuple[str, ...]:
        """Drop what was found to be damaged, so that a fill brings it in anew; the collections, as "namespace/name"."""
        return self._healed(self._writer.heal())

    def check(self) -> tuple[str, ...]:
        """Look at every shard, and drop those that are damaged or have lost chunks, as `heal` does.

        To be called before anything is written. Spaces that nothing lies in any more are dropped as well.
        """
        stored: set[tuple[str, str]] | None = None
        # An index that is whole answers without S3 too.
        with suppress(StoreUnavailable):
            stored = {(found.namespace, found.collection) for found in layouts(self._settings, self._store)}
        lost = []
        for namespace, collection in self._marks.collections():
            layout = Layout(self._settings.s3_prefix.strip("/"), namespace, collection)
            try:
                self._writer.tidy(layout, gone=stored is not None and (namespace, collection) not in stored)
                if self._lost(layout):
                    lost.append((namespace, collection))
            except IndexDamaged as error:
                log.debug("index.unreadable", error=error.message)  # `heal` says so, once for all of the collection
        return self._healed(self._writer.heal(lost))

    def _lost(self, layout: Layout) -> bool:
        """Whether more differs from the marks than a kill can leave, which is one object; that one is made good."""
        place = layout.namespace, layout.collection
        spaces, rows, differ = self._index.spaces(*place), self._marks.rows(*place), set[str]()
        for space in spaces:
            if not space.encoder_key or self._index.count(space, Where(live=True)) == rows.get(space.name, 0):
                continue
            found = self._index.scroll(space, Where(live=True), ("object_id",))
            counts = Counter(str(payload.get("object_id")) for _, payload in found)
            expected = {mark.object_id: mark.rows for mark in self._marks.all(*place) if mark.space == space.name}
            differ |= {name for name in counts.keys() | expected if counts[name] != expected.get(name, 0)}
        there = {space.name for space in spaces}
        if len(differ) > 1 or any(count and name not in there for name, count in rows.items()):
            return True
        try:
            for name in differ:
                self._writer.bring(layout, name, anew=True)
        except IndexUnavailable:
            return True
        except StoreDamaged as error:
            log.warning("index.damaged", object_id=name, error=error.message)
        return False

    @staticmethod
    def _healed(places: Sequence[tuple[str, str]]) -> tuple[str, ...]:
        names = tuple(f"{namespace}/{collection}" for namespace, collection in places)
        if names:
            log.warning("index.dropped", collections=", ".join(names), reason="damaged: filled anew from S3")
        return names

    # ------------------------------------------------------------ one object

    def _difference(self, layout: Layout, seen: Seen, deep: bool) -> str:
        """What is wrong with an object, or an empty text."""
        spaces = {
            space.name: space for space in self._index.spaces(layout.namespace, layout.collection) if space.encoder_key
        }
        points = {name: self._index.count(space, Where(objects=(seen.object_id,))) for name, space in spaces.items()}
        total, manifest, mark = sum(points.values()), seen.manifest, seen.mark
        if manifest is None:
            if total:
                return f"{total} chunks are left of an object that is deleted"
            return "" if seen.level else "its deletion has not arrived"
        if mark is None or not seen.level:
            return f"generation {manifest.generation} is visible, the index has {mark.generation if mark else 'none'}"
        rows = sum(part.rows for part in manifest.parts)
        here = Where(objects=(seen.object_id,), generation=manifest.generation, live=True)
        live = self._index.count(spaces[mark.space], here) if mark.space in spaces else 0
        if live != rows:
            return f"{live} of {rows} chunks are there"
        if total != rows:
            return f"{total - rows} chunks of other generations are left"
        if deep and rows:
            wanted = {point_id(seen.object_id, manifest.generation, one) for one in self._chunk_ids(seen)}
            held = {one for one, _ in self._index.scroll(spaces[mark.space], here, ("ordinal",))}
            if wanted != held:
                return f"{len(wanted - held)} chunks are missing, {len(held - wanted)} are not in its parts"
        return ""

    def _chunk_ids(self, seen: Seen) -> Iterator[str]:
        for part in seen.manifest.parts if seen.manifest else ():
            with open_part(self._store, seen.object_id, part) as rows:
                for group in range(rows.row_groups):
                    for _, batch in rows.batches(group, ["chunk_id"], rows=4096):
                        yield from batch.table.column("chunk_id").to_pylist()

    def _strangers(self, namespace: str, collection: str) -> Iterator[Trouble]:
        """Points of objects that the index has no mark of."""
        for space in self._index.spaces(namespace, collection):
            if not space.encoder_key:
                continue
            marks = {mark.object_id for mark in self._marks.all(space.namespace, space.collection)}
            counts = Counter(found["object_id"] for _, found in self._index.scroll(space, Where(), ("object_id",)))
            for name in sorted(counts.keys() - marks):
                yield Trouble(space.namespace, space.collection, name, f"{counts[name]} chunks have no mark")

    # ------------------------------------------------------------ all objects

    def _seen(self, namespace: str, collection: str) -> Iterator[tuple[Layout, Seen | Trouble]]:
        """Every object that S3 or the index has anything of, as both have it."""
        with ThreadPoolExecutor(self._settings.io_threads, "index") as pool:
            for layout in self._layouts(namespace, collection):

                def look(object_id: str, layout: Layout = layout) -> Seen | Trouble:
                    try:
                        return self._writer.look(layout, object_id)
                    except StoreDamaged as error:
                        return Trouble(layout.namespace, layout.collection, object_id, error.message)

                for seen in in_order(pool, look, self._objects(layout), _WINDOW):
                    yield layout, seen

    def _layouts(self, namespace: str, collection: str) -> Iterator[Layout]:
        prefix = self._settings.s3_prefix.strip("/")
        if collection:
            yield Layout(prefix, namespace, collection)
            return
        stored = {(found.namespace, found.collection) for found in layouts(self._settings, self._store)}
        for name, one in sorted(stored | set(self._marks.collections())):
            if namespace in ("", name):
                yield Layout(prefix, name, one)

    def _objects(self, layout: Layout) -> Iterator[str]:
        listed = set()
        for object_id in listed_objects(self._store, layout):
            listed.add(object_id)
            yield object_id
        for mark in self._marks.all(layout.namespace, layout.collection):
            if mark.object_id not in listed:
                yield mark.object_id


def _filled(counts: Counter[str], troubles: list[Trouble], *, stopped: bool) -> FillReport:
    indexed, removed, known = (counts[outcome] for outcome in Written)
    return FillReport(indexed, removed, known, counts["damaged"], stopped, tuple(troubles[:_NAMED]))
