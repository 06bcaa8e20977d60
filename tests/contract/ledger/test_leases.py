"""Who holds what, for how long, and who is blamed."""

from __future__ import annotations

import itertools
import json

import pytest

from tests.contract.ledger.desk import CRASH, MODEL, SHORT, SPEC, Desk
from trivet.errors import LeaseLost
from trivet.names import Stage
from trivet.values import ErrorRecord, Receipt, TaskState


def test_a_stale_epoch_is_refused_everywhere(desk: Desk) -> None:
    desk.accept()
    stale = desk.one(Stage.PREPARE, lease_seconds=SHORT)
    assert desk.expire() == 1
    fresh = desk.one(Stage.PREPARE, "w2")
    assert fresh.item == stale.item
    for attempt in (
        lambda: desk.ledger.allocate(stale, 0, SPEC),
        lambda: desk.stage(stale),
        lambda: desk.done(stale),
        lambda: desk.ledger.committing(stale),
        lambda: desk.ledger.restage(stale, 0),
        lambda: desk.ledger.finish(stale, TaskState.SKIPPED, manifest="", receipt=Receipt()),
        lambda: desk.ledger.fail(stale, CRASH, delay_seconds=0, max_attempts=3),
    ):
        with pytest.raises(LeaseLost):
            attempt()
    desk.ledger.release([stale])
    assert desk.ledger.heartbeat("w", [stale], lease_seconds=20, roles=[], info="{}") == {stale.item}
    assert desk.ledger.heartbeat("w2", [fresh], lease_seconds=20, roles=[], info="{}") == set()


def test_a_heartbeat_keeps_a_lease(desk: Desk) -> None:
    desk.accept()
    lease = desk.one(Stage.PREPARE, lease_seconds=SHORT)
    for _ in range(3):
        desk.clock.sleep(SHORT / 2)
        assert desk.ledger.heartbeat("w", [lease], lease_seconds=SHORT, roles=[], info="{}") == set()
        assert desk.sweep() == 0


def test_a_release_charges_nothing_and_keeps_the_place(desk: Desk) -> None:
    first, second = desk.accept("a"), desk.accept("b")
    for _ in range(10):
        lease = desk.one(Stage.PREPARE)
        assert (lease.task_id, lease.attempts) == (first, 0)
        desk.ledger.release([lease])
    desk.one(Stage.PREPARE)
    assert desk.one(Stage.PREPARE).task_id == second


def test_a_farewell_gives_everything_back(desk: Desk) -> None:
    desk.staged(shards=3)
    assert len(desk.claim(Stage.EMBED, "gone", budget=1000, most=10)) == 3
    assert desk.ledger.farewell("gone") == 3
    assert len(desk.claim(Stage.EMBED, "w2", budget=1000, most=10)) == 3


def test_errors_are_charged_and_the_third_fails_the_task(desk: Desk) -> None:
    task_id = desk.accept()
    for attempt in range(3):
        lease = desk.one(Stage.PREPARE)
        assert lease.attempts == attempt
        outcome = desk.ledger.fail(lease, CRASH, delay_seconds=0.01, max_attempts=3)
        desk.clock.sleep(0.05)
        desk.sweep()
    assert outcome == "failed"
    assert desk.state(task_id) is TaskState.FAILED
    assert desk.kinds(task_id) == ["accepted", "failed", "dead_lettered"]
    assert [event.data["error"]["code"] for event in desk.events(task_id)[1:]] == ["worker_crashed"] * 2


def test_a_retry_waits_its_delay(desk: Desk) -> None:
    task_id = desk.accept()
    desk.ledger.fail(desk.one(Stage.PREPARE), CRASH, delay_seconds=0.3, max_attempts=3)
    desk.sweep()
    assert desk.claim(Stage.PREPARE) == []
    assert "tried again" in desk.ledger.task(task_id).reason  # type: ignore[union-attr]  # the task is there
    desk.clock.sleep(0.35)
    desk.sweep()
    assert desk.one(Stage.PREPARE).task_id == task_id


def test_a_permanent_error_fails_at_once(desk: Desk) -> None:
    task_id = desk.accept()
    error = ErrorRecord(code="source_not_found", message="404", transient=False)
    assert desk.ledger.fail(desk.one(Stage.PREPARE), error, delay_seconds=9, max_attempts=3) == "failed"
    assert desk.kinds(task_id) == ["accepted", "failed"]


