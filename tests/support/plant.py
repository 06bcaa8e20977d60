"""All stages in this process on the real servers of a test, one worker; and a ledger that can be wiped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from trivet.accept import accept, parse_request
from trivet.commit import read_manifest, read_pointer
from trivet.encoder.fake import FakeEncoder
from trivet.encoder.models import resolve
from trivet.ledger.redis import RedisLedger
from trivet.names import Stage
from trivet.settings import Settings
from trivet.stages import commit, prepare
from trivet.stages.context import StageContext
from trivet.stages.embed import EmbedLoop
from trivet.stages.keeper import LeaseKeeper
from trivet.stores import ObjectStore
from trivet.stores.layout import Layout
from trivet.values import Collection, ErrorRecord, Manifest, Pipeline, TaskView

FAR = float("inf")
_CRASHED = ErrorRecord(code="worker_crashed", message="It died.", transient=True)


class Plant:
    """Ledger, store, one worker, and the collection `docs`."""

    def __init__(self, settings: Settings, store: ObjectStore) -> None:
        self.settings = settings
        self.store = store
        self.ledger = RedisLedger(settings)
        self.layout = Layout.of(settings, "default", "docs")
        self.encoder = FakeEncoder(resolve(settings, "fake"))
        self.create_collection()
        keeper = LeaseKeeper(self.ledger, settings, "w", list(Stage), "{}")
        self.ctx = StageContext(settings, self.ledger, store, "w", keeper, random=Random(1))

    def create_collection(self) -> None:
        """As `trivet collections create` does."""
        made = Collection(namespace="default", name="docs", pipeline=Pipeline(model_id="fake"))
        self.ledger.put_collection(made, replace=True)

    def accept(self, url: str, **fields: Any) -> str:
        """A task that waits for prepare."""
        request = parse_request({"url": url, "collection": "docs", **fields})
        return accept(self.ledger, self.settings, request, store=self.store).task_id

    def prepare(self) -> None:
        """What waits for prepare."""
        prepare.run(self.ctx, FAR)

    def embed(self) -> None:
        """What waits for an embed worker."""
        loop = EmbedLoop(self.ctx, self.encoder)
        loop.run(FAR)
        loop.close()

    def commit(self) -> None:
        """What waits for a commit."""
        commit.run(self.ctx, FAR)

    def run(self) -> None:
        """All of it."""
        self.prepare()
        self.embed()
        self.commit()

    def ingested(self, url: str, **fields: Any) -> str:
        """A task that has gone all the way."""
        task_id = self.accept(url, **fields)
        self.run()
        return task_id

    def state(self, task_id: str) -> str:
        """Its state, or `unknown`."""
        found = self.ledger.task(task_id)
        return found.state if found else "unknown"

    def view(self, task_id: str) -> TaskView:
        """The task as it stands."""
        found = self.ledger.task(task_id)
        assert found is not None
        return found

    def visible(self, object_id: str) -> Manifest:
        """What readers see of an object."""
        current = read_pointer(self.store, self.layout, object_id)
        assert current is not None
        found = read_manifest(self.store, self.layout, object_id, current.generation)
        assert found is not None
        return found

    def events(self, task_id: str) -> dict[str, str]:
        """Event id → kind, of one task."""
        entries = self.ledger.events("0-0", 10_000, 0)
        return {
            event.id: event.type.removeprefix("trivet.ingest.")
            for _, event in entries
            if event.data["task_id"] == task_id
        }

    def wipe(self) -> None:
        """All keys of this ledger, and of no other on the server, are gone."""
        client: Any = self.ledger._client
        keys = list(client.scan_iter(f"{self.settings.redis_prefix}*", count=1000))
        if keys:
            client.delete(*keys)

    def dump(self) -> dict[str, Any]:
        """All that the ledger holds, without what every call changes."""
        client: Any = self.ledger._client
        found: dict[str, Any] = {}
        for key in client.scan_iter(f"{self.settings.redis_prefix}*", count=1000):
            kind = client.type(key)
            read = {"hash": client.hgetall, "string": client.get, "set": client.smembers, "stream": client.xlen}
            value = read[kind](key) if kind in read else client.zrange(key, 0, -1)
            if kind == "hash":
                value = {k: v for k, v in value.items() if k not in ("updated", "restored", "told", "ended")}
            found[key.removeprefix(self.settings.redis_prefix)] = value
        return {k: v for k, v in found.items() if not k.startswith(("worker", "slots", "bell", "held"))}

    def close(self) -> None:
        """End the heartbeat and the connections."""
        self.ctx.keeper.close()
        client: Any = self.ledger._client
        client.close()


@contextmanager
def plant(settings: Settings, store: ObjectStore) -> Iterator[Plant]:
    """A plant that ends with the block."""
    made = Plant(settings, store)
    try:
        yield made
    finally:
        made.close()
