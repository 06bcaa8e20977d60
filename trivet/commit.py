"""The commit on S3: how a generation becomes visible, once and as a whole. The only code that moves `current.json`.

    manifest.json   PUT If-None-Match: *                                     → durable
    current.json    PUT If-None-Match: * when absent, else If-Match, upward  → visible

After any conflict (412, 409) or lost answer the truth is read back: what carries our task id and input hash is ours,
however it came there. So every step may be interrupted, repeated, or done by two processes at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trivet.clock import Clock, SystemClock
from trivet.errors import NotInStore, StoreConflict, StoreUnavailable
from trivet.faults import fault as default_fault
from trivet.stores import ObjectStore
from trivet.stores.layout import Layout
from trivet.stores.values import read_value
from trivet.values import Current, Frozen, Manifest, Part, Passport, dump

Fault = Callable[[str], None]

#: How often one step is tried before the work item goes back to the ledger.
ATTEMPTS = 8
_PAUSE_SECONDS = 0.05
_PAUSE_MAX_SECONDS = 1.0

#: Every fault hook of `publish`, in the order in which an undisturbed commit of a first generation comes by.
FAULTS = ("commit.before_manifest", "commit.after_manifest", "commit.before_current", "commit.after_current")


@dataclass(frozen=True, slots=True)
class Published:
    """The generation is visible. `manifest` is the one that is stored: an earlier run of the task may have put it."""

    key: str
    manifest: Manifest
    current: Current


@dataclass(frozen=True, slots=True)
class Superseded:
    """A higher generation is visible already; ours is durable and will never be seen."""

    key: str
    manifest: Manifest
    by: Current


@dataclass(frozen=True, slots=True)
class Foreign:
    """The number is taken by another task (the ledger had forgotten it): allocate anew and write the parts again."""

    key: str
    generation: int
    #: Whose it is.
    task_id: str


Publication = Published | Superseded | Foreign


def publish(
    store: ObjectStore,
    layout: Layout,
    manifest: Manifest,
    *,
    clock: Clock | None = None,
    fault: Fault = default_fault,
) -> Publication:
    """Make a generation durable, then visible. Idempotent; safe against any number of other committers.

    A tombstone is published the same way and hides the object. The parts that the manifest lists must be written
    before. Raises `StoreUnavailable` where S3 does not answer for long (come again: nothing is lost), and
    `StoreForbidden`; `StoreDamaged` where what is stored cannot be read.
    """
    clock = clock or SystemClock()
    key = layout.manifest(manifest.object_id, manifest.generation)
    stored = _put_manifest(store, key, manifest, clock, fault)
    if not _ours(stored, manifest):
        return Foreign(key, manifest.generation, stored.task_id)
    fault("commit.after_manifest")
    return _advance(store, layout, key, stored, clock, fault)


def _put_manifest(store: ObjectStore, key: str, manifest: Manifest, clock: Clock, fault: Fault) -> Manifest:
    """What is stored under the manifest's key afterwards, whoever wrote it."""
    body, sha256 = _encode(manifest)
    for last in _tries(clock):
        fault("commit.before_manifest")
        try:
            store.put(key, body, if_none_match=True, sha256=sha256)
        except (StoreConflict, StoreUnavailable) as error:
            fault("commit.before_manifest_read_back")
            found = read_value(store, key, Manifest)
            if found is not None:
                return found[0]
            if last:
                raise StoreUnavailable(f"The manifest {key!r} could not be written: {error}") from None
        else:
            return manifest
    raise AssertionError("unreachable")


def _advance(
    store: ObjectStore, layout: Layout, key: str, manifest: Manifest, clock: Clock, fault: Fault
) -> Publication:
    """Move `current.json` up to the manifest, unless it is there or higher."""
    name = layout.current(manifest.object_id)
    mine = Current(
        generation=manifest.generation,
        manifest=key,
        task_id=manifest.task_id,
        input_hash=manifest.input_hash,
        source_sha256=manifest.source_sha256,
        spec_hash=manifest.spec_hash,
        tombstone=manifest.tombstone,
    )
    body, sha256 = _encode(mine)
    for last in _tries(clock):
        found = read_value(store, name, Current)
        if found is not None and found[0].generation >= mine.generation:
            return _settled(key, manifest, found[0])
        fault("commit.before_current")
        try:
            if found is None:
                store.put(name, body, if_none_match=True, sha256=sha256)
            else:
                store.put(name, body, if_match=found[1].etag, sha256=sha256)
        except (StoreConflict, StoreUnavailable) as error:
            fault("commit.before_current_read_back")
            if last:
                # The last try may have been the one that was written.
                found = read_value(store, name, Current)
                if found is not None and found[0].generation >= mine.generation:
                    return _settled(key, manifest, found[0])
                raise StoreUnavailable(f"{name!r} could not be moved to {mine.generation}: {error}") from None
        else:
            fault("commit.after_current")
            return Published(key, manifest, mine)
    raise AssertionError("unreachable")


