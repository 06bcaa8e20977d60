"""Marks: what the index holds of each object, the highest generation that it ever had. Tombstones have one too.

A mark is written last of all that is written for a generation, so that whatever a kill leaves half done is done again.
They lie in the index itself, in a space without vectors, and stand and fall with it; in memory there is a table of
each collection, so that one process at a time may write (the one that opens the index).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from pydantic import Field

from trivet.errors import IndexDamaged
from trivet.index import Index, Point, Space, Where
from trivet.index.fields import mark_id, metadata_of, metadata_text
from trivet.retrieval.filters import object_matches
from trivet.retrieval.requests import Filters
from trivet.values import Frozen, Manifest

#: Where the index's own mark lies: no namespace is called so.
_OWN = Space("_", "_")
_FILLED = "filled"
#: Answers to filters that are remembered.
_REMEMBERED = 64


class Mark(Frozen):
    """What the index holds of an object."""

    object_id: str
    generation: int
    tombstone: bool = False
    task_id: str = ""
    input_hash: str = ""
    #: Name of the space of its points; of a tombstone empty.
    space: str = ""
    encoder_key: str = ""
    model: str = ""
    rows: int = 0
    #: Commit of the generation, ISO 8601.
    created_at: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def of(cls, manifest: Manifest, space: Space, model: str) -> Self:
        """The mark of a generation that lies in a space."""
        return cls(
            object_id=manifest.object_id,
            generation=manifest.generation,
            task_id=manifest.task_id,
            input_hash=manifest.input_hash,
            space=space.name,
            encoder_key=space.encoder_key,
            model=model,
            rows=sum(part.rows for part in manifest.parts),
            created_at=manifest.created_at,
            metadata=manifest.metadata,
        )


@dataclass(frozen=True, slots=True)
class Selection:
    """The objects that a search looks at."""

    #: Visible, of those asked for.
    objects: int
    #: Let through by the filters and embedded by the query's model: how many, and their rows.
    searched: int
    rows: int
    #: Let through, and embedded by other models, which have these names.
    other_model: int
    models: tuple[str, ...]
    #: Rows of objects that the filters keep out.
    rows_filtered: int
    #: Names of the spaces that hold them.
    spaces: tuple[str, ...]
    #: Where not every object of the query's model is searched: the ids of those that are.
    ids: frozenset[str] | None


@dataclass(slots=True)
class _Table:
    marks: dict[str, Mark]
    objects: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    #: Objects by encoder fingerprint and space.
    spaces: Counter[tuple[str, str]] = field(default_factory=Counter)
    models: dict[str, str] = field(default_factory=dict)
    answers: dict[str, Selection] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for mark in self.marks.values():
            self._count(mark, 1)

    def put(self, object_id: str, mark: Mark | None) -> None:
        old = self.marks.pop(object_id, None)
        if old is not None:
            self._count(old, -1)
        if mark is not None:
            self.marks[object_id] = mark
            self._count(mark, 1)
        self.answers.clear()

    def _count(self, mark: Mark, sign: int) -> None:
        if not mark.tombstone:
            self.objects[mark.encoder_key] += sign
            self.rows[mark.encoder_key] += sign * mark.rows
            self.spaces[mark.encoder_key, mark.space] += sign
            self.models[mark.encoder_key] = mark.model


class Marks:
    """All marks of one index. Thread-safe."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._tables: dict[tuple[str, str], _Table] = {}
        #: Collections whose marks make no sense.
        self._unreadable: set[tuple[str, str]] = set()
        self._lock = threading.RLock()

    def collections(self) -> list[tuple[str, str]]:
        """(namespace, collection) of all that the index has ever held."""
        found = {(space.namespace, space.collection) for space in self._index.spaces()}
        return sorted(found - {(_OWN.namespace, _OWN.collection)})

    def all(self, namespace: str, collection: str) -> list[Mark]:
        """The marks of a collection, by object."""
        with self._lock:
            return sorted(self._table(namespace, collection).marks.values(), key=lambda mark: mark.object_id)

    def get(self, namespace: str, collection: str, object_id: str) -> Mark | None:
        """An object's mark."""
        with self._lock:
            return self._table(namespace, collection).marks.get(object_id)

    def rows(self, namespace: str, collection: str) -> dict[str, int]:
        """Chunks of a collection by the name of their space; what no object lies in is not among them."""
        with self._lock:
            rows: Counter[str] = Counter()
            for mark in self._table(namespace, collection).marks.values():
                if not mark.tombstone:
                    rows[mark.space] += mark.rows
            return dict(rows)

    def used(self, namespace: str, collection: str) -> frozenset[str]:
        """Names of the spaces that objects of a collection lie in."""
        with self._lock:
            counts = self._table(namespace, collection).spaces
            return frozenset(name for (_, name), count in counts.items() if count)

    def totals(self, namespace: str, collection: str) -> tuple[int, int]:
        """Objects of a collection that are not deleted, and their chunks."""
        with self._lock:
            table = self._table(namespace, collection)
            return table.objects.total(), table.rows.total()

    def put(self, namespace: str, collection: str, mark: Mark) -> None:
        """Write an object's mark."""
        payload = mark.model_dump(mode="json") | {"metadata": metadata_text(mark.metadata), "live": 0}
        # Not under the lock: a write may have to wait for long, and searches must not wait with it.
        self._index.put(Space(namespace, collection), [Point(mark_id(mark.object_id), payload)])
        with self._lock:
            self._table(namespace, collection).put(mark.object_id, mark)

    def forget(self, namespace: str, collection: str, object_id: str) -> None:
        """Remove an object's mark."""
        self._index.delete(Space(namespace, collection), Where(objects=(object_id,)))
        with self._lock:
            self._table(namespace, collection).put(object_id, None)

    def drop(self, namespace: str, collection: str) -> None:
        """Forget all that the index has of a collection, points and marks."""
        for space in self._index.spaces(namespace, collection):
            self._index.drop(space)
        with self._lock:
            self._tables.pop((namespace, collection), None)

    def damaged(self) -> set[tuple[str, str]]:
        """(namespace, collection) of all of which something was found to be unreadable."""
        return {(space.namespace, space.collection) for space in self._index.damaged()} | self._unreadable

    def heal(self, also: Iterable[tuple[str, str]] = ()) -> list[tuple[str, str]]:
        """Drop what is damaged, and `also` these; which collections they were. A fill has to bring them in then.

        That this is so is on disk before anything is dropped: a kill must not leave an index that seems to be whole.
        """
        damaged = self.damaged() | set(also)
        if damaged:
            own = (_OWN.namespace, _OWN.collection)
            self._index.drop(_OWN)
            for namespace, collection in damaged - {own}:
                self.drop(namespace, collection)
            self._unreadable -= damaged
        return sorted(damaged)

    @property
    def filled(self) -> bool:
        """Whether all that was on S3 has been brought in once."""
        return self._index.count(_OWN, Where(objects=(_FILLED,))) > 0

    def set_filled(self, filled: bool) -> None:
        """Say so, on disk."""
        if filled:
            self._index.put(_OWN, [Point(mark_id(_FILLED), {"object_id": _FILLED, "generation": 0, "live": 0})])
        else:
            self._index.delete(_OWN, Where(objects=(_FILLED,)))
        self._index.settle()

    def select(self, namespace: str, collection: str, encoder_key: str, filters: Filters) -> Selection:
        """The objects that these filters let through."""
        with self._lock:
            table = self._table(namespace, collection)
            asked = filters.object_ids, filters.metadata, filters.committed_from, filters.committed_before
            # Not as JSON, which has one word for both infinities and for null.
            key = f"{encoder_key} {asked!r}"
            if key not in table.answers:
                if len(table.answers) >= _REMEMBERED:
                    table.answers.clear()
                table.answers[key] = _select(table, encoder_key, filters)
            return table.answers[key]

    def _table(self, namespace: str, collection: str) -> _Table:
        key = (namespace, collection)
        if key not in self._tables:
            fields = list(Mark.model_fields)
            found = self._index.scroll(Space(namespace, collection), Where(), fields)
            try:
                marks = [Mark.model_validate({**payload, "metadata": metadata_of(payload)}) for _, payload in found]
            except (ValueError, KeyError, TypeError):
                self._unreadable.add(key)
                raise IndexDamaged(
                    f"The index of {namespace}/{collection} is damaged: its marks are no marks."
                ) from None
            self._tables[key] = _Table({mark.object_id: mark for mark in marks})
        return self._tables[key]


