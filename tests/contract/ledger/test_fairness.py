"""Who goes first."""

from __future__ import annotations

from tests.contract.ledger.desk import MODEL, SPEC, Desk
from trivet.ledger.memory import MemoryLedger
from trivet.names import Lane, Stage
from trivet.values import Collection, Pipeline, TaskState


def test_more_models_give_a_namespace_no_more_of_prepare(desk: Desk) -> None:
    for n in range(5):
        pipeline = Pipeline(model_id=f"model-{n}")
        desk.ledger.put_collection(Collection(namespace="other", name=f"c{n}", pipeline=pipeline), replace=False)
    for n in range(60):
        desk.accept(f"g{n}", namespace="other", collection=f"c{n % 5}")
        desk.accept(f"o{n}")
    first = [desk.one(Stage.PREPARE).namespace for _ in range(40)]
    assert 18 <= first.count("ns") <= 22


def test_a_lane_counts_across_queues(desk: Desk) -> None:
    queues = [MODEL.encoder_key, f"{MODEL.encoder_key}.fp32"]
    for n in range(20):
        for queue, lane in zip(queues, (Lane.INTERACTIVE, Lane.BULK), strict=True):
            desk.accept(f"{n}-{lane}", lane=lane)
            lease = desk.one(Stage.PREPARE)
            desk.ledger.allocate(lease, 0, SPEC)
            desk.ledger.stage(lease, queue, "sha", [(100, "h")], pages=1, chunks=1, fetched_bytes=1)
    objects = [desk.one(Stage.EMBED, queues=queues).object_id for _ in range(15)]
    assert sum(object_id.endswith("bulk") for object_id in objects) <= 2


def test_a_retried_shard_does_not_turn_the_clock_back(desk: Desk) -> None:
    desk.staged("big", shards=60, tokens=1000)
    first = desk.one(Stage.EMBED)
    for _ in range(30):
        desk.done(desk.one(Stage.EMBED))
    desk.ledger.release([first])
    assert desk.one(Stage.EMBED).item == first.item
    small = desk.staged("small", shards=1, tokens=10)
    before = [desk.one(Stage.EMBED).task_id for _ in range(3)]
    assert small in before
    late = desk.staged("late", shards=1, tokens=20_000)
    assert late not in [desk.one(Stage.EMBED).task_id for _ in range(10)]


def test_an_encoder_that_nobody_serves_stops_only_its_own_tasks(desk: Desk) -> None:
    pinned = Collection(namespace="ns", name="pinned", pipeline=Pipeline(dtype="bf16"))
    desk.ledger.put_collection(pinned, replace=False)
    desk.staged("a", shards=2, tokens=500, collection="pinned")
    blocked, free = desk.accept("b", collection="pinned"), desk.accept("c")
    assert [lease.task_id for lease in desk.claim(Stage.PREPARE, budget=10**9, most=9, max_staged_tokens=900)] == [free]
    assert desk.state(blocked) is TaskState.QUEUED


def test_an_interactive_task_goes_before_a_thousand_bulk_ones(desk: Desk) -> None:
    for n in range(1000 if isinstance(desk.ledger, MemoryLedger) else 300):
        desk.accept(f"b{n}", lane=Lane.BULK)
    for _ in range(20):
        desk.one(Stage.PREPARE)
    urgent = desk.accept("urgent", lane=Lane.INTERACTIVE)
    assert urgent in {desk.one(Stage.PREPARE).task_id for _ in range(2)}


def test_a_namespace_that_dumps_does_not_delay_another(desk: Desk) -> None:
    for n in range(200):
        desk.accept(f"d{n}")
    for _ in range(50):
        desk.one(Stage.PREPARE)
    late = desk.accept("one", namespace="other")
    assert late in {desk.one(Stage.PREPARE).task_id for _ in range(2)}


def test_a_small_object_does_not_wait_for_a_big_one(desk: Desk) -> None:
    desk.staged("big", shards=100, tokens=4000)
    for _ in range(3):
        desk.claim(Stage.EMBED, budget=4000, most=10)
    small = desk.staged("small", shards=1, tokens=50)
    assert small in {lease.task_id for lease in desk.claim(Stage.EMBED, budget=8000, most=10)}


def test_a_claim_fills_its_budget_past_a_shard_that_does_not_fit(desk: Desk) -> None:
    desk.staged("a", shards=1, tokens=600)
    desk.staged("b", shards=1, tokens=700)
    desk.staged("c", shards=1, tokens=300)
    costs = [lease.cost for lease in desk.claim(Stage.EMBED, budget=1000, most=10)]
    assert sum(costs) <= 1000
    assert len(costs) == 2


def test_prepare_pauses_while_too_many_tokens_are_staged(desk: Desk) -> None:
    desk.staged("a", shards=2, tokens=500)
    desk.accept("b")
    assert desk.claim(Stage.PREPARE, max_staged_tokens=999) == []
    assert len(desk.claim(Stage.PREPARE, max_staged_tokens=1000)) == 1
