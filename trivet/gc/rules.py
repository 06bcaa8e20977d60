"""What of one object is left over: a pure function of a listing, the pointer, and the time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from trivet.settings import Settings
from trivet.stores import Stored
from trivet.stores.layout import Layout
from trivet.values import Current


@dataclass(slots=True)
class Folder:
    """Some keys that stand and fall together. Whichever says what the others are comes first."""

    #: As in `GcReport`.
    kind: str = ""
    keys: list[Stored] = field(default_factory=list)
    #: When its manifest was written.
    sealed: float | None = None

    @property
    def newest(self) -> float:
        """When the last of the keys was written."""
        return max(key.modified for key in self.keys)

    def add(self, stored: Stored, *, first: bool) -> None:
        """One more key; a manifest or seal goes first, so that what is cut short says nothing false."""
        self.keys.insert(0 if first else len(self.keys), stored)


@dataclass(slots=True)
class Holdings:
    """Everything under one object, as listed."""

    object_id: str
    current: bool = False
    generations: dict[int, Folder] = field(default_factory=dict)
    plans: dict[str, Folder] = field(default_factory=dict)
    raw: dict[str, Folder] = field(default_factory=dict)

    @property
    def tidy(self) -> bool:
        """One visible generation and what it was made of: nothing to look at."""
        return self.current and max(len(self.generations), len(self.plans), len(self.raw)) <= 1


def holdings(layout: Layout, listing: Iterable[Stored]) -> Iterator[Holdings]:
    """Object by object from a listing of all; the keys of one object stand together in it."""
    held: Holdings | None = None
    for stored in listing:
        object_id = layout.object_of(stored.key)
        if object_id is None:
            continue
        if held is None or held.object_id != object_id:
            if held is not None:
                yield held
            held = Holdings(object_id)
        _sort_in(held, layout, stored)
    if held is not None:
        yield held


def _sort_in(held: Holdings, layout: Layout, stored: Stored) -> None:
    path = stored.key.removeprefix(layout.object(held.object_id)).split("/")
    generation = layout.generation_of(stored.key)
    if path == ["current.json"]:
        held.current = True
    elif generation is not None:
        folder = held.generations.setdefault(generation, Folder())
        manifest = path[2:] == ["manifest.json"]
        folder.add(stored, first=manifest)
        folder.sealed = stored.modified if manifest else folder.sealed
    elif path[0] == "plan" and len(path) == 3:
        held.plans.setdefault(path[1], Folder("plans")).add(stored, first=path[2] == "plan.json")
    elif path[0] == "raw" and len(path) == 2:
        held.raw.setdefault(path[1], Folder("raw")).add(stored, first=True)
    # What is none of these was put there by somebody else, and stays.


def left_over(held: Holdings, current: Current | None, settings: Settings, now: float) -> list[Folder]:
    """What may go, unless a task of the object is active. Never the visible generation, its raw bytes or its plan."""
    grace = now - settings.gc_grace_hours * 3600
    retention = now - settings.generation_retention_hours * 3600
    visible = current.generation if current else 0
    found: list[Folder] = []
    for number, folder in sorted(held.generations.items()):
        if number == visible:
            continue
        if number < visible and folder.sealed is not None:
            replaced = _replaced_at(held, number, visible)
            if replaced is not None and replaced <= retention:
                folder.kind = "replaced"
                found.append(folder)
        elif folder.newest <= grace:
            folder.kind = "abandoned"
            found.append(folder)
    gone = {id(folder) for folder in found}
    # Other generations that stay may be of any content.
    alone = all(number == visible or id(folder) in gone for number, folder in held.generations.items())
    for name, folder in held.plans.items():
        if folder.newest <= grace and not (current and _plan_of(name, current)):
            found.append(folder)
    for sha256, folder in held.raw.items():
        if alone and folder.newest <= grace and not (current and sha256 == current.source_sha256):
            found.append(folder)
    return found


def _replaced_at(held: Holdings, number: int, visible: int) -> float | None:
    """When the next generation was sealed; None where the listing is older than the pointer."""
    later = [f.sealed for n, f in held.generations.items() if number < n <= visible and f.sealed is not None]
    return min(later, default=None)


def _plan_of(name: str, current: Current) -> bool:
    """Whether this is the plan of the visible content under its spec, whatever type the caller had stated: prepare
    finds out by it that nothing has changed."""
    source, _, spec = name.rpartition("-")
    return spec == current.spec_hash and source.partition(".")[0] == current.source_sha256