def _settled(key: str, manifest: Manifest, current: Current) -> Publication:
    if current.generation > manifest.generation:
        return Superseded(key, manifest, current)
    if current.task_id == manifest.task_id and current.input_hash == manifest.input_hash:
        return Published(key, manifest, current)
    return Foreign(key, current.generation, current.task_id)


def _ours(stored: Manifest, manifest: Manifest) -> bool:
    return stored.task_id == manifest.task_id and stored.input_hash == manifest.input_hash


def _tries(clock: Clock) -> Iterator[bool]:
    """`ATTEMPTS` times whether this is the last, with growing pauses between."""
    for attempt in range(ATTEMPTS):
        if attempt:
            clock.sleep(min(_PAUSE_MAX_SECONDS, _PAUSE_SECONDS * 2 ** (attempt - 1)))
        yield attempt == ATTEMPTS - 1


def _encode(value: Frozen) -> tuple[bytes, str]:
    body = dump(value).encode()
    return body, hashlib.sha256(body).hexdigest()


def read_manifest(store: ObjectStore, layout: Layout, object_id: str, generation: int) -> Manifest | None:
    """The manifest of one generation, visible or not, or None."""
    found = read_value(store, layout.manifest(object_id, generation), Manifest)
    return found[0] if found else None


def read_pointer(store: ObjectStore, layout: Layout, object_id: str) -> Current | None:
    """What `current.json` says (a tombstone too), or None where nothing was ever committed."""
    found = read_value(store, layout.current(object_id), Current)
    return found[0] if found else None


def read_floor(store: ObjectStore, layout: Layout, object_id: str) -> tuple[Current | None, int]:
    """What `current.json` says, and the highest generation that S3 knows of: that one or any under `g/`; 0 for none.

    The ledger allocates above it, so that a ledger that lost its memory cannot reuse a number.
    """
    current = read_pointer(store, layout, object_id)
    listed = store.list(layout.generations(object_id), delimiter="/")
    floor = max(
        (current.generation if current else 0, *(layout.generation_of(found.key) or 0 for found in listed)), default=0
    )
    return current, floor


def put_part(
    store: ObjectStore,
    layout: Layout,
    *,
    object_id: str,
    generation: int,
    shard: int,
    body: bytes,
    rows: int,
    tokens: int,
    input_hash: str,
    passport: Passport | None = None,
    fault: Fault = default_fault,
) -> Part:
    """Write one part unless it is there; the `Part` says what *is* there.

    GPU output is not bit-stable, so a part that another worker wrote from the same input may differ in its last bits:
    the first one stays, and its size, checksum and passport are recorded (`passport` is that of `body`; `made_by`
    reads the stored one). Raises `StoreUnavailable`, `StoreForbidden`, and `StoreDamaged` for what is no part.
    """
    key = layout.part(object_id, generation, shard, input_hash)
    sha256, size = hashlib.sha256(body).hexdigest(), len(body)
    maker = passport
    fault("embed.before_part")
    try:
        store.put(key, body, if_none_match=True, sha256=sha256)
    except (StoreConflict, StoreUnavailable) as error:
        fault("embed.before_part_read_back")
        mine = sha256
        sha256, size = _stored_part(store, key, error)
        if passport is not None and sha256 != mine:
            maker = made_by(store, key)
    fault("embed.after_part")
    return Part(
        shard=shard,
        key=key,
        sha256=sha256,
        bytes=size,
        rows=rows,
        tokens=tokens,
        input_hash=input_hash,
        passport=maker.digest if maker else "",
    )


def made_by(store: ObjectStore, key: str) -> Passport | None:
    """The passport in a stored part's footer: that of whoever made it. None where it says nothing.

    Raises `StoreUnavailable`, and `StoreDamaged` for what is no part.
    """
    from trivet.parts.schema import stored_passport

    with store.open(key) as file:
        return stored_passport(file, key)


def _stored_part(store: ObjectStore, key: str, error: StoreConflict | StoreUnavailable) -> tuple[str, int]:
    try:
        stored = store.head(key)
        if stored.sha256:
            return stored.sha256, stored.size
        body, stored = store.get(key)
    except NotInStore:
        raise StoreUnavailable(f"The part {key!r} could not be written: {error}") from None
    return hashlib.sha256(body).hexdigest(), stored.size
