"""Purge: removes from S3, at once, what a deleted object or collection has left there, and says what that was.

Asked for by anybody, done by a process of the role gc alone: no other may delete. What stays is the pointer and the
tombstone's manifest, which hide the object and keep its generations counted. While an object is purged none of its
tasks can start; a purge waits for those that have. Killed anywhere, it is gone on with, and each key counts once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Literal

import structlog
from pydantic import Field

from trivet.clock import Clock, SystemClock
from trivet.commit import read_pointer
from trivet.errors import InvalidRequest, NotInStore, StoreDamaged
from trivet.faults import fault
from trivet.ids import check_name, check_object_id
from trivet.ledger.redis_holding import RedisHolding, new_id
from trivet.ledger.redis_restoring import RedisRestoring
from trivet.rebuild.marks import check_mark, check_still
from trivet.retrieval.visible import in_order, listed_objects
from trivet.settings import Settings
from trivet.stages.context import worker_name
from trivet.stores import ObjectStore, Stored
from trivet.stores.layout import Layout
from trivet.values import Current, Frozen

log = structlog.get_logger(__name__)

#: Keys of a listing between two looks whether it is still this process' turn.
_LISTED = 500

#: Every fault hook of a purge, in order.
FAULTS = (
    "purge.before_shut",
    "purge.after_shut",
    "purge.before_note",
    "purge.before_remove",
    "purge.after_remove",
    "purge.before_count",
    "purge.after_count",
    "purge.before_open",
    "purge.before_receipt",
)


class PurgeReceipt(Frozen):
    """How a purge stands, and once it is done what it has removed."""

    id: str
    namespace: str
    collection: str
    #: Empty: every deleted object of the collection.
    object_id: str = ""
    state: Literal["waiting", "done", "refused"] = "waiting"
    #: What it waits for, or why it was refused.
    reason: str = ""
    #: Keys and bytes that are gone, by kind: raw, plans, parts, manifests, records, other.
    keys: dict[str, int] = Field(default_factory=dict)
    bytes: dict[str, int] = Field(default_factory=dict)
    #: Unix seconds.
    requested: float
    ended: float | None = None
    #: The process that ended it.
    by: str = ""


def request_purge(
    settings: Settings,
    store: ObjectStore,
    namespace: str,
    collection: str,
    object_id: str = "",
    *,
    clock: Clock | None = None,
) -> PurgeReceipt:
    """Ask for a purge of one object, or of all of a collection. Raises `InvalidRequest` for what is not deleted."""
    layout = Layout.of(settings, check_name(namespace, "Namespace"), check_name(collection, "Collection"))
    ids = iter([check_object_id(object_id)]) if object_id else listed_objects(store, layout)
    with ThreadPoolExecutor(settings.io_threads, "trivet-purge") as pool:
        look = in_order(pool, lambda name: (name, read_pointer(store, layout, name)), ids, 4 * settings.io_threads)
        for name, current in look:
            # In a collection, an object that was never visible has nothing to hide.
            if (current is None and object_id) or (current is not None and not current.tombstone):
                raise InvalidRequest(
                    f"Object {name!r} of collection {collection!r} is not deleted, so it cannot be purged.",
                    hint=f"Delete it first: trivet delete {name} -c {collection}"
                    if object_id
                    else f"Delete all of it first: trivet delete --all -c {collection}",
                )
    asked = PurgeReceipt(
        id=new_id("purge"),
        namespace=namespace,
        collection=collection,
        object_id=object_id,
        reason="a gc process takes it up within seconds",
        requested=(clock or SystemClock()).now(),
    )
    RedisHolding(settings).put_purge(asked.id, asked, open_=True)
    return asked


def receipt(settings: Settings, purge_id: str) -> PurgeReceipt:
    """How a purge stands. Raises `InvalidRequest` for one that was never asked for."""
    found = RedisHolding(settings).purge(purge_id, PurgeReceipt)
    if found is None:
        raise InvalidRequest(f"No purge is called {purge_id[:80]!r}.")
    return found


def run_purges(
    settings: Settings, ledger: RedisRestoring, store: ObjectStore, *, clock: Clock | None = None
) -> list[PurgeReceipt]:
    """Do what can be done of all purges; returns those that have ended. For the role gc.

    Raises `WrongLedger`, `LedgerUnavailable`, `StoreUnavailable` and `StoreForbidden`; the next call goes on.
    """
    holding = ledger if isinstance(ledger, RedisHolding) else RedisHolding(settings)
    ids = holding.open_purges()
    if not ids:
        return []
    mark = check_mark(settings, ledger, store)
    me = worker_name()
    if not holding.take_turn("purge_turn", me):
        return []
    ended = []
    try:
        for purge_id in ids:
            asked = holding.purge(purge_id, PurgeReceipt)
            if asked is not None and asked.state == "waiting":
                still = partial(check_still, ledger, mark)
                done = _Purge(settings, holding, store, asked, me, clock or SystemClock(), still).run()
                ended += [done] if done.state != "waiting" else []
    finally:
        holding.end_turn("purge_turn", me)
    return ended


@dataclass(frozen=True)
class _Purge:
    settings: Settings
    holding: RedisHolding
    store: ObjectStore
    asked: PurgeReceipt
    me: str
    clock: Clock
    #: Raises `WrongLedger` where the ledger was wiped since the purge began.
    still: Callable[[], None]
    #: Objects that were left, and why.
    left: dict[str, str] = field(default_factory=dict)

    @property
    def layout(self) -> Layout:
        return Layout.of(self.settings, self.asked.namespace, self.asked.collection)

    def run(self) -> PurgeReceipt:
        """One round over the objects; writes the receipt where nothing is left to wait for."""
        records = self._records()
        # A round that was killed may have left one shut, and nothing of it that a listing would show.
        shut = [name for name in (self.holding.shut(self.asked.id),) if name]
        asked = [self.asked.object_id] if self.asked.object_id else listed_objects(self.store, self.layout)
        for object_id in chain(shut, asked):
            if not self.holding.take_turn("purge_turn", self.me):
                return self.asked
            # An empty ledger gives its turn to anybody, and says that no task of the object is active.
            self.still()
            self._object(object_id, records.pop(object_id, []))
        self.holding.count_keys(self.asked.id)
        fault("purge.before_receipt")
        value = self._receipt()
        if value != self.asked:
            self.holding.put_purge(value.id, value, open_=value.state == "waiting")
        if value.state != "waiting":
            log.info("purge.ended", purge=value.id, state=value.state, keys=sum(value.keys.values()))
        return value

    def _receipt(self) -> PurgeReceipt:
        sums = self.holding.purge_sums(self.asked.id)
        keys, sizes = (
            {name.removeprefix(head): n for name, n in sorted(sums.items()) if name.startswith(head)}
            for head in ("keys:", "bytes:")
        )
        busy = [object_id for object_id, why in self.left.items() if why == "busy"]
        if busy:
            reason = f"object {busy[0]} has an active task" + (f", and {len(busy) - 1} more" if busy[1:] else "")
            return self.asked.model_copy(update={"keys": keys, "bytes": sizes, "reason": reason})
        refused = bool(self.left) and bool(self.asked.object_id)
        reason = ""
        if self.left:
            object_id, why = next(iter(self.left.items()))
            more = f"; with {len(self.left) - 1} more" if len(self.left) > 1 else ""
            reason = f"object {object_id} is {why}: it was left{more}"
        return self.asked.model_copy(
            update={
                "state": "refused" if refused else "done",
                "reason": reason,
                "keys": keys,
                "bytes": sizes,
                "ended": self.clock.now(),
                "by": self.me,
            }
        )

    def _object(self, object_id: str, records: list[Stored]) -> None:
        place = (self.asked.namespace, self.asked.collection, object_id)
        fault("purge.before_shut")
        if not self.holding.shut_for_purge(self.me, self.asked.id, *place):
            self.left[object_id] = "busy"
            return
        fault("purge.after_shut")
        try:
            # No task can start now, and whoever lost its lease writes under generations that stay hidden.
            current = read_pointer(self.store, self.layout, object_id)
            if current is not None and not current.tombstone:
                self.left[object_id] = "visible again"
            else:
                self._remove(object_id, current, records)
        except StoreDamaged:
            # What cannot be read may be visible, and must not hold up what can.
            self.left[object_id] = "unreadable"
        finally:
            fault("purge.before_open")
            self.holding.open_after_purge(self.me, self.asked.id, *place)

    def _remove(self, object_id: str, current: Current | None, records: list[Stored]) -> None:
        keep = {self.layout.current(object_id), current.manifest} if current else set()
        folder = self.layout.object(object_id)
        doomed = [stored for stored in self._in_turn(self.store.list(folder)) if stored.key not in keep]
        # Manifests go last: while one is there, it says what else was.
        doomed.sort(key=lambda stored: stored.key.endswith("/manifest.json"))
        noted = {stored.key: f"{_kind(stored.key, folder)} {stored.size}" for stored in doomed}
        noted |= {stored.key: f"records {stored.size}" for stored in records}
        fault("purge.before_note")
        self.holding.note_keys(self.asked.id, noted)
        # A plan's seal goes before its shards: whoever finds it takes them for complete.
        seals = [key for key in noted if key.endswith("/plan.json")]
        others = [key for key in noted if not key.endswith("/plan.json")]
        with ThreadPoolExecutor(self.settings.io_threads, "trivet-purge") as pool:
            for keys in (seals, others):
                for _ in in_order(pool, self._delete, keys, 4 * self.settings.io_threads):
                    pass
        self.store.abort_uploads(folder, self.clock.now())
        fault("purge.before_count")
        self.holding.count_keys(self.asked.id)
        fault("purge.after_count")

    def _in_turn(self, listing: Iterable[Stored]) -> Iterator[Stored]:
        """The same; however long it is, the turn stays this process'."""
        for count, stored in enumerate(listing):
            if count % _LISTED == 0:
                self.holding.keep_turn("purge_turn", self.me)
            yield stored

    def _delete(self, key: str) -> None:
        fault("purge.before_remove")
        # Before each key: of a process that was stopped, the object may have been opened and filled again meanwhile.
        self.holding.keep_turn("purge_turn", self.me)
        self.store.delete(key)
        fault("purge.after_remove")

    def _records(self) -> dict[str, list[Stored]]:
        """Object → what is remembered of its tasks on S3 beside it; intents hold full URLs."""
        listed: Iterator[Stored] = (
            stored
            for prefix in (self.layout.staged_records(), self.layout.intents())
            for stored in self.store.list(prefix)
            # What has come since belongs to tasks that start after the purge.
            if stored.modified <= self.asked.requested
        )
        found: dict[str, list[Stored]] = {}
        with ThreadPoolExecutor(self.settings.io_threads, "trivet-purge") as pool:
            owned = in_order(pool, self._owner, self._in_turn(listed), 4 * self.settings.io_threads)
            for object_id, stored in owned:
                if object_id == self.asked.object_id or (object_id and not self.asked.object_id):
                    found.setdefault(object_id, []).append(stored)
        return found

    def _owner(self, stored: Stored) -> tuple[str, Stored]:
        with suppress(NotInStore, ValueError, AttributeError):
            return str(json.loads(self.store.get(stored.key)[0]).get("object_id", "")), stored
        return "", stored


def _kind(key: str, folder: str) -> str:
    path = key.removeprefix(folder).split("/")
    if path[0] == "g":
        return "manifests" if path[-1] == "manifest.json" else "parts"
    return {"raw": "raw", "plan": "plans"}.get(path[0], "other")