def _select(table: _Table, encoder_key: str, filters: Filters) -> Selection:
    if not (filters.metadata or filters.committed_from or filters.committed_before or filters.object_ids is not None):
        others = sorted(key for key, count in table.objects.items() if count and key != encoder_key)
        return Selection(
            objects=table.objects.total(),
            searched=table.objects[encoder_key],
            rows=table.rows[encoder_key],
            other_model=sum(table.objects[key] for key in others),
            models=tuple(table.models[key] for key in others),
            rows_filtered=0,
            spaces=tuple(sorted(name for (key, name), count in table.spaces.items() if count and key == encoder_key)),
            ids=None,
        )
    visible = [mark for mark in _asked(table, filters) if not mark.tombstone]
    through = [mark for mark in visible if object_matches(mark, filters)]
    searched = [mark for mark in through if mark.encoder_key == encoder_key]
    others_ = [mark for mark in through if mark.encoder_key != encoder_key]
    every = len(searched) == table.objects[encoder_key]
    return Selection(
        objects=len(visible),
        searched=len(searched),
        rows=sum(mark.rows for mark in searched),
        other_model=len(others_),
        models=tuple(sorted({mark.model for mark in others_})),
        rows_filtered=sum(mark.rows for mark in visible) - sum(mark.rows for mark in through),
        spaces=tuple(sorted({mark.space for mark in searched})),
        ids=None if every else frozenset(mark.object_id for mark in searched),
    )


def _asked(table: _Table, filters: Filters) -> Iterable[Mark]:
    if filters.object_ids is None:
        return table.marks.values()
    return (table.marks[name] for name in set(filters.object_ids) if name in table.marks)
