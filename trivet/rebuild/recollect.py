"""From what lies on S3 to what the ledger is told: the reading half of a rebuild."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from trivet.errors import StoreDamaged
from trivet.ledger import NewTask, Restored
from trivet.names import Lane, TaskKind
from trivet.parts.plan import load_plan
from trivet.rebuild.records import Intent, StagedRecord, TaskRecord, metadata_json
from trivet.stores import ObjectStore
from trivet.stores.layout import Layout
from trivet.stores.values import read_value
from trivet.values import Current, Manifest, TaskState


@dataclass(frozen=True, slots=True)
class Lost:
    """A record that cannot be used, and why."""

    key: str
    reason: str


#: A task to write back; a record that is damaged; what else to count; or nothing (any more).
Found = Restored | Lost | str | None


@dataclass(frozen=True, slots=True)
class Recollection:
    """Safe to share between threads. What was committed before `since` (Unix seconds) counts as retired."""

    store: ObjectStore
    since: float

    def committed(self, layout: Layout, object_id: str) -> Found:
        """The task whose generation of the object is visible, a tombstone too."""
        try:
            found = read_value(self.store, layout.current(object_id), Current)
            if found is None:
                return None
            current, stored = found
            if stored.modified < self.since:
                return "retired"
            manifest = read_value(self.store, current.manifest, Manifest)
        except StoreDamaged as error:
            return Lost(layout.current(object_id), error.message)
        if manifest is None:
            return Lost(current.manifest, "The manifest of the visible generation is gone: ingest the object again.")
        return _ended(current.manifest, manifest[0], self._record(layout, manifest[0].task_id))

    def _record(self, layout: Layout, task_id: str) -> TaskRecord | None:
        """The manifest says all but the lane and the idempotency key."""
        for key, kind in ((layout.staged_record(task_id), StagedRecord), (layout.intent(task_id), Intent)):
            try:
                found = read_value(self.store, key, kind)
            except StoreDamaged:
                continue
            if found is not None:
                return found[0]
        return None

    def staged(self, layout: Layout, task_id: str) -> Found:
        """A staged task: ended where its manifest is there, else to be embedded, or from the beginning."""
        key = layout.staged_record(task_id)
        try:
            found = read_value(self.store, key, StagedRecord)
            if found is None:
                return None
            record = found[0]
            manifest_key = layout.manifest(record.object_id, record.generation)
            manifest = read_value(self.store, manifest_key, Manifest)
            current = read_value(self.store, layout.current(record.object_id), Current)
        except StoreDamaged as error:
            return Lost(key, error.message)
        if current and current[0].generation >= record.generation:
            if current[1].modified < self.since:
                return None
            own = manifest is not None and manifest[0].task_id == task_id
            # What is visible above it came later: without a manifest of its own it will never be.
            return _ended(manifest_key, manifest[0], record) if manifest and own else _superseded(record)
        return self._unfinished(layout, key, record)

    def _unfinished(self, layout: Layout, key: str, record: StagedRecord) -> Found:
        reason = "Its plan is gone"
        task, known = self._whole(layout, record)
        try:
            plan = load_plan(self.store, layout, record.object_id, record.source_key, record.spec.hash)
        except StoreDamaged as error:
            plan, reason = None, error.message.rstrip(".")
        if plan is not None:
            shards = tuple((shard.tokens, shard.input_hash) for shard in plan.shards)
            return replace(
                _restored(record, task),
                url_known=known,
                run=record.run,
                config=record.config,
                spec=record.spec,
                generation=record.generation,
                queue=record.queue,
                source_sha256=record.source_key,
                shards=shards,
                pages=plan.receipt.pages,
                chunks=plan.receipt.chunks,
            )
        if known:
            return replace(_restored(record, task), run=record.run, config=record.config)
        return Lost(key, f"{reason}, and its full URL is not remembered: ingest {record.url} again.")

    def _whole(self, layout: Layout, record: StagedRecord) -> tuple[NewTask, bool]:
        """The task with its full URL, and whether that is known."""
        if record.whole:
            return record.task(), True
        try:
            found = read_value(self.store, layout.intent(record.task_id), Intent)
        except StoreDamaged:
            found = None
        return (record.task(found[0].secret_url), True) if found else (record.task(), False)

    def intent(self, layout: Layout, task_id: str) -> Found:
        """A task that was accepted, and perhaps never reached the ledger."""
        key = layout.intent(task_id)
        try:
            found = read_value(self.store, key, Intent)
        except StoreDamaged as error:
            return Lost(key, error.message)
        return _restored(found[0], found[0].task(found[0].secret_url)) if found else None


def _restored(record: TaskRecord, task: NewTask) -> Restored:
    """A task that is only accepted: run as the collection says now."""
    return Restored(
        task=task,
        run=1,
        created=record.created,
        config="",
        spec=None,
        generation=0,
        queue="",
        source_sha256="",
        shards=(),
        pages=0,
        chunks=0,
    )


def _superseded(record: StagedRecord) -> Restored:
    return replace(
        _restored(record, record.task()), run=record.run, generation=record.generation, ended=TaskState.SUPERSEDED
    )


def _ended(key: str, manifest: Manifest, record: TaskRecord | None) -> Restored:
    task = NewTask(
        task_id=manifest.task_id,
        namespace=manifest.namespace,
        collection=manifest.collection,
        object_id=manifest.object_id,
        lane=record.lane if record else Lane.NORMAL,
        url=manifest.source_url,
        secret_url="",
        metadata=metadata_json(manifest.metadata),
        media_type=record.media_type if record else "",
        idempotency_key=record.idempotency_key if record else "",
        fingerprint=record.fingerprint if record else "",
        estimated_bytes=record.estimated_bytes if record else 0,
        kind=TaskKind.DELETE if manifest.tombstone else TaskKind.INGEST,
    )
    return Restored(
        task=task,
        run=manifest.run,
        created=record.created if record else datetime.fromisoformat(manifest.created_at).timestamp(),
        config="",
        spec=None,
        generation=manifest.generation,
        queue="",
        source_sha256=manifest.source_sha256,
        shards=tuple((part.tokens, part.input_hash) for part in manifest.parts),
        pages=manifest.receipt.pages,
        chunks=manifest.receipt.chunks,
        ended=TaskState.DELETED if manifest.tombstone else TaskState.COMPLETED,
        manifest=key,
        receipt=manifest.receipt,
    )
