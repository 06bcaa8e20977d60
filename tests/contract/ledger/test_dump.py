"""A namespace that dumps its objects delays another's single one by no more than two batches."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.ledger.desk import MODEL, SPEC, Desk
from trivet.names import Lane, Stage

OBJECTS = 3000
BATCH = 16_384
LANES = pytest.mark.parametrize(
    ("dump", "single"),
    [(Lane.NORMAL, Lane.INTERACTIVE), (Lane.BULK, Lane.NORMAL), (Lane.NORMAL, Lane.NORMAL)],
    ids=["normal-interactive", "bulk-normal", "normal-normal"],
)


def batches_until(desk: Desk, task_id: str, stage: Stage, **how: Any) -> int:
    """Batches that others get before the task has one."""
    for batch in range(10):
        if task_id in {lease.task_id for lease in desk.claim(stage, **how)}:
            return batch
    raise AssertionError("ten batches went by")


@LANES
def test_at_prepare(desk: Desk, dump: Lane, single: Lane) -> None:
    # A heavy namespace is a burden within its lane; an urgent lane stands above it.
    desk.ledger.set_weight("ns", 1.0 if dump is single else 4.0)
    for n in range(OBJECTS):
        desk.accept(f"o{n}", lane=dump)
    for _ in range(20):
        desk.one(Stage.PREPARE)
    for n in range(3):
        urgent = desk.accept(f"one{n}", namespace="other", lane=single)
        assert batches_until(desk, urgent, Stage.PREPARE) <= 2


@LANES
def test_at_embed(desk: Desk, dump: Lane, single: Lane) -> None:
    # One object of 3,000 shards stands for 3,000 objects: to its queue they are the same.
    desk.staged("dump", shards=OBJECTS, tokens=1000, lane=dump)
    for _ in range(20):
        assert len(desk.claim(Stage.EMBED, budget=BATCH, most=512)) == BATCH // 1000
    for n in range(3):
        urgent = desk.accept(f"one{n}", namespace="other", lane=single)
        lease = desk.one(Stage.PREPARE)
        assert lease.task_id == urgent
        desk.ledger.allocate(lease, 0, SPEC)
        work = [(700, "h")]
        desk.ledger.stage(lease, MODEL.encoder_key, "s", work, pages=1, chunks=1, fetched_bytes=900_000)
        assert batches_until(desk, urgent, Stage.EMBED, budget=BATCH, most=512) <= 2


def test_weights_share_what_two_namespaces_ask_for(desk: Desk) -> None:
    desk.ledger.set_weight("ns", 3)
    for n in range(60):
        desk.accept(f"a{n}")
        desk.accept(f"b{n}", namespace="other")
    first = [desk.one(Stage.PREPARE).namespace for _ in range(40)]
    assert 28 <= first.count("ns") <= 32
    desk.ledger.set_weight("ns", 1)
    later = [desk.one(Stage.PREPARE).namespace for _ in range(20)]
    assert 8 <= later.count("ns") <= 12


def test_lanes_share_eight_to_one_and_starve_nobody(desk: Desk) -> None:
    for n in range(200):
        for lane in Lane:
            desk.accept(f"{lane}{n}", lane=lane)
    first = [desk.one(Stage.PREPARE).object_id.rstrip("0123456789") for _ in range(146)]
    assert {lane: first.count(lane) for lane in Lane} == pytest.approx(
        {Lane.INTERACTIVE: 128, Lane.NORMAL: 16, Lane.BULK: 2}, abs=2
    )
