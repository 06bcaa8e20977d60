"""A pause leases nothing more, ends nothing, and forgets no place."""

from __future__ import annotations

import pytest

from tests.contract.ledger.desk import CRASH, SHORT, Desk
from trivet.names import Lane, Stage
from trivet.values import Collection, Lease, TaskState

SCOPES = pytest.mark.parametrize("collection", [None, "c"], ids=["namespace", "collection"])


def all_of(desk: Desk, stage: Stage, worker: str = "w") -> list[Lease]:
    return desk.claim(stage, worker, budget=10**9, most=100)


@SCOPES
def test_nothing_of_it_is_leased_at_any_stage(desk: Desk, collection: str | None) -> None:
    ready = desk.staged("ready", shards=1)
    for lease in all_of(desk, Stage.EMBED):
        desk.done(lease)
    staged, queued, deleted = desk.staged("staged", shards=1), desk.accept("queued"), desk.delete("deleted")
    desk.ledger.pause("ns", collection, "a look at it")
    later = desk.accept("later")
    for stage in Stage:
        assert all_of(desk, stage) == []
    assert desk.ledger.paused() == {"ns" if collection is None else "ns/c": "a look at it"}
    assert desk.ledger.resume("ns", collection)
    assert not desk.ledger.resume("ns", collection)
    assert desk.ledger.paused() == {}
    assert {lease.task_id for lease in all_of(desk, Stage.COMMIT)} == {ready, deleted}
    assert [lease.task_id for lease in all_of(desk, Stage.EMBED)] == [staged]
    assert {lease.task_id for lease in all_of(desk, Stage.PREPARE)} == {queued, later}


@SCOPES
def test_suspects_are_held_up_too(desk: Desk, collection: str | None) -> None:
    task_id = desk.staged(shards=2)
    desk.claim(Stage.EMBED, "dead", budget=1000, most=10, lease_seconds=SHORT)
    desk.expire()
    desk.ledger.pause("ns", collection, "")
    for n in range(4):
        assert all_of(desk, Stage.EMBED, f"w{n}") == []
    desk.ledger.resume("ns", collection)
    lease = desk.one(Stage.EMBED, "w", budget=1000, most=10)
    assert (lease.task_id, lease.alone) == (task_id, True)


def test_what_is_leased_goes_on_to_its_next_stage(desk: Desk) -> None:
    task_id = desk.accept()
    lease = desk.one(Stage.PREPARE)
    desk.ledger.pause("ns", None, "")
    assert desk.ledger.heartbeat("w", [lease], lease_seconds=20, roles=[], info="{}") == set()
    desk.stage(lease)
    assert desk.state(task_id) is TaskState.EMBEDDING
    assert all_of(desk, Stage.EMBED) == []
    desk.ledger.resume("ns", None)
    assert len(all_of(desk, Stage.EMBED)) == 2


@pytest.mark.parametrize("stage", ["queued", "embedding"])
def test_work_that_is_held_up_can_be_cancelled(desk: Desk, stage: str) -> None:
    task_id = desk.accept() if stage == "queued" else desk.staged()
    desk.ledger.pause("ns", "c", "")
    assert all_of(desk, Stage.PREPARE) + all_of(desk, Stage.EMBED) == []
    assert desk.ledger.cancel(task_id) is TaskState.CANCELLED
    desk.ledger.resume("ns", "c")
    assert all_of(desk, Stage.PREPARE) + all_of(desk, Stage.EMBED) == []
    assert desk.ledger.backlog().staged_tokens == {}
    assert desk.kinds(task_id)[-1] == "cancelled"


def test_a_task_takes_up_its_place_again(desk: Desk) -> None:
    desk.ledger.put_collection(Collection(namespace="ns", name="d"), replace=False)
    first = [desk.accept(f"c{n}") for n in range(3)]
    desk.ledger.pause("ns", "c", "")
    later = [desk.accept(f"d{n}", collection="d") for n in range(3)]
    assert desk.one(Stage.PREPARE).task_id == later[0]
    desk.ledger.resume("ns", "c")
    order = [desk.one(Stage.PREPARE).task_id for _ in range(5)]
    # Nothing was served before their places; what came later had its own behind them, or beside.
    assert [task for task in order if task in first] == first
    assert order.index(first[0]) <= 1


