"""What is remembered of tasks and collections on S3, on the twins of ledger and store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.stages.desk import SHA, SPEC, Desk, desk, payload
from trivet.errors import IdempotencyConflict, StoreDamaged, StoreUnavailable, UnknownCollection
from trivet.ledger import NewTask
from trivet.names import Lane, Stage, TaskKind
from trivet.rebuild.records import (
    CollectionMemory,
    Intent,
    StagedRecord,
    layouts,
    put_intent,
    put_staged,
)
from trivet.settings import Settings
from trivet.stages import prepare
from trivet.stores.layout import Layout
from trivet.stores.memory import MemoryStore
from trivet.stores.values import read_value
from trivet.values import Collection, Pipeline, dump

FAR = float("inf")
TEXT = "data:text/plain,Some%20text."


def task(**changes: object) -> NewTask:
    fields: dict[str, object] = {
        "task_id": "task_1",
        "namespace": "default",
        "collection": "docs",
        "object_id": "o",
        "lane": Lane.BULK,
        "url": "https://host/a?…",
        "secret_url": "https://host/a?key=s3cr3t",
        "metadata": '{"a": "ü"}',
        "media_type": "text/plain",
        "idempotency_key": "k",
        "fingerprint": "f",
        "estimated_bytes": 65_536,
    }
    return NewTask(**(fields | changes))  # type: ignore[arg-type] # by name


@pytest.mark.parametrize("kind", list(TaskKind))
def test_an_intent_gives_back_the_task_that_it_was_made_of(kind: TaskKind) -> None:
    store, layout, made = MemoryStore(), Layout("v1", "default", "docs"), task(kind=kind)
    put_intent(store, layout, made, 1_700_000_000.25)
    found = read_value(store, layout.intent("task_1"), Intent)
    assert found is not None
    intent, stored = found
    assert intent.task(intent.secret_url) == made
    assert intent.created == 1_700_000_000.25
    assert stored.key == "v1/default/docs/intents/task_1.json"


def test_prepare_remembers_what_it_stages(tmp_path: Path) -> None:
    with desk(tmp_path) as d:
        made = d.accept("o", url=TEXT, idempotency_key="k", lane="bulk", metadata={"a": 1}, media_type="text/plain")
        prepare.run(d.ctx, FAR)
        found = read_value(d.store, d.layout.staged_record(made), StagedRecord)
        assert found is not None
        record = found[0]
        assert (record.task_id, record.object_id, record.generation, record.run) == (made, "o", 1, 1)
        assert (record.idempotency_key, record.lane, record.kind) == ("k", Lane.BULK, TaskKind.INGEST)
        assert json.loads(record.metadata) == {"a": 1}
        assert d.store.head(d.layout.plan("o", record.source_key, record.spec.hash)).size
        assert json.loads(record.config)["pipeline"]["model_id"] == "fake"
        assert abs(record.created - d.view(made).created_at) < 0.01


@pytest.mark.parametrize(
    ("url", "whole"),
    [("https://host/a", True), ("https://host/a?key=s3cr3t", False), ("https://me:s3cr3t@host/a", False)],
)
def test_a_staged_record_holds_no_secret_and_says_whether_its_url_is_whole(
    tmp_path: Path, url: str, whole: bool
) -> None:
    with desk(tmp_path) as d:
        d.accept("o", url=url)
        lease = d.claim(Stage.PREPARE)
        record = StagedRecord.of(lease, payload(lease), SPEC, 3, "queue", SHA)
        assert record.whole is whole
        assert "s3cr3t" not in dump(record)
        put_staged(d.store, d.layout, record)
        put_staged(d.store, d.layout, record)
        assert read_value(d.store, d.layout.staged_record(lease.task_id), StagedRecord) is not None


def test_a_record_of_a_later_version_is_damaged_not_misread() -> None:
    store = MemoryStore()
    text = dump(Intent.of(task(), 1.0)).replace('"schema_version":1', '"schema_version":2')
    store.put("k", text.encode())
    with pytest.raises(StoreDamaged):
        read_value(store, "k", Intent)


def test_a_collection_is_written_once_and_again_when_it_has_changed(tmp_path: Path) -> None:
    with desk(tmp_path) as d:
        puts: list[str] = []
        memory, put = CollectionMemory(), d.store.put
        d.store.put = lambda key, *how, **more: (puts.append(key), put(key, *how, **more))[1]
        old = d.ledger.get_collection("default", "docs")
        assert old is not None
        new = Collection(namespace="default", name="docs", pipeline=Pipeline(model_id="fake", dtype="fp32"))
        for _ in range(3):
            memory.keep(d.store, d.layout, d.ledger, dump(old))
        assert puts == [d.layout.collection_record()]
        d.ledger.put_collection(new, replace=True)
        # A task that was accepted before the change writes nothing old.
        memory.keep(d.store, d.layout, d.ledger, dump(new))
        memory.keep(d.store, d.layout, d.ledger, dump(old))
        found = read_value(d.store, d.layout.collection_record(), Collection)
        assert found is not None
        assert found[0] == new


def test_layouts_are_all_collections_and_nothing_else() -> None:
    store, settings = MemoryStore(), Settings(s3_prefix="/v1/")
    keys = (
        "v1/a/docs/x",
        "v1/a/docs/y",
        "v1/a/other/x",
        "v1/b/docs/x",
        "v1/_selftest/x/y",
        "v1/ledger.json",
        "v2/a/b/c",
    )
    for key in (*keys, "v1/a/note"):
        store.put(key, b"")
    assert [layout.root for layout in layouts(settings, store)] == ["v1/a/docs", "v1/a/other", "v1/b/docs"]
    everything = Settings(s3_prefix="")
    assert "v2/a" in {layout.root for layout in layouts(everything, store)}


def durable(tmp_path: Path) -> Desk:
    return Desk(tmp_path, durable_accept=True)


def intents(d: Desk) -> list[str]:
    return [key for key in d.store._objects if "/intents/" in key]


def accept(d: Desk, url: str = TEXT, **fields: object) -> str:
    from trivet.accept import accept as take_in
    from trivet.accept import parse_request

    request = parse_request({"url": url, "collection": "docs", **fields})
    return take_in(d.ledger, d.settings, request, store=d.store).task_id


def test_without_the_setting_no_intent_is_written(tmp_path: Path) -> None:
    with desk(tmp_path) as d:
        accept(d)
        assert intents(d) == []


def test_an_intent_is_there_before_the_ledger_is_asked_and_stays_when_it_does_not_answer(tmp_path: Path) -> None:
    d = durable(tmp_path)
    try:
        asked: list[list[str]] = []

        def away(*_: object, **__: object) -> None:
            asked.append(intents(d))
            raise StoreUnavailable("stands for any outage")

        d.ledger.accept = away
        with pytest.raises(StoreUnavailable):
            accept(d)
        assert len(asked[0]) == 1
        assert intents(d) == asked[0]
        assert d.layout.collection_record() in d.store._objects
    finally:
        d.close()


def test_an_intent_that_cannot_be_written_refuses_the_task(tmp_path: Path) -> None:
    d = durable(tmp_path)
    try:
        accept(d)
        before = d.ledger.tasks("default", collection=None, state=None, limit=9)

        def away(*_: object, **__: object) -> None:
            raise StoreUnavailable("S3 does not answer.")

        d.store.put = away
        with pytest.raises(StoreUnavailable):
            accept(d)
        assert d.ledger.tasks("default", collection=None, state=None, limit=9) == before
    finally:
        d.close()


def test_what_the_ledger_refuses_leaves_no_intent(tmp_path: Path) -> None:
    d = durable(tmp_path)
    try:
        made = accept(d, idempotency_key="k")
        assert accept(d, idempotency_key="k") == made
        with pytest.raises(IdempotencyConflict):
            accept(d, url=TEXT + "x", idempotency_key="k")
        with pytest.raises(UnknownCollection):
            accept(d, collection="none")
        assert intents(d) == [d.layout.intent(made)]
    finally:
        d.close()
