"""Deletes: of one object, of all under a source URL, of a collection, and of what a source no longer lists.

Each hidden object is a task of its own, which publishes a tombstone (`trivet.stages.delete`). What is removed from S3,
and when, is another matter: garbage collection after its retention, or `trivet.deleting.purge` at once.

A batch that would take much of a collection with it is held: nothing is deleted until somebody confirms it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NoReturn, Self

from trivet.accept import write_down
from trivet.clock import Clock, SystemClock
from trivet.commit import read_pointer
from trivet.deleting.prefixes import under_prefix
from trivet.deleting.values import Deleted, HeldDelete, What
from trivet.errors import InvalidRequest, NotConfirmed
from trivet.faults import fault
from trivet.ids import check_name, check_object_id, digest, new_task_id, redact_url
from trivet.ledger import Accepted, Ledger, NewTask
from trivet.ledger.redis_holding import RedisHolding, new_id
from trivet.names import Lane, TaskKind
from trivet.settings import Settings
from trivet.stores import ObjectStore, open_store
from trivet.stores.layout import Layout
from trivet.values import TaskState, dump

#: A listing that names fewer of the visible objects than this share is more likely cut short than true.
_SHORT_LISTING = 0.5
_SAMPLE = 10
_OPEN = tuple(state for state in TaskState if not state.terminal)
_EVERY_TASK = 1 << 40


def delete_object(
    ledger: Ledger,
    settings: Settings,
    namespace: str,
    collection: str,
    object_id: str,
    *,
    idempotency_key: str = "",
    lane: Lane = Lane.INTERACTIVE,
    url: str = "",
    store: ObjectStore | None = None,
) -> Accepted:
    """Hide one object. It waits for the object's active task, and takes the place of one that has not started.

    An object that never existed, or is deleted already, ends its task as skipped. Raises `InvalidRequest`,
    `IdempotencyConflict`, `LedgerUnavailable`.
    """
    if len(idempotency_key) > 255:
        raise InvalidRequest(f"The idempotency key has {len(idempotency_key)} characters.", hint="At most 255 fit.")
    task = NewTask(
        task_id=new_task_id(),
        namespace=check_name(namespace, "Namespace"),
        collection=check_name(collection, "Collection"),
        object_id=check_object_id(object_id),
        lane=lane,
        url=redact_url(url),
        secret_url="",
        metadata="{}",
        media_type="",
        idempotency_key=idempotency_key,
        fingerprint=digest([TaskKind.DELETE, namespace, collection, object_id], 32),
        estimated_bytes=1,
        kind=TaskKind.DELETE,
    )
    return write_down(ledger, settings, task, store=store)


@dataclass(frozen=True, slots=True)
class _Target:
    object_id: str
    generation: int
    url: str = ""


@dataclass(frozen=True)
class Deletes:
    """Deletes of many objects of one namespace. Thread-safe."""

    settings: Settings
    ledger: Ledger
    namespace: str
    store: ObjectStore
    holding: RedisHolding
    clock: Clock = field(default_factory=SystemClock)

    @classmethod
    def open(cls, settings: Settings, ledger: Ledger, namespace: str) -> Self:
        """Over the store and the Redis that the settings name."""
        return cls(settings, ledger, namespace, open_store(settings), RedisHolding(settings))

    def delete_prefix(self, collection: str, prefix: str, *, confirm: bool = False) -> Deleted:
        """Delete what was ingested from this URL or from below it: `https://h/a` is `/a` and `/a/b`, never `/ab`.

        Queries are not kept with an object, so none can be asked for. Tasks that are on their way count as well.
        Raises `NotConfirmed` where the batch is held, unless `confirm`.
        """
        under = under_prefix(prefix)
        shown = redact_url(prefix)
        # What is on its way is looked for first: if it ends meanwhile, it is visible.
        coming = [target for target in self._on_their_way(collection) if under(target.url)]
        visible = list(self._visible(collection, with_url=True))
        chosen = coming + [target for target in visible if under(target.url)]
        return self._delete(collection, "prefix", chosen, len(visible), confirm=confirm, prefix=shown)

    def delete_collection(self, collection: str, *, confirm: bool = False) -> Deleted:
        """Delete all objects, and take no more requests for the collection. Raises `NotConfirmed` as above."""
        check_name(collection, "Collection")
        if not confirm:
            visible = list(self._visible(collection))
            reason = self._too_many(len(visible), len(visible))
            if reason:
                self._hold(collection, "collection", visible, len(visible), reason)
        self.ledger.remove_collection(self.namespace, collection)
        fault("deletes.after_removal")
        # In this order, as above.
        chosen = [*self._on_their_way(collection), *self._visible(collection)]
        return self._delete(collection, "collection", chosen, len(chosen), confirm=True)

    def delete_missing(self, collection: str, present: Iterable[str]) -> Deleted:
        """Delete the visible objects that a full listing of their source, as object ids, no longer has.

        A listing that is empty, or names less than half of what is visible, always waits: it is more likely cut short
        than true. Raises `NotConfirmed`.
        """
        listed = frozenset(present)
        visible = list(self._visible(collection))
        chosen = [target for target in visible if target.object_id not in listed]
        named = len(visible) - len(chosen)
        if chosen and named < _SHORT_LISTING * len(visible):
            reason = f"the listing names {named} of {len(visible)} visible objects"
            self._hold(collection, "missing", chosen, len(visible), reason)
        return self._delete(collection, "missing", chosen, len(visible), confirm=False)

    # ------------------------------------------------------------ held batches

    def held(self) -> list[HeldDelete]:
        """What waits for a confirmation, oldest first."""
        found = [HeldDelete.model_validate_json(text) for text in self.holding.held_deletes(self.namespace)]
        return sorted(found, key=lambda batch: (batch.created, batch.id))

    def confirm(self, batch_id: str) -> Deleted:
        """Go on with a held batch.

        Of a listing those objects are deleted that were missing in it, unless they have been ingested anew since; a
        prefix or a collection is looked at afresh. Killed on the way, it can be confirmed again.
        """
        batch = self._batch(batch_id)
        if batch.what == "prefix":
            done = self.delete_prefix(batch.collection, batch.prefix, confirm=True)
        elif batch.what == "collection":
            done = self.delete_collection(batch.collection, confirm=True)
        else:
            done = self._delete_listed(batch)
        fault("deletes.before_drop")
        self.holding.drop_delete(self.namespace, batch_id)
        return done

    def drop(self, batch_id: str) -> HeldDelete:
        """Forget a held batch; its objects stay."""
        batch = self._batch(batch_id)
        self.holding.drop_delete(self.namespace, batch_id)
        return batch

    def _batch(self, batch_id: str) -> HeldDelete:
        text = self.holding.held_delete(self.namespace, batch_id)
        if text is None:
            raise InvalidRequest(f"No held delete is called {batch_id[:80]!r}.", hint="List them: trivet deletes")
        return HeldDelete.model_validate_json(text)

    def _delete_listed(self, batch: HeldDelete) -> Deleted:
        task_ids, renewed = [], []
        lines = (line.split(" ") for line in self.holding.held_objects(self.namespace, batch.id))
        then = {object_id: int(generation) for object_id, generation in lines}
        for target in self._visible(batch.collection, object_ids=then):
            if target.generation == then[target.object_id]:
                task_ids.append(self._accept(batch.collection, target))
            else:
                renewed.append(target.object_id)
        return Deleted(tuple(task_ids), tuple(renewed))

    # ------------------------------------------------------------ inside

    def _delete(
        self, collection: str, what: What, chosen: list[_Target], visible: int, *, confirm: bool, prefix: str = ""
    ) -> Deleted:
        chosen = list({target.object_id: target for target in chosen}.values())
        reason = "" if confirm else self._too_many(len(chosen), visible)
        if reason:
            self._hold(collection, what, chosen, visible, reason, prefix=prefix)
        return Deleted(tuple(self._accept(collection, target) for target in chosen))

    def _accept(self, collection: str, target: _Target) -> str:
        fault("deletes.before_accept")
        accepted = delete_object(
            self.ledger,
            self.settings,
            self.namespace,
            collection,
            target.object_id,
            lane=Lane.BULK,
            url=target.url,
            store=self.store,
        )
        return accepted.task_id

    def _too_many(self, count: int, visible: int) -> str:
        share, least = self.settings.mass_delete_share, self.settings.mass_delete_objects
        if count < least or count <= share * visible:
            return ""
        return f"it is more than {share:.0%} of the collection"

    def _hold(
        self, collection: str, what: What, chosen: list[_Target], visible: int, reason: str, *, prefix: str = ""
    ) -> NoReturn:
        batch = HeldDelete(
            id=new_id("held"),
            namespace=self.namespace,
            collection=collection,
            what=what,
            prefix=prefix,
            count=len(chosen),
            visible=visible,
            sample=tuple(target.object_id for target in chosen[:_SAMPLE]),
            reason=reason,
            created=self.clock.now(),
        )
        lines = (f"{target.object_id} {target.generation}" for target in chosen) if what == "missing" else ()
        self.holding.hold_delete(self.namespace, batch.id, dump(batch), lines)
        fault("deletes.after_hold")
        for old in self.held():
            # A job that asks every night must not fill Redis with what nobody looks at.
            if old.asks_as(batch) and old.created < batch.created:
                self.holding.drop_delete(self.namespace, old.id)
        raise NotConfirmed(
            f"Nothing is deleted yet: it would be {len(chosen)} of {visible} visible objects of collection "
            f"{collection!r}, and {reason}.",
            hint=f"Do it: trivet deletes --confirm {batch.id} - or forget it: trivet deletes --drop {batch.id}",
        )

    def _visible(
        self, collection: str, *, with_url: bool = False, object_ids: Iterable[str] | None = None
    ) -> Iterator[_Target]:
        from trivet.parts.reader import read_current
        from trivet.retrieval.visible import in_order, listed_objects

        layout = Layout.of(self.settings, check_name(self.namespace, "Namespace"), check_name(collection, "Collection"))

        def look(object_id: str) -> _Target | None:
            if with_url:
                manifest = read_current(self.store, layout, object_id)
                return _Target(object_id, manifest.generation, manifest.source_url) if manifest else None
            current = read_pointer(self.store, layout, object_id)
            return _Target(object_id, current.generation) if current and not current.tombstone else None

        ids = object_ids if object_ids is not None else listed_objects(self.store, layout)
        threads = self.settings.io_threads
        with ThreadPoolExecutor(threads, "trivet-deletes") as pool:
            for target in in_order(pool, look, ids, 4 * threads):
                if target is not None:
                    yield target

    def _on_their_way(self, collection: str) -> Iterator[_Target]:
        """Objects with a task that may make them visible yet."""
        for state in _OPEN:
            for view in self.ledger.tasks(self.namespace, collection=collection, state=state, limit=_EVERY_TASK):
                if view.kind is TaskKind.INGEST:
                    yield _Target(view.object_id, 0, view.url)
