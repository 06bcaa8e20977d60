"""A ledger in Redis that has lost keys, or has more to sweep than one script should: nobody else waits for that."""

from __future__ import annotations

import pytest

from tests.contract.ledger.desk import CRASH, MODEL, SHORT, Desk
from trivet.clock import SystemClock
from trivet.ledger.redis import RedisLedger
from trivet.names import Stage
from trivet.settings import Settings
from trivet.values import Collection, Lease


@pytest.fixture
def desk(settings: Settings) -> Desk:
    made = Desk(RedisLedger(settings), SystemClock())
    made.ledger.put_collection(Collection(namespace="ns", name="c"), replace=False)
    return made


def forget_row(desk: Desk, item: str) -> None:
    """As a server does that throws keys away."""
    ledger = desk.ledger
    assert isinstance(ledger, RedisLedger)
    assert ledger._client.delete(ledger._key("item", item)) == 1


def held(desk: Desk, worker: str) -> list[Lease]:
    return desk.claim(Stage.EMBED, worker, budget=1000, most=10, lease_seconds=SHORT)


def test_items_without_a_row_do_not_stop_those_behind_them(desk: Desk) -> None:
    gone = [desk.accept(f"gone-{n}") for n in range(9)]
    whole = desk.accept("whole")
    for task_id in gone:
        forget_row(desk, f"{task_id}/prepare/0")
    found = [lease.task_id for _ in range(3) for lease in desk.claim(Stage.PREPARE)]
    assert found == [whole]
    assert isinstance(desk.ledger, RedisLedger)
    assert desk.ledger._client.hgetall(desk.ledger._key("waiting", "prepare")) == {}


def test_suspects_without_a_row_take_no_turns(desk: Desk) -> None:
    gone, whole = desk.staged("gone", shards=1), desk.staged("whole", shards=1)
    held(desk, "dead")
    desk.expire()
    forget_row(desk, f"{gone}/embed/0")
    assert [lease.task_id for n in range(2) for lease in held(desk, f"w{n}")] == [whole]
    assert isinstance(desk.ledger, RedisLedger)
    assert desk.ledger._client.zcard(desk.ledger._key("suspects", "embed", MODEL.encoder_key)) == 0


@pytest.mark.parametrize("how", ["expiry", "farewell"])
def test_what_else_a_worker_held_is_leased_again_although_a_row_is_gone(desk: Desk, how: str) -> None:
    gone, whole = desk.staged("gone", shards=1), desk.staged("whole", shards=1)
    assert len(held(desk, "w0")) == 2
    forget_row(desk, f"{gone}/embed/0")
    if how == "expiry":
        desk.expire()
    else:
        desk.ledger.farewell("w0")
    assert [lease.task_id for n in range(2) for lease in held(desk, f"v{n}")] == [whole]
    assert isinstance(desk.ledger, RedisLedger)
    assert desk.ledger._client.exists(desk.ledger._key("held", "w0")) == 0


def test_more_than_one_sweep_takes_on_is_said(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trivet.ledger.redis._SWEEP_LIMIT", 2)
    for n in range(3):
        desk.accept(f"o{n}")
        desk.ledger.fail(desk.one(Stage.PREPARE), CRASH, delay_seconds=0.001, max_attempts=3)
    desk.clock.sleep(0.02)
    options = {"lease_seconds": SHORT, "max_expiries": 5, "retention_seconds": 1000.0, "error": CRASH}
    found = [desk.ledger.sweep(**options) for _ in range(3)]  # type: ignore[arg-type]  # test input
    assert [(swept.due, swept.more) for swept in found] == [(2, True), (1, False), (0, False)]


def test_who_is_alive_is_said_by_the_servers_clock(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.ledger.heartbeat("w", [], lease_seconds=20, roles=[Stage.EMBED], info="{}")
    monkeypatch.setattr("time.time", lambda: 0.0)
    before = desk.ledger.backlog().workers["w"]["seen_seconds"]
    monkeypatch.setattr("time.time", lambda: 1e12)
    assert before < 30 > desk.ledger.backlog().workers["w"]["seen_seconds"]
