"""A ledger of a newer Trivet is left as it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.contract.ledger.desk import CRASH, SPEC, Desk
from trivet.clock import SystemClock
from trivet.errors import LedgerSchema
from trivet.ledger.redis import RedisLedger
from trivet.names import Stage
from trivet.settings import Settings
from trivet.values import Collection, Part, Receipt, TaskState

PART = Part(shard=0, key="k", sha256="s", bytes=1, rows=1, tokens=1, input_hash="h")


def content(ledger: RedisLedger) -> dict[str, bytes]:
    """Every key with all that it holds."""
    client = ledger._client
    return {key: client.execute_command("DUMP", key, NEVER_DECODE=True) for key in client.scan_iter(ledger._key("*"))}


def test_no_script_touches_it(settings: Settings) -> None:
    ledger = RedisLedger(settings)
    ledger.put_collection(Collection(namespace="ns", name="c"), replace=False)
    desk = Desk(ledger, SystemClock())
    failed = desk.failed("failed")
    task_id, _ = desk.accept("a"), desk.accept("b")
    lease = desk.one(Stage.PREPARE)
    ledger.pause("ns", "c", "")
    ledger._client.set(ledger._key("schema"), "3")
    before = content(ledger)
    crash = {"delay_seconds": 0.0, "max_attempts": 3}
    calls: list[Callable[[], object]] = [
        lambda: desk.accept("c"),
        lambda: desk.claim(Stage.PREPARE),
        lambda: ledger.heartbeat("w", [lease], lease_seconds=9, roles=[Stage.PREPARE], info="{}"),
        lambda: ledger.release([lease]),
        lambda: ledger.farewell("w"),
        lambda: ledger.allocate(lease, 0, SPEC),
        lambda: ledger.take_generation(lease, 0),
        lambda: ledger.stage(lease, "q", "s", [(1, "h")], pages=1, chunks=1, fetched_bytes=1),
        lambda: ledger.shard_done(lease, PART, ""),
        lambda: ledger.committing(lease),
        lambda: ledger.restage(lease, 0),
        lambda: ledger.finish(lease, TaskState.SKIPPED, manifest="", receipt=Receipt()),
        lambda: ledger.fail(lease, CRASH, **crash),  # type: ignore[arg-type]  # two of its arguments
        lambda: ledger.cancel(task_id),
        lambda: desk.sweep(),
        lambda: ledger.retry(failed),
        lambda: ledger.why(task_id),
        lambda: ledger.resume("ns", "c"),
        lambda: ledger.answer(Stage.PREPARE, "any", "1", again=True),
    ]
    for call in calls:
        with pytest.raises(LedgerSchema, match="has schema 3, and this process knows schema 2") as refused:
            call()
        assert "Update this process" in refused.value.hint
    assert content(ledger) == before
