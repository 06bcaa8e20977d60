"""A worker's stages on the twins of ledger and store, driven by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from trivet.accept import accept, parse_request
from trivet.clock import ManualClock
from trivet.encoder.fake import FakeEncoder
from trivet.encoder.models import fake_model
from trivet.ids import chunk_id
from trivet.ledger.memory import MemoryLedger
from trivet.ledger.queues import embed_queue
from trivet.names import Stage
from trivet.parts.plan import Plan, source_key
from trivet.parts.staging import seal_plan, stage_shard
from trivet.settings import Settings
from trivet.stages.context import StageContext
from trivet.stages.keeper import LeaseKeeper
from trivet.stores.layout import Layout
from trivet.stores.memory import MemoryStore
from trivet.values import Chunk, Collection, ErrorRecord, Lease, Pipeline, Receipt, Spec, TaskView

MODEL = fake_model(64).identity
SPEC = Spec(pipeline=Pipeline(model_id="fake"), model=MODEL)
SHA = "ab" * 32
CRASHED = ErrorRecord(code="worker_crashed", message="It died.", transient=True)


class Desk:
    """Ledger, store and one worker."""

    def __init__(
        self,
        tmp_path: Path,
        ledger: Any = None,
        store: Any = None,
        base: Settings | None = None,
        **settings: Any,
    ) -> None:
        self.clock = ManualClock()
        self.ledger: Any = ledger or MemoryLedger(clock=self.clock)
        if isinstance(ledger, MemoryLedger):
            ledger._clock = self.clock
        self.store = store or MemoryStore()
        self.settings = base or Settings(state_dir=tmp_path, model_hub=False, **settings)
        self.layout = Layout.of(self.settings, "default", "docs")
        self.ctx = self.worker("w")
        self.ledger.put_collection(Collection(namespace="default", name="docs", pipeline=SPEC.pipeline), replace=True)

    def worker(self, name: str, stopping: Callable[[], bool] = lambda: False) -> StageContext:
        """The context of one more worker."""
        keeper = LeaseKeeper(self.ledger, self.settings, name, [Stage.EMBED], "{}")
        return StageContext(
            self.settings, self.ledger, self.store, name, keeper, clock=self.clock, random=Random(1), stopping=stopping
        )

    def accept(self, object_id: str = "o", **fields: Any) -> str:
        """A task that waits for prepare."""
        request = {"url": f"https://host/{object_id}", "collection": "docs", "object_id": object_id, **fields}
        return accept(self.ledger, self.settings, parse_request(request)).task_id

    def claim(self, stage: Stage, worker: str = "hand") -> Lease:
        """The next item of a stage."""
        (lease,) = self.ledger.claim(stage, worker, self.ctx.operation(), queues=[embed_queue(SPEC)])
        return lease

    def staged(self, object_id: str, shards: Sequence[Sequence[str]], **fields: Any) -> str:
        """A task whose shards of these texts wait to be embedded."""
        task_id = self.accept(object_id, **fields)
        lease = self.claim(Stage.PREPARE)
        self.ledger.allocate(lease, 0, SPEC)
        ordinal, made = 0, []
        for number, texts in enumerate(shards):
            chunks = []
            for text in texts:
                chunks.append(_chunk(object_id, ordinal, text))
                ordinal += 1
            made.append(stage_shard(self.store, self.layout, SPEC, object_id, SHA, number, chunks))
        receipt = Receipt(chunks=ordinal)
        plan = Plan(
            object_id=object_id,
            source_sha256=SHA,
            spec_hash=SPEC.hash,
            media_type="text/plain",
            shards=tuple(made),
            receipt=receipt,
        )
        seal_plan(self.store, self.layout, plan)
        figures = [(shard.tokens, shard.input_hash) for shard in made]
        key = source_key(SHA, fields.get("media_type") or "")
        self.ledger.stage(lease, embed_queue(SPEC), key, figures, pages=0, chunks=ordinal, fetched_bytes=10)
        return task_id

    def view(self, task_id: str) -> TaskView:
        """The task as it stands."""
        found = self.ledger.task(task_id)
        assert found is not None
        return found

    def states(self) -> dict[str, str]:
        """Work item → pending, leased or due."""
        return {item.id.split("/", 1)[1]: item.state for item in self.ledger._queues.items.values()}

    def attempts(self) -> list[int]:
        """Errors charged to each item that is left."""
        return [item.attempts for item in self.ledger._queues.items.values()]

    def suspect(self) -> None:
        """All that waits for an embed worker becomes suspect, as after a crash of a worker that held it."""
        for item in list(self.ledger._queues.items.values()):
            self.ledger._queues.forget(item.id)
            item.group = 1
            self.ledger._queues.items[item.id] = item
            self.ledger._queues.push(item, self.clock.now())

    def close(self) -> None:
        """End the heartbeat."""
        self.ctx.keeper.close()


def _chunk(object_id: str, ordinal: int, text: str) -> Chunk:
    return Chunk(
        chunk_id=chunk_id(object_id, ordinal, text, ""),
        ordinal=ordinal,
        text=text,
        context="",
        heading_path=(),
        page_start=None,
        page_end=None,
        char_start=0,
        char_end=len(text),
        language=None,
        token_ids=(0, *(4 + letter % 200 for letter in text.encode()), 2),
    )


@contextmanager
def desk(tmp_path: Path, **how: Any) -> Iterator[Desk]:
    """A desk that ends with the block."""
    made = Desk(tmp_path, **how)
    try:
        yield made
    finally:
        made.close()


def encoder() -> FakeEncoder:
    """The encoder that SPEC names."""
    return FakeEncoder.of(64)


def payload(lease: Lease) -> dict[str, Any]:
    """What a lease carries."""
    found: dict[str, Any] = json.loads(lease.payload)
    return found
