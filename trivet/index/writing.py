"""What a generation goes through on its way into the index; the only code that writes points.

    upsert, not live → count → live → delete every other generation → mark

Searches see a generation as a whole or not at all but for the moment in which it becomes live, and of an object that
has two live generations only the higher one. Whatever is killed between two steps is done again from the first, with
the same ids. What is to be written is never what an event says but what S3 shows when it is looked at, after the mark
was read: so an event may come twice, late, or in any order.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from trivet.errors import IndexUnavailable, StoreDamaged, StoreUnavailable
from trivet.faults import fault
from trivet.index import MOST_COLBERT_NUMBERS, Index, Point, Space, Where
from trivet.index.fields import COLUMNS, payload, point_id
from trivet.index.marks import Mark, Marks
from trivet.parts.reader import RowGroup
from trivet.retrieval.rows import open_part
from trivet.stores import ObjectStore
from trivet.stores.layout import Layout
from trivet.stores.values import read_value
from trivet.values import Current, Manifest, ModelIdentity, Spec

#: Rows that are decoded and written at once: 32 MiB of ColBERT at 512 tokens and 1024 dimensions in float32.
_ROWS = 16
#: How often an object is looked at again because it was replaced while it was read.
_LOOKS = 5

#: Every fault hook between two steps.
FAULTS = (
    "index.before_put",
    "index.after_put",
    "index.after_count",
    "index.after_live",
    "index.after_delete",
    "index.after_mark",
)


class Written(StrEnum):
    """What became of an object."""

    INDEXED = "indexed"
    REMOVED = "removed"
    #: The index has it already.
    KNOWN = "known"


@dataclass(frozen=True, slots=True)
class Seen:
    """An object as the index has it and as S3 shows it, read in this order."""

    object_id: str
    mark: Mark | None
    current: Current | None
    #: None for a tombstone.
    manifest: Manifest | None

    @property
    def level(self) -> bool:
        """Whether the index has what S3 shows."""
        mark, current = self.mark, self.current
        if current is None:
            return mark is None or mark.tombstone
        return mark is not None and (mark.generation, mark.tombstone, mark.task_id, mark.input_hash) == (
            current.generation,
            current.tombstone,
            current.task_id,
            current.input_hash,
        )


class Writer:
    """Brings objects into the index, one at a time. Thread-safe."""

    def __init__(self, index: Index, marks: Marks, store: ObjectStore) -> None:
        self._index = index
        self._marks = marks
        self._store = store
        self._models: dict[str, tuple[Space, ModelIdentity]] = {}
        self._lock = threading.Lock()

    def look(self, layout: Layout, object_id: str) -> Seen:
        """How an object stands. Raises the store's errors, `StoreDamaged` for what cannot be read."""
        mark = self._marks.get(layout.namespace, layout.collection, object_id)
        last = -1
        while True:
            current = read_value(self._store, layout.current(object_id), Current)
            if current is None or current[0].tombstone:
                return Seen(object_id, mark, current[0] if current else None, None)
            manifest = read_value(self._store, current[0].manifest, Manifest)
            if manifest is not None:
                return Seen(object_id, mark, current[0], manifest[0])
            # It was replaced and purged between the two reads; only ever upward, so this ends.
            if current[0].generation <= last:
                raise StoreDamaged(f"{layout.current(object_id)!r} names a manifest that is not there.")
            last = current[0].generation

    def bring(self, layout: Layout, object_id: str, *, anew: bool = False) -> Written:
        """Make the index hold what S3 shows of an object now; `anew`: although it seems to.

        Raises `IndexUnavailable`, the store's errors, and `StoreDamaged` where the object's parts cannot be read.
        """
        with self._lock:
            for _ in range(_LOOKS):
                seen = self.look(layout, object_id)
                # Without a mark there may be points of a generation that was purged while it was written.
                if seen.level and seen.mark is not None and not anew:
                    return Written.KNOWN
                try:
                    return self._write(layout, seen)
                except StoreUnavailable:
                    # A part that is gone since belongs to a generation that was replaced.
                    if self.look(layout, object_id).current == seen.current:
                        raise
        raise StoreUnavailable(f"{object_id!r} is replaced faster than it can be read.", hint="Try again later.")

    def forget(self, layout: Layout, object_id: str) -> None:
        """Remove the mark of an object that neither S3 nor the index has anything of; unless it began anew since."""
        with self._lock:
            seen = self.look(layout, object_id)
            if seen.current is None and seen.level:
                self._marks.forget(layout.namespace, layout.collection, object_id)

    def tidy(self, layout: Layout, *, gone: bool) -> None:
        """Drop the spaces that no object of a collection lies in; where S3 has nothing of it, its tombstones too."""
        with self._lock:
            if gone and not self._marks.used(layout.namespace, layout.collection):
                self._marks.drop(layout.namespace, layout.collection)
            else:
                self._drop_unused(layout, self._spaces(layout))

    def heal(self, also: Iterable[tuple[str, str]] = ()) -> list[tuple[str, str]]:
        """Drop what is damaged, see `Marks.heal`; not while something is written."""
        with self._lock:
            return self._marks.heal(also)

    # ------------------------------------------------------------ one object

    def _write(self, layout: Layout, seen: Seen) -> Written:
        spaces = self._spaces(layout)
        if seen.manifest is None:
            for space in spaces:
                self._index.delete(space, Where(objects=(seen.object_id,)))
            fault("index.after_delete")
            self._mark(layout, self._tombstone(seen))
            self._drop_unused(layout, spaces)
            return Written.REMOVED
        manifest = seen.manifest
        space, model = self._space(layout, manifest)
        self._put(space, manifest)
        self._index.set_live(space, manifest.object_id, manifest.generation)
        fault("index.after_live")
        for other in spaces:
            but = manifest.generation if other == space else None
            self._index.delete(other, Where(objects=(manifest.object_id,), not_generation=but))
        fault("index.after_delete")
        self._mark(layout, Mark.of(manifest, space, model.name))
        self._drop_unused(layout, spaces)
        return Written.INDEXED

    @staticmethod
    def _tombstone(seen: Seen) -> Mark:
        current, mark = seen.current, seen.mark
        if current is None:  # purged: the mark stays, so that the object is known to be gone
            return Mark(object_id=seen.object_id, generation=mark.generation if mark else 0, tombstone=True)
        return Mark(
            object_id=seen.object_id,
            generation=current.generation,
            tombstone=True,
            task_id=current.task_id,
            input_hash=current.input_hash,
        )

    def _mark(self, layout: Layout, mark: Mark) -> None:
        self._marks.put(layout.namespace, layout.collection, mark)
        fault("index.after_mark")

    def _spaces(self, layout: Layout) -> list[Space]:
        """Those of chunks."""
        return [space for space in self._index.spaces(layout.namespace, layout.collection) if space.encoder_key]

    def _drop_unused(self, layout: Layout, spaces: Iterable[Space]) -> None:
        used = self._marks.used(layout.namespace, layout.collection)
        for space in spaces:
            if space.name not in used:
                self._index.drop(space)

    def _put(self, space: Space, manifest: Manifest) -> None:
        fault("index.before_put")
        written = 0
        here = Where(objects=(manifest.object_id,), generation=manifest.generation)
        for points in self._points(space, manifest):
            self._index.put(space, points)
            written += len(points)
            fault("index.after_put")
        rows = sum(part.rows for part in manifest.parts)
        if written != rows:
            raise StoreDamaged(
                f"The parts of {manifest.object_id!r}, generation {manifest.generation}, have {written} rows; "
                f"its manifest says {rows}."
            )
        # Points that an earlier kind of write has left would make it more, points that are lost less.
        if (count := self._index.count(space, here)) != rows:
            self._index.delete(space, here)
            raise IndexUnavailable(f"The index has {count} of {rows} chunks of {manifest.object_id!r}.")
        fault("index.after_count")

    def _points(self, space: Space, manifest: Manifest) -> Iterator[list[Point]]:
        columns = [*COLUMNS]
        columns += ["dense"] if space.dense else []
        columns += ["sparse_ids", "sparse_weights"] if space.sparse else []
        columns += ["colbert"] if space.colbert else []
        for part in manifest.parts:
            with open_part(self._store, manifest.object_id, part) as rows:
                for group in range(rows.row_groups):
                    for _, batch in rows.batches(group, columns, rows=_ROWS):
                        yield list(_rows(batch, manifest))

    def _space(self, layout: Layout, manifest: Manifest) -> tuple[Space, ModelIdentity]:
        key = layout.spec(manifest.spec_hash)
        if key not in self._models:
            found = read_value(self._store, key, Spec)
            if found is None:
                raise StoreDamaged(f"{key!r}, which {manifest.object_id!r} was made under, is not there.")
            spec, outputs = found[0], found[0].pipeline.outputs
            space = Space(
                layout.namespace,
                layout.collection,
                spec.model.encoder_key,
                dense=spec.dense_width if outputs.dense else 0,
                sparse=outputs.sparse,
                colbert=spec.colbert_width if outputs.colbert != "off" else 0,
            )
            self._models[key] = space, spec.model
        return self._models[key]


def _rows(batch: RowGroup, manifest: Manifest) -> Iterator[Point]:
    dense = batch.dense
    for i, row in enumerate(batch.table.select(list(COLUMNS)).to_pylist()):
        colbert = batch.colbert(i)
        parts_only = colbert is not None and colbert.size > MOST_COLBERT_NUMBERS
        yield Point(
            id=point_id(manifest.object_id, manifest.generation, row["chunk_id"]),
            payload=payload(row, manifest, parts_only=parts_only),
            dense=None if dense is None else dense[i],
            sparse=batch.sparse(i),
            colbert=None if parts_only else colbert,
        )