def test_other_collections_and_namespaces_go_on(desk: Desk) -> None:
    desk.ledger.put_collection(Collection(namespace="ns", name="d"), replace=False)
    desk.accept("a")
    beside, elsewhere = desk.accept("b", collection="d"), desk.accept("a", namespace="other")
    desk.ledger.pause("ns", "c", "")
    assert {lease.task_id for lease in all_of(desk, Stage.PREPARE)} == {beside, elsewhere}


def test_a_pile_of_held_up_work_does_not_hide_what_may_go(desk: Desk) -> None:
    desk.ledger.put_collection(Collection(namespace="ns", name="d"), replace=False)
    desk.ledger.pause("ns", "c", "")
    for n in range(700):
        desk.accept(f"o{n}")
    free = desk.accept("free", collection="d")
    # A claim puts aside some of it at a time.
    assert free in {lease.task_id for _ in range(4) for lease in all_of(desk, Stage.PREPARE)}


def test_a_second_pause_does_not_take_over_what_the_first_holds_up(desk: Desk) -> None:
    desk.ledger.put_collection(Collection(namespace="ns", name="d"), replace=False)
    desk.ledger.pause("ns", "c", "first")
    task_id = desk.accept()
    desk.ledger.pause("ns", "d", "second")
    desk.ledger.resume("ns", "c")
    assert [lease.task_id for lease in all_of(desk, Stage.PREPARE)] == [task_id]


def test_two_pauses_are_lifted_one_by_one(desk: Desk) -> None:
    task_id = desk.accept()
    desk.ledger.pause("ns", "c", "one")
    assert all_of(desk, Stage.PREPARE) == []
    desk.ledger.pause("ns", None, "two")
    desk.ledger.resume("ns", "c")
    assert all_of(desk, Stage.PREPARE) == []
    desk.ledger.pause("ns", "c", "three")
    desk.ledger.resume("ns", None)
    assert all_of(desk, Stage.PREPARE) == []
    desk.ledger.resume("ns", "c")
    assert [lease.task_id for lease in all_of(desk, Stage.PREPARE)] == [task_id]


@pytest.mark.parametrize("how", ["retried", "due", "released", "expired"])
def test_what_comes_back_while_it_is_paused_waits_too(desk: Desk, how: str) -> None:
    task_id = desk.accept()
    lease = desk.one(Stage.PREPARE, lease_seconds=SHORT)
    desk.ledger.pause("ns", "c", "")
    if how == "retried":
        desk.ledger.cancel(task_id)
        desk.ledger.retry(task_id)
    elif how == "due":
        desk.ledger.fail(lease, CRASH, delay_seconds=0, max_attempts=3)
        desk.clock.sleep(0.01)
        desk.sweep()
    elif how == "released":
        desk.ledger.release([lease])
    else:
        assert desk.expire() == 1
    assert all_of(desk, Stage.PREPARE) == []
    desk.ledger.resume("ns", "c")
    assert [lease.task_id for lease in all_of(desk, Stage.PREPARE)] == [task_id]


def test_a_pause_costs_and_earns_no_share(desk: Desk) -> None:
    for n in range(20):
        desk.accept(f"a{n}")
        desk.accept(f"b{n}", namespace="other")
    desk.ledger.pause("ns", None, "")
    for _ in range(10):
        assert desk.one(Stage.PREPARE).namespace == "other"
    desk.ledger.resume("ns", None)
    order = [desk.one(Stage.PREPARE).namespace for _ in range(10)]
    assert 4 <= order.count("ns") <= 6


def test_a_lane_keeps_its_urgency_through_a_pause(desk: Desk) -> None:
    desk.accept("bulk", lane=Lane.BULK)
    desk.accept("urgent", lane=Lane.INTERACTIVE)
    desk.ledger.pause("ns", None, "")
    desk.ledger.resume("ns", None)
    assert desk.one(Stage.PREPARE).object_id == "urgent"


def test_a_pause_of_what_is_not_there_yet_holds_what_comes(desk: Desk) -> None:
    desk.ledger.pause("ns", "c", "")
    desk.accept()
    assert all_of(desk, Stage.PREPARE) == []
