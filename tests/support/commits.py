"""What tests of the commit share: manifests, a store that misbehaves on demand, and all interleavings of committers."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from trivet.errors import StoreConflict, StoreUnavailable
from trivet.ids import digest
from trivet.stores import ObjectStore, Stored
from trivet.stores.layout import Layout
from trivet.values import Manifest, Part


def manifest(
    layout: Layout, generation: int = 1, *, task: str = "task_a", object_id: str = "obj_1", **changes: Any
) -> Manifest:
    """A manifest with one part, without that part on the store."""
    hashed = digest([task, object_id, generation])
    part = Part(
        shard=0,
        key=layout.part(object_id, generation, 0, hashed),
        sha256=hashlib.sha256(b"").hexdigest(),
        bytes=0,
        rows=1,
        tokens=3,
        input_hash=hashed,
    )
    fields: dict[str, Any] = {
        "namespace": layout.namespace,
        "collection": layout.collection,
        "object_id": object_id,
        "generation": generation,
        "task_id": task,
        "run": 1,
        "source_url": "https://example.org/a",
        "source_sha256": "00" * 32,
        "spec_hash": "11" * 8,
        "input_hash": hashed,
        "created_at": "2026-01-01T00:00:00Z",
        "parts": (part,),
    }
    return Manifest(**(fields | changes))


class Wrapped:
    """An object store that lets a hook come before every operation; the base of the stores that misbehave."""

    def __init__(self, inner: ObjectStore, before: Callable[[str, str], None] = lambda verb, key: None) -> None:
        self.inner = inner
        self.before = before

    def put(
        self, key: str, body: bytes, *, if_none_match: bool = False, if_match: str | None = None, sha256: str = ""
    ) -> Stored:
        self.before("put", key)
        return self.inner.put(key, body, if_none_match=if_none_match, if_match=if_match, sha256=sha256)

    def get(self, key: str) -> tuple[bytes, Stored]:
        self.before("get", key)
        return self.inner.get(key)

    def head(self, key: str) -> Stored:
        self.before("head", key)
        return self.inner.head(key)

    def open(self, key: str) -> BinaryIO:
        return self.inner.open(key)

    def upload_url(self, key: str, *, seconds: int) -> str:
        return self.inner.upload_url(key, seconds=seconds)

    def upload(self, key: str, file: BinaryIO, *, sha256: str = "") -> Stored:
        return self.inner.upload(key, file, sha256=sha256)

    def list(self, prefix: str, *, delimiter: str = "") -> Iterator[Stored]:
        return self.inner.list(prefix, delimiter=delimiter)

    def delete(self, key: str) -> None:
        self.before("delete", key)
        self.inner.delete(key)

    def abort_uploads(self, prefix: str, older_than: float) -> int:
        return self.inner.abort_uploads(prefix, older_than)

    def ensure_bucket(self) -> None:
        self.inner.ensure_bucket()


#: What may become of a write: done; done but the answer lost; done, answer lost, and the client's own retry told 412;
#: lost on its way; refused with 409 although nobody else wrote.
MISHAPS = ("ok", "answer lost", "conflict with itself", "lost", "409")


class Lossy(Wrapped):
    """Writes meet the mishaps in this order, and none after the last."""

    def __init__(self, inner: ObjectStore, mishaps: Sequence[str]) -> None:
        super().__init__(inner)
        self.mishaps = list(mishaps)

    def put(
        self, key: str, body: bytes, *, if_none_match: bool = False, if_match: str | None = None, sha256: str = ""
    ) -> Stored:
        mishap = self.mishaps.pop(0) if self.mishaps else "ok"
        if mishap == "409":
            raise StoreConflict("409 ConditionalRequestConflict")
        if mishap == "lost":
            raise StoreUnavailable("lost")
        stored = super().put(key, body, if_none_match=if_none_match, if_match=if_match, sha256=sha256)
        if mishap == "answer lost":
            raise StoreUnavailable("answer lost")
        if mishap == "conflict with itself":
            raise StoreConflict("412")
        return stored


Body = Callable[[Callable[[], None]], Any]


def interleavings(make: Callable[[], Sequence[Body]], *, rng: random.Random | None = None) -> Iterator[list[Any]]:
    """Run the bodies in every order of their steps, from a fresh `make()` each time; yields their results.

    A body gets a function to call before each step; between two calls it runs alone. An exception is a result. With
    an `rng` the orders come shuffled, for where there are too many to run all.
    """
    pending: list[list[int]] = [[]]
    while pending:
        prefix = pending.pop(rng.randrange(len(pending)) if rng else -1)
        results, taken = _run(make(), prefix)
        for depth in range(len(prefix), len(taken)):
            chosen, ready = taken[depth]
            pending.extend([*(choice for choice, _ in taken[:depth]), other] for other in range(chosen + 1, ready))
        yield results


def _run(bodies: Sequence[Body], prefix: Sequence[int]) -> tuple[list[Any], list[tuple[int, int]]]:
    """One run: at step i the `prefix[i]`-th of the waiting bodies goes on (the first one beyond the prefix)."""
    changed = threading.Condition()
    waiting: set[int] = set()
    done: set[int] = set()
    go: set[int] = set()
    results: list[Any] = [None] * len(bodies)

    def gate(me: int) -> None:
        with changed:
            waiting.add(me)
            changed.notify_all()
            changed.wait_for(lambda: me in go)
            go.discard(me)

    def work(me: int) -> None:
        try:
            results[me] = bodies[me](lambda: gate(me))
        except Exception as error:  # noqa: BLE001 # it is the result
            results[me] = error
        with changed:
            done.add(me)
            changed.notify_all()

    threads = [threading.Thread(target=work, args=(me,), daemon=True) for me in range(len(bodies))]
    for thread in threads:
        thread.start()
    taken: list[tuple[int, int]] = []
    while True:
        with changed:
            assert changed.wait_for(lambda: len(waiting | done) == len(bodies) and not go, timeout=60)
            ready = sorted(waiting)
            if not ready:
                break
            choice = prefix[len(taken)] if len(taken) < len(prefix) else 0
            taken.append((choice, len(ready)))
            waiting.discard(ready[choice])
            go.add(ready[choice])
            changed.notify_all()
    for thread in threads:
        thread.join()
    return results, taken
