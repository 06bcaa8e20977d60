"""What S3 remembers of collections and tasks, for a ledger that has lost them (`trivet rebuild`).

    collection.json        written by prepare and by a durable accept; garbage collection brings it up to date
    staged/{task}.json     written by prepare before the ledger is told; removed some time after the task has ended
    intents/{task}.json    written by a durable accept before the ledger is told; removed when the task has ended

What is committed needs none of them: `current.json` and the manifest say it all but the idempotency key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal, Self

from trivet.errors import InvalidRequest
from trivet.ids import check_name, redact_url
from trivet.ledger import Ledger, NewTask
from trivet.names import Lane, TaskKind
from trivet.settings import Settings
from trivet.stores import ObjectStore
from trivet.stores.layout import Layout, top
from trivet.values import Frozen, Lease, Spec, dump


class TaskRecord(Frozen):
    """What every record of a task has."""

    schema_version: Literal[1] = 1
    task_id: str
    namespace: str
    collection: str
    object_id: str
    lane: Lane
    #: Redacted.
    url: str
    #: JSON, as the ledger keeps it.
    metadata: str
    media_type: str
    idempotency_key: str
    fingerprint: str
    estimated_bytes: int
    kind: TaskKind
    #: Unix seconds of the accept.
    created: float

    def task(self, secret_url: str = "") -> NewTask:
        """What `Ledger.accept` was told."""
        return NewTask(
            task_id=self.task_id,
            namespace=self.namespace,
            collection=self.collection,
            object_id=self.object_id,
            lane=self.lane,
            url=self.url,
            secret_url=secret_url,
            metadata=self.metadata,
            media_type=self.media_type,
            idempotency_key=self.idempotency_key,
            fingerprint=self.fingerprint,
            estimated_bytes=self.estimated_bytes,
            kind=self.kind,
        )


class StagedRecord(TaskRecord):
    """A task whose shards are staged; what they are, the sealed plan says."""

    run: int
    #: JSON of the collection as it was when the task was accepted.
    config: str
    spec: Spec
    generation: int
    queue: str
    #: Of the source: the key of the plan.
    source_key: str
    #: Whether `url` is all there is to the URL: without query and credentials it can be fetched again.
    whole: bool

    @classmethod
    def of(cls, lease: Lease, payload: Mapping[str, Any], spec: Spec, generation: int, queue: str, source: str) -> Self:
        """The record of what a prepare worker holds; `payload` is the lease's."""
        url = redact_url(payload["url"])
        return cls(
            task_id=lease.task_id,
            namespace=lease.namespace,
            collection=lease.collection,
            object_id=lease.object_id,
            lane=payload["lane"],
            url=url,
            metadata=payload["metadata"],
            media_type=payload["media_type"],
            idempotency_key=payload["idem"],
            fingerprint=payload["fingerprint"],
            estimated_bytes=payload["cost"],
            kind=payload["kind"],
            created=payload["created"] / 1000,
            run=payload["run"],
            config=payload["config"],
            spec=spec,
            generation=generation,
            queue=queue,
            source_key=source,
            whole=url == payload["url"],
        )


class Intent(TaskRecord):
    """A task that is only accepted. It holds the full URL, secrets and all: nothing else could fetch it again."""

    secret_url: str

    @classmethod
    def of(cls, task: NewTask, created: float) -> Self:
        """The intent of what `Ledger.accept` is about to be told."""
        return cls(**{name: getattr(task, name) for name in NewTask.__dataclass_fields__}, created=created)


def put_staged(store: ObjectStore, layout: Layout, record: StagedRecord) -> None:
    """Remember a staged task; a later run of the same task overwrites the earlier."""
    store.put(layout.staged_record(record.task_id), dump(record).encode())


def put_intent(store: ObjectStore, layout: Layout, task: NewTask, created: float) -> None:
    """Remember a task that is about to be accepted."""
    store.put(layout.intent(task.task_id), dump(Intent.of(task, created)).encode())


def put_collection(store: ObjectStore, layout: Layout, ledger: Ledger) -> bool:
    """Write what the ledger has as the collection to `collection.json`; False where it has none."""
    collection = ledger.get_collection(layout.namespace, layout.collection)
    if collection is None:
        return False
    store.put(layout.collection_record(), dump(collection).encode())
    return True


class CollectionMemory:
    """Which collections this process has written down, so that each is written once and again when it has changed."""

    def __init__(self) -> None:
        self._configs: dict[str, str] = {}

    def keep(self, store: ObjectStore, layout: Layout, ledger: Ledger, config: str) -> None:
        """Write the collection down unless `config` is what was seen of it last.

        A task may carry the pipeline of some time ago: what is written is what the ledger has now.
        """
        if self._configs.get(layout.root) != config and put_collection(store, layout, ledger):
            self._configs[layout.root] = config


def layouts(settings: Settings, store: ObjectStore) -> Iterator[Layout]:
    """All collections that have anything under the settings' prefix."""
    for namespace in _folders(store, top(settings)):
        for collection in _folders(store, f"{top(settings)}{namespace}/"):
            yield Layout.of(settings, namespace, collection)


def _folders(store: ObjectStore, prefix: str) -> Iterator[str]:
    for found in store.list(prefix, delimiter="/"):
        name = found.key[len(prefix) :].removesuffix("/")
        with suppress(InvalidRequest):
            if found.key.endswith("/"):
                yield check_name(name, "Name")


def metadata_json(metadata: Mapping[str, Any]) -> str:
    """Metadata of a manifest as the ledger keeps it."""
    return json.dumps(dict(metadata), ensure_ascii=False)