def test_one_failed_shard_ends_its_task_and_leaves_others_alone(desk: Desk) -> None:
    bad, good = desk.staged("bad"), desk.staged("good")
    leases = desk.claim(Stage.EMBED, budget=1000, most=10)
    broken = next(lease for lease in leases if lease.task_id == bad)
    permanent = ErrorRecord(code="x", message="no")
    desk.ledger.fail(broken, permanent, delay_seconds=0, max_attempts=3)
    for lease in leases:
        if lease.task_id == good:
            desk.done(lease)
        elif lease != broken:
            with pytest.raises(LeaseLost):
                desk.done(lease)
    desk.commit()
    assert (desk.state(bad), desk.state(good)) == (TaskState.FAILED, TaskState.COMPLETED)
    assert desk.ledger.backlog().staged_tokens == {}


def test_a_crash_among_others_charges_nobody_and_has_each_leased_alone(desk: Desk) -> None:
    desk.staged(shards=3)
    assert len(desk.claim(Stage.EMBED, "dead", budget=1000, most=10, lease_seconds=SHORT)) == 3
    assert desk.expire(max_expiries=1) == 3
    for n in range(3):
        (lease,) = desk.claim(Stage.EMBED, f"w{n}", budget=1000, most=10)
        assert lease.alone
        assert desk.claim(Stage.EMBED, f"w{n}", budget=1000, most=10) == []
        desk.done(lease)
    assert desk.one(Stage.COMMIT)


def test_an_item_that_kills_alone_fails_after_the_cap_and_its_neighbours_live(desk: Desk) -> None:
    poison, healthy = desk.staged("poison", shards=1), desk.staged("healthy", shards=1)
    worker = itertools.count()
    for _ in range(12):
        leases = desk.claim(Stage.EMBED, f"w{next(worker)}", budget=1000, most=10, lease_seconds=SHORT)
        if any(lease.task_id == poison for lease in leases):
            desk.expire(max_expiries=2)  # the whole process dies with all that it holds
        else:
            for lease in leases:
                desk.done(lease)
    assert desk.state(poison) is TaskState.FAILED
    assert desk.state(healthy) is TaskState.EMBEDDING
    assert desk.one(Stage.COMMIT).task_id == healthy


def test_many_that_a_dead_worker_held_are_leased_again_a_quarter_at_a_time(desk: Desk) -> None:
    desk.staged(shards=40)
    assert len(desk.claim(Stage.EMBED, "w0", budget=10_000, most=100, lease_seconds=SHORT)) == 40
    assert desk.expire(max_expiries=1) == 40
    first = desk.claim(Stage.EMBED, "w1", budget=10_000, most=100, lease_seconds=SHORT)
    assert (len(first), {lease.alone for lease in first}) == (10, {True})
    assert len(desk.claim(Stage.EMBED, "w2", budget=350, most=100)) == 3, "the budget holds for suspects too"
    assert desk.expire(max_expiries=1) == 10
    sizes = [len(desk.claim(Stage.EMBED, f"v{n}", budget=10_000, most=100)) for n in range(12)]
    assert sum(sizes) == 37
    assert max(sizes) <= 10, "nobody is leased with more than before"
    assert [size for size in sizes if size <= 3], "those whose second worker died stand almost alone"


def test_suspects_wait_no_longer_than_a_turn_for_a_worker_that_claims_ahead(desk: Desk) -> None:
    suspect = desk.staged("suspect", shards=1)
    desk.claim(Stage.EMBED, "dead", lease_seconds=SHORT)
    desk.expire()
    for n in range(20):
        desk.staged(f"normal-{n}", shards=1)
    held = desk.claim(Stage.EMBED, "busy")
    order: list[str] = []
    while suspect not in order and len(order) < 20:
        ahead = desk.claim(Stage.EMBED, "busy")
        for lease in held:
            desk.done(lease)
            order.append(lease.task_id)
        held = ahead or desk.claim(Stage.EMBED, "busy")
    assert order.index(suspect) <= 4


