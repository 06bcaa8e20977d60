"""What is told, how often, and for how long it is kept."""

from __future__ import annotations

import uuid

from tests.contract.ledger.desk import CRASH, PROGRESS, SHORT, Desk
from trivet.clock import SystemClock
from trivet.ids import EVENT_NAMESPACE
from trivet.ledger.redis import RedisLedger
from trivet.names import Stage
from trivet.settings import Settings
from trivet.values import Collection


def test_progress_is_told_at_most_once_in_its_time(desk: Desk) -> None:
    task_id = desk.staged(shards=7, tokens=10)
    leases = desk.claim(Stage.EMBED, budget=10_000, most=10)
    for n, lease in enumerate(leases):
        if n in (2, 5):
            desk.clock.sleep(1.1 * PROGRESS)
        desk.done(lease)
    told = [event for event in desk.events(task_id) if event.type == "trivet.ingest.progress"]
    assert [event.data["shards_done"] for event in told] == [3, 6]
    figures = {"shards": 7, "shards_done": 3, "tokens": 70, "tokens_done": 30, "state": "embedding"}
    assert {name: told[0].data[name] for name in figures} == figures
    assert told[0].id == str(uuid.uuid5(EVENT_NAMESPACE, f"{task_id}/1/ingest.progress/3"))
    assert len({event.id for event in desk.events(task_id)}) == len(desk.events(task_id))


def test_the_last_shard_is_told_by_the_end_alone(desk: Desk) -> None:
    task_id = desk.staged(shards=1)
    desk.clock.sleep(1.1 * PROGRESS)
    desk.done(desk.one(Stage.EMBED))
    assert desk.kinds(task_id) == ["accepted", "started"]


def test_a_retried_task_tells_progress_with_other_ids(desk: Desk) -> None:
    task_id = desk.staged(shards=3, tokens=10)
    for run in range(2):
        leases = desk.claim(Stage.EMBED, budget=10_000, most=10)
        desk.clock.sleep(1.1 * PROGRESS)
        desk.done(leases[0])
        if run == 0:
            desk.ledger.cancel(task_id)
            desk.ledger.retry(task_id)
            desk.stage(desk.one(Stage.PREPARE), shards=3, tokens=10)
    events = desk.events(task_id)
    assert desk.kinds(task_id).count("progress") == 2
    assert len({event.id for event in events}) == len(events)


def test_dead_lettered_is_told_after_failed_where_attempts_or_expiries_are_used_up(desk: Desk) -> None:
    wrong = desk.failed("wrong")
    used_up = desk.failed("used up", error=CRASH)
    crashes = desk.staged("crashes", shards=1)
    for n in range(3):
        desk.claim(Stage.EMBED, f"w{n}", lease_seconds=SHORT)
        desk.expire(max_expiries=2)
    assert desk.kinds(wrong) == ["accepted", "failed"]
    assert desk.kinds(used_up) == ["accepted", "failed", "dead_lettered"]
    assert desk.kinds(crashes) == ["accepted", "started", "failed", "dead_lettered"]
    assert {event.data["error"]["code"] for event in desk.events(crashes)[2:]} == {"worker_crashed"}


def swept_often(desk: Desk, rounds: int = 6) -> int:
    """Tell 600 events with a sweep after each hundred; returns how many the stream still has."""
    ledger = desk.ledger
    assert isinstance(ledger, RedisLedger)
    ledger.put_collection(Collection(namespace="ns", name="c"), replace=False)
    for _ in range(rounds):
        for _ in range(50):
            ledger.cancel(desk.accept())
        desk.sweep()
    return int(ledger._client.xlen(ledger._key("events")))


def test_the_stream_is_cut_to_its_length(settings: Settings) -> None:
    ledger = RedisLedger(settings.model_copy(update={"event_stream_length": 100}))
    assert 100 <= swept_often(Desk(ledger, SystemClock())) <= 400


def test_the_stream_is_never_cut_before_what_a_group_has_to_read_or_to_acknowledge(settings: Settings) -> None:
    ledger = RedisLedger(settings.model_copy(update={"event_stream_length": 100}))
    desk, client, stream = Desk(ledger, SystemClock()), ledger._client, ledger._key("events")
    client.xgroup_create(stream, "behind", id="0", mkstream=True)
    client.xgroup_create(stream, "ahead", id="0")
    assert swept_often(desk) == 600
    read = client.xreadgroup("behind", "me", {stream: ">"}, count=600)
    pages = list(read.values()) if isinstance(read, dict) else [entries for _, entries in read]
    entries = pages[0][0] if isinstance(pages[0][0], list) else pages[0]
    ids = [entry_id for entry_id, _ in entries]
    assert len(ids) == 600
    client.xreadgroup("ahead", "me", {stream: ">"}, count=600, noack=True)
    assert swept_often(desk, 1) == 700
    client.xack(stream, "behind", *ids[:550])
    left = swept_often(desk, 1)
    assert 250 <= left < 700
    assert client.xrange(stream, ids[550], ids[550])
