"""What readers see of a collection: per object the manifest of its visible generation, nothing else."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from pydantic import ValidationError

from trivet.errors import NotInStore, StoreDamaged, StoreUnavailable
from trivet.parts.reader import read_current
from trivet.stores import ObjectStore
from trivet.stores.layout import Layout
from trivet.values import Manifest, ModelIdentity, Spec

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class VisibleObject:
    """An object's visible generation, and the model that embedded it."""

    manifest: Manifest
    encoder_key: str
    model: str


def visible_objects(
    store: ObjectStore, layout: Layout, pool: Executor, object_ids: Iterable[str] | None = None, *, window: int = 64
) -> Iterator[VisibleObject]:
    """Visible objects in order of id, without tombstones; `object_ids` limits them, unknown ones are passed over.

    Reads a few small keys per object, up to `window` objects ahead. Raises the store's errors, `StoreUnavailable`
    for a visible generation that is gone and `StoreDamaged` for one that cannot be read: none is passed over.
    """
    ids = listed_objects(store, layout) if object_ids is None else sorted(set(object_ids))
    specs: dict[str, ModelIdentity] = {}
    for manifest in in_order(pool, lambda object_id: read_current(store, layout, object_id), ids, window):
        if manifest is None or manifest.tombstone:
            continue
        if manifest.passports:  # all of one generation ran under one spec, so with one model
            yield VisibleObject(manifest, manifest.passports[0].encoder_key, manifest.passports[0].model)
            continue
        if manifest.spec_hash not in specs:
            specs[manifest.spec_hash] = _model(store, layout.spec(manifest.spec_hash))
        model = specs[manifest.spec_hash]
        yield VisibleObject(manifest, model.encoder_key, model.name)


def in_order(pool: Executor, function: Callable[[T], R], items: Iterable[T], window: int) -> Iterator[R]:
    """`map` over a pool with at most `window` items under way, so that results never pile up."""
    source = iter(items)
    pending: deque[Future[R]] = deque(pool.submit(function, item) for item in islice(source, window))
    try:
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in islice(source, 1))
            yield result
    finally:
        for future in pending:
            future.cancel()


def listed_objects(store: ObjectStore, layout: Layout) -> Iterator[str]:
    """Ids of all objects that S3 has anything of, hidden ones too."""
    for folder in store.list(layout.objects(), delimiter="/"):
        object_id = layout.object_of(folder.key)
        if object_id is not None:
            yield object_id


def _model(store: ObjectStore, key: str) -> ModelIdentity:
    try:
        return Spec.model_validate_json(store.get(key)[0]).model
    except NotInStore:
        raise gone(key) from None
    except ValidationError:
        raise StoreDamaged(f"{key!r} is no spec that this version of Trivet reads.") from None


def gone(key: str) -> StoreUnavailable:
    """The error for a key that a visible generation names and that is not there."""
    return StoreUnavailable(
        f"{key!r} belongs to a visible generation and is not in the store.",
        hint="It may have been replaced in this moment: search again. If it stays so, ingest the object again.",
    )