def test_a_poison_among_forty_is_found_and_blames_nobody_else(desk: Desk) -> None:
    poison = desk.staged("poison", shards=1)
    healthy = [desk.staged(f"healthy-{n}", shards=1) for n in range(39)]
    for n in range(60):
        leases = desk.claim(Stage.EMBED, f"w{n}", budget=10_000, most=100, lease_seconds=SHORT)
        if any(lease.task_id == poison for lease in leases):
            desk.expire(max_expiries=2)
        for lease in leases if not any(lease.task_id == poison for lease in leases) else ():
            desk.done(lease)
        if desk.state(poison) is TaskState.FAILED:
            break
    assert desk.state(poison) is TaskState.FAILED
    while leases := desk.claim(Stage.EMBED, "last", budget=10_000, most=100):
        for lease in leases:
            desk.done(lease)
    assert {lease.task_id for lease in desk.claim(Stage.COMMIT, "c", budget=100, most=100)} == set(healthy)


@pytest.mark.parametrize(("parent_lives", "deaths"), [(True, 2), (False, 8)])
def test_who_dies_with_its_parent_is_charged_a_quarter(desk: Desk, parent_lives: bool, deaths: int) -> None:
    task_id = desk.accept()
    for n in range(deaths):
        assert desk.state(task_id) is not TaskState.FAILED
        worker, info = f"child-{n}", json.dumps({"roles": ["prepare"], "parent": f"main-{'' if parent_lives else n}"})
        lease = desk.one(Stage.PREPARE, worker, lease_seconds=SHORT)
        desk.ledger.heartbeat(worker, [lease], lease_seconds=SHORT, roles=[Stage.PREPARE], info=info)
        for _ in range(8):
            desk.clock.sleep(SHORT / 5)
            if parent_lives:
                desk.ledger.heartbeat("sibling", [], lease_seconds=SHORT, roles=[Stage.PREPARE], info=info)
            desk.sweep(max_expiries=2)
    assert desk.state(task_id) is TaskState.FAILED


def test_an_outage_charges_nothing_until_patience_is_over(desk: Desk) -> None:
    task_id = desk.accept()
    for attempt in range(8):
        lease = desk.one(Stage.PREPARE)
        assert lease.attempts == 0
        patience = 60.0 if attempt < 7 else 0.01
        outcome = desk.ledger.fail(lease, CRASH, delay_seconds=0.002, max_attempts=2, patience_seconds=patience)
        desk.clock.sleep(0.02)
        desk.sweep()
    assert outcome == "failed"
    assert desk.state(task_id) is TaskState.FAILED


def test_what_waits_in_line_between_two_outages_costs_no_patience(desk: Desk) -> None:
    task_id = desk.accept()
    for _ in range(2):
        outcome = desk.ledger.fail(
            desk.one(Stage.PREPARE), CRASH, delay_seconds=0.01, max_attempts=2, patience_seconds=0.5
        )
        assert outcome == "retry"
        desk.clock.sleep(0.02)
        desk.sweep()
        # Paused, or behind others, for longer than anybody has patience.
        desk.clock.sleep(0.7)
    assert not desk.state(task_id).terminal


def test_leases_that_ran_out_while_nobody_swept_are_not_blamed(desk: Desk) -> None:
    desk.staged(shards=3)
    leases = desk.claim(Stage.EMBED, budget=1000, most=10, lease_seconds=SHORT)
    desk.sweep()
    desk.clock.sleep(SHORT * 3)  # the ledger was away: nobody could keep a lease, and nobody swept
    assert desk.sweep() == 0
    assert desk.ledger.heartbeat("w", leases, lease_seconds=SHORT, roles=[], info="{}") == set()


def test_suspects_are_served_while_two_queues_are_full(desk: Desk) -> None:
    suspect = desk.staged("suspect", shards=1)
    desk.claim(Stage.EMBED, "dead", budget=1000, most=10, lease_seconds=SHORT)
    desk.expire()
    queues = [MODEL.encoder_key, f"{MODEL.encoder_key}.fp32"]
    served = []
    for n in range(12):
        for queue in queues:
            desk.accept(f"{n}-{queue}")
            lease = desk.one(Stage.PREPARE)
            desk.ledger.allocate(lease, 0, SPEC)
            desk.ledger.stage(lease, queue, "sha", [(100, "h")], pages=1, chunks=1, fetched_bytes=1)
    for n in range(8):
        found = desk.claim(Stage.EMBED, f"w{n}", queues=queues, budget=100, most=10)
        served += [lease.task_id for lease in found]
    assert suspect in served
