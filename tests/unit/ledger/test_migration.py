"""A ledger of the first schema, as its scripts wrote it, is migrated in one step and goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.contract.ledger.desk import MODEL, Desk
from trivet.clock import SystemClock
from trivet.errors import LedgerSchema
from trivet.faults import arm, disarm
from trivet.ledger.migration import Migration
from trivet.ledger.redis import RedisLedger
from trivet.names import Stage
from trivet.settings import Settings
from trivet.values import Collection, TaskState, dump

TASKS = 3
COLLECTION = Collection(namespace="ns", name="c")


@pytest.fixture
def desk(settings: Settings) -> Desk:
    """A ledger of schema 1 with three queued tasks, of which the first has a URL with a query."""
    ledger = RedisLedger(settings)
    client, key = ledger._client, ledger._key
    client.hset(key("collections", "ns"), "c", dump(COLLECTION))
    flow, queue = "1|ns", MODEL.requested
    for n in range(TASKS):
        task = f"task_{n:032x}"
        item = f"{task}/prepare/0"
        row = {
            "namespace": "ns",
            "collection": "c",
            "object": f"o{n}",
            "lane": "normal",
            "url": "https://host/path?…",
            "metadata": "{}",
            "media_type": "",
            "run": 1,
            "created": 1_700_000_000_000 + n,
            "config": dump(COLLECTION),
            "model": MODEL.requested,
            "cost": 1000,
            "state": "queued",
            "updated": 1_700_000_000_000 + n,
        }
        client.hset(key("task", task), mapping=row)
        client.zadd(key("tasks", "ns"), {task: 1_700_000_000_000 + n})
        client.hset(key("object", "ns", "c", f"o{n}"), "active", task)
        client.hincrby(key("states"), "queued", 1)
        work = {"stage": "prepare", "queue": queue, "flow": flow, "tag": 1000, "cost": 1000}
        client.hset(key("item", item), mapping={**work, "attempts": 0, "expiries": 0, "state": "pending", "epoch": 0})
        client.zadd(key("line", "prepare", flow, queue), {item: 1000})
        client.hincrby(key("waiting", "prepare"), queue, 1)
    client.sadd(key("lines", "prepare", flow), queue)
    client.zadd(key("vt", "prepare"), {flow: 0})
    client.set(key("url", f"task_{0:032x}"), "https://host/path?token=hidden")
    return Desk(ledger, SystemClock())


@pytest.fixture
def migration(settings: Settings) -> Iterator[Migration]:
    yield Migration(settings)
    disarm()


def finish_all(desk: Desk) -> list[str]:
    """Every task through all stages; returns the URLs that prepare was given."""
    urls = []
    for lease in desk.claim(Stage.PREPARE, budget=10**6, most=10):
        payload = json.loads(lease.payload)
        assert Collection.model_validate_json(payload["config"]) == COLLECTION
        urls.append(payload["url"])
        desk.stage(lease)
    for lease in desk.claim(Stage.EMBED, budget=10**6, most=10):
        desk.done(lease)
    for _ in urls:
        desk.commit()
    return urls


def test_an_old_ledger_is_refused_until_it_is_migrated_and_then_goes_on(desk: Desk, migration: Migration) -> None:
    with pytest.raises(LedgerSchema, match="schema 1") as refused:
        desk.accept()
    assert refused.value.hint == "Run: trivet migrate"
    assert migration.version() == "1"
    assert migration.run() == ("1", TASKS)
    assert migration.run() == ("2", 0)
    urls = finish_all(desk)
    assert urls == ["https://host/path?token=hidden", "https://host/path?…", "https://host/path?…"]
    views = desk.ledger.tasks("ns", collection=None, state=None, limit=10)
    assert {view.state for view in views} == {TaskState.COMPLETED}
    assert [view.task_id for view in views] == [f"task_{n:032x}" for n in reversed(range(TASKS))]
    assert desk.ledger.backlog().states == {"completed": TASKS}


def test_tasks_of_one_pipeline_share_its_text_and_know_of_their_urls(desk: Desk, migration: Migration) -> None:
    migration.run()
    assert isinstance(desk.ledger, RedisLedger)
    client, key = desk.ledger._client, desk.ledger._key
    rows = [client.hmget(key("task", f"task_{n:032x}"), "config", "secret") for n in range(TASKS)]
    assert len({config for config, _ in rows}) == 1
    assert client.get(key("config", rows[0][0])) == dump(COLLECTION)
    assert [secret for _, secret in rows] == ["1", None, None]
    assert client.smembers(key("namespaces")) == {"ns"}


@pytest.mark.parametrize("place", ["migrate.before_page", "migrate.before_version"])
def test_a_migration_that_was_cut_short_refuses_everybody_and_is_taken_up_again(
    desk: Desk, migration: Migration, place: str
) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    arm(place, die)
    with pytest.raises(KeyboardInterrupt):
        migration.run()
    assert migration.version() == "migrating 1"
    calls: list[Callable[[], object]] = [desk.accept, lambda: desk.claim(Stage.PREPARE), desk.sweep]
    for call in calls:
        with pytest.raises(LedgerSchema, match="being migrated") as refused:
            call()
        assert "takes it up again" in refused.value.hint
    disarm()
    began, rewritten = migration.run()
    assert (began, rewritten) == ("1", TASKS if place == "migrate.before_page" else 0)
    assert len(finish_all(desk)) == TASKS


def test_a_newer_ledger_is_left_alone(desk: Desk, migration: Migration) -> None:
    assert isinstance(desk.ledger, RedisLedger)
    desk.ledger._client.set(desk.ledger._key("schema"), "3")
    with pytest.raises(LedgerSchema, match="schema 3") as refused:
        migration.run()
    assert "Update this process" in refused.value.hint
    assert migration.version() == "3"


def test_a_fresh_ledger_needs_no_migration(settings: Settings) -> None:
    assert Migration(settings).run() == ("2", 0)
