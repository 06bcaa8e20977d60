"""The shards of the embedded index: opened when they are first needed, made, dropped, and replaced.

Folders beside a shard's own: `.new-` while it is made, `.copy-` while a copy of it is put in order, `.old-` while the
copy takes its place, `.gone-` while it is removed. What a kill leaves of these is tidied when the index is opened.
"""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import qdrant_edge as qe

from trivet.errors import IndexDamaged, IndexUnavailable, TrivetError
from trivet.index import Space
from trivet.index.edge_folder import hold, tidy
from trivet.index.edge_words import create

#: What the library says of files that it cannot read; of a request that it cannot answer it says other things.
_OF_FILES = "Service runtime error"
#: Words of a machine that lacks something, which is no damage.
_WANTS = ("No space left", "Too many open files", "Cannot allocate", "out of memory", "Permission denied")


class Shards:
    """One per space, in a folder that no other process has open. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        """Raises `IndexBusy` where another process has the folder."""
        self.folder = folder.absolute()
        self.open: dict[Space, qe.EdgeShard] = {}
        #: Written to since they were last flushed.
        self._dirty: set[Space] = set()
        #: Points that were written since the shard was last put in order.
        self.written: Counter[Space] = Counter()
        #: Of shards that are being put in order: the objects that were written to meanwhile.
        self.touched: dict[Space, set[str]] = {}
        #: What cannot be read. It is not touched again before it is dropped.
        self.damaged: set[Space] = set()
        self.lock = threading.RLock()
        #: Held for every write; taken before `lock`.
        self.writing = threading.RLock()
        self.closed = False
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._held = hold(self.folder / "lock")
        tidy(self.folder)

    def close(self) -> None:
        """Nothing takes a shard's place after this: another process may have the folder."""
        with self.writing, self.lock:
            self.closed = True
            for space, shard in self.open.items():
                # One that is damaged is found again, and must not keep the others from being closed.
                with suppress(IndexUnavailable), self.guard(space):
                    shard.close()
            self.open.clear()
            self._held.close()

    def spaces(self, namespace: str = "", collection: str = "") -> tuple[Space, ...]:
        """Those that have a folder."""
        found = self.folder.glob(f"{namespace or '*'}/{collection or '*'}/*/")
        spaces = (Space.named(path.parent.parent.name, path.parent.name, path.name) for path in sorted(found))
        return tuple(space for space in spaces if space is not None)

    def path(self, space: Space) -> Path:
        """Where a space's shard lies."""
        return self.folder / space.namespace / space.collection / space.name

    def get(self, space: Space, *, make: bool = False) -> qe.EdgeShard | None:
        """The open shard of a space; None where it has none, and none is to be made."""
        if space in self.damaged:
            raise damage(space, "it is to be filled anew from S3")
        with self.lock:
            if space not in self.open:
                path = self.path(space)
                if not path.is_dir():
                    if not make:
                        return None
                    with self.guard(space):
                        create(path, space)
                with self.guard(space):
                    self.open[space] = qe.EdgeShard.load(str(path))
            return self.open[space]

    def note(self, space: Space, objects: set[str], points: int) -> None:
        """So many points of these objects were written; said by whoever holds `writing`."""
        self.written[space] += points
        if space in self.touched:
            self.touched[space] |= objects
        with self.lock:
            self._dirty.add(space)

    def flush(self) -> None:
        """Return when all that was written is on disk, but for what is damaged."""
        with self.writing:
            with self.lock:
                dirty = [(space, self.open[space]) for space in self._dirty - self.damaged]
                self._dirty.clear()
            for space, shard in dirty:
                with self.guard(space):
                    shard.flush()

    def drop(self, space: Space) -> None:
        """Remove a space's shard from disk."""
        with self.lock:
            shard = self.open.pop(space, None)
            self._dirty.discard(space)
            if shard is not None:
                with suppress(IndexUnavailable), self.guard(space):
                    shard.close()
            path = self.path(space)
            if path.is_dir():
                # Under another name first: what is cut short must not be taken for a space.
                gone = path.with_name(f".gone-{path.name}")
                shutil.rmtree(gone, ignore_errors=True)
                path.rename(gone)
                shutil.rmtree(gone, ignore_errors=True)
            self.damaged.discard(space)

    def swap(self, space: Space, copy: Path) -> None:
        """Let a copy take the shard's place."""
        path = self.path(space)
        old = path.with_name(f".old-{path.name}")
        with self.lock:
            path.rename(old)
            copy.rename(path)
            # Searches that are under way hold the old one, which goes with the last of them.
            self.open[space] = qe.EdgeShard.load(str(path))
            self._dirty.discard(space)
        shutil.rmtree(old, ignore_errors=True)

    # ------------------------------------------------------------ damage

    @contextmanager
    def guard(self, space: Space) -> Iterator[None]:
        """What the library raises, as one sentence of ours; `IndexDamaged` where it speaks of the shard's files."""
        try:
            yield
        except TrivetError:
            raise
        except BaseException as error:  # the library raises no type of its own, and a panic of its Rust is no Exception
            panic = type(error).__name__ == "PanicException"
            if not isinstance(error, Exception) and not panic:
                raise
            said = " ".join(str(error).split())[:300] or type(error).__name__
            if panic or (_OF_FILES in said and not any(want in said for want in _WANTS)):
                self.damaged.add(space)
                raise damage(space, said) from None
            raise IndexUnavailable(f"The index of {space.namespace}/{space.collection} failed: {said}.") from None


def damage(space: Space, said: str) -> IndexDamaged:
    """The error of a shard that cannot be read."""
    return IndexDamaged(f"The index of {space.namespace}/{space.collection} is damaged: {said}.")
