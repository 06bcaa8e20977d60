"""What readers see of a collection: per object the manifest of its visible generation, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from trivet.errors import NotInStore, StoreUnavailable
from trivet.stores import ObjectStore
from trivet.stores.layout import Layout
from trivet.values import Current, Manifest, Spec

T = TypeVar("T")
R = TypeVar("R")
V = TypeVar("V", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class VisibleObject:
    """An object's visible generation, and the spec that it was made by."""

    manifest: Manifest
    spec: Spec

    @property
    def encoder_key(self) -> str:
        """The model that embedded it."""
        return self.spec.model.encoder_key


def visible_objects(
    store: ObjectStore, layout: Layout, pool: Executor, object_ids: Iterable[str] | None = None, *, window: int = 64
) -> Iterator[VisibleObject]:
    """Visible objects in order of id, without tombstones; `object_ids` limits them, unknown ones are passed over.

    Reads a few small keys per object, up to `window` objects ahead. Raises the store's errors, and
    `StoreUnavailable` for a visible generation that cannot be read: a part of the collection is never passed over.
    """
    ids = _listed(store, layout) if object_ids is None else sorted(set(object_ids))
    specs: dict[str, Spec] = {}
    for manifest in in_order(pool, lambda object_id: _manifest(store, layout, object_id), ids, window):
        if manifest is None or manifest.tombstone:
            continue
        if manifest.spec_hash not in specs:
            specs[manifest.spec_hash] = _read(store, layout.spec(manifest.spec_hash), Spec)
        yield VisibleObject(manifest, specs[manifest.spec_hash])


def in_order(pool: Executor, function: Callable[[T], R], items: Iterable[T], window: int) -> Iterator[R]:
    """`map` over a pool with at most `window` items under way, so that results never pile up."""
    source = iter(items)
    pending: list[Future[R]] = [pool.submit(function, item) for item in islice(source, window)]
    try:
        while pending:
            result = pending.pop(0).result()
            pending.extend(pool.submit(function, item) for item in islice(source, 1))
            yield result
    finally:
        for future in pending:
            future.cancel()


def _listed(store: ObjectStore, layout: Layout) -> Iterator[str]:
    for folder in store.list(layout.objects(), delimiter="/"):
        object_id = layout.object_of(folder.key)
        if object_id is not None:
            yield object_id


def _manifest(store: ObjectStore, layout: Layout, object_id: str) -> Manifest | None:
    try:
        body, _ = store.get(layout.current(object_id))
    except NotInStore:
        return None  # staged, never committed
    current = _parsed(body, layout.current(object_id), Current)
    return None if current.tombstone else _read(store, current.manifest, Manifest)


def _read(store: ObjectStore, key: str, kind: type[V]) -> V:
    try:
        body, _ = store.get(key)
    except NotInStore:
        raise gone(key) from None
    return _parsed(body, key, kind)


def _parsed(body: bytes, key: str, kind: type[V]) -> V:
    try:
        return kind.model_validate_json(body)
    except ValidationError:
        raise StoreUnavailable(
            f"{key!r} is not a {kind.__name__.lower()} that this version of Trivet reads.",
            hint="Ingest the object again, or use a newer Trivet.",
        ) from None


def gone(key: str) -> StoreUnavailable:
    """The error for a key that a visible generation names and that is not there."""
    return StoreUnavailable(
        f"{key!r} belongs to a visible generation and is not in the store.",
        hint="It may have been replaced in this moment: search again. If it stays so, ingest the object again.",
    )
