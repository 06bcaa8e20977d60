"""What becomes of a work item that failed."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.stages.desk import desk
from trivet.errors import (
    CorruptDocument,
    EncoderOutOfMemory,
    LeaseLost,
    LedgerUnavailable,
    SourceUnavailable,
    StoreDamaged,
    StoreForbidden,
    StoreUnavailable,
    TransientError,
)
from trivet.ledger.memory import MemoryLedger
from trivet.names import Stage
from trivet.retry import FOREVER_SECONDS, decide
from trivet.settings import Settings
from trivet.stages.keeper import LeaseKeeper
from trivet.values import ErrorRecord, Lease, dump

SETTINGS = Settings()


class Recorder(MemoryLedger):
    """Says what it was told about failed items, and raises what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[ErrorRecord, float | None]] = []
        self.errors: list[Exception] = []

    def fail(
        self,
        lease: Lease,
        error: ErrorRecord,
        *,
        delay_seconds: float,
        max_attempts: int,
        patience_seconds: float | None = None,
    ) -> str:
        self.told.append((error, patience_seconds))
        if self.errors:
            raise self.errors.pop(0)
        return "retry"


def lease(stage: Stage = Stage.EMBED) -> Lease:
    return Lease("task_a", stage, 0, 1, 1, False, "default", "docs", "o")


def test_however_many_attempts_a_setting_allows_the_pause_is_a_number() -> None:
    assert (
        decide(TransientError("?"), Stage.EMBED, 5000, SETTINGS, Random(1)).delay_seconds <= SETTINGS.retry_max_seconds
    )


@pytest.mark.parametrize("stage", [Stage.PREPARE, Stage.EMBED])
@pytest.mark.parametrize("error", [StoreUnavailable("away"), StoreForbidden("403"), LedgerUnavailable("away")])
def test_an_outage_of_s3_or_redis_is_charged_to_nobody(stage: Stage, error: Exception) -> None:
    found = decide(error, stage, 2, SETTINGS, Random(1))
    assert found.record.transient
    assert found.patience_seconds == SETTINGS.outage_patience_seconds
    assert 3 <= found.delay_seconds <= 7
    bounded = SETTINGS.model_copy(update={"retry_max_seconds": 0.1})
    assert decide(error, stage, 2, bounded, Random(1)).delay_seconds <= 0.1


@pytest.mark.parametrize(
    "error", [SourceUnavailable("away"), EncoderOutOfMemory("full"), TransientError("?"), ValueError("a bug")]
)
def test_other_transient_errors_are_charged(error: Exception) -> None:
    assert decide(error, Stage.EMBED, 0, SETTINGS, Random(1)).patience_seconds is None


@pytest.mark.parametrize(
    "error", [StoreUnavailable("away"), StoreForbidden("403"), TransientError("?"), ValueError("a bug")]
)
def test_a_commit_is_never_given_up_for_a_transient_error(error: Exception) -> None:
    assert decide(error, Stage.COMMIT, 9, SETTINGS, Random(1)).patience_seconds == FOREVER_SECONDS


@pytest.mark.parametrize("stage", list(Stage))
def test_a_permanent_error_is_charged_in_every_stage(stage: Stage) -> None:
    found = decide(StoreDamaged("other bytes"), stage, 0, SETTINGS, Random(1))
    assert (found.patience_seconds, found.record.transient) == (None, False)


@given(st.text(st.characters(), max_size=20), st.text(st.characters(), max_size=20))
def test_every_message_can_be_written_down(message: str, hint: str) -> None:
    record = decide(CorruptDocument(message, hint=hint), Stage.PREPARE, 0, SETTINGS, Random(1)).record
    dump(record).encode()


def test_the_ledger_hears_how_patient_it_should_be(tmp_path: Path) -> None:
    ledger = Recorder()
    with desk(tmp_path, ledger=ledger, outage_patience_seconds=60) as d:
        d.ctx.settle(lease(), StoreUnavailable("away"))
        d.ctx.settle(lease(), SourceUnavailable("away"))
    assert [(record.code, patience) for record, patience in ledger.told] == [
        ("store_unavailable", 60.0),
        ("source_unavailable", None),
    ]


def test_a_record_that_the_ledger_cannot_take_is_followed_by_a_bare_one(tmp_path: Path) -> None:
    ledger = Recorder()
    ledger.errors = [UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates")]
    with desk(tmp_path, ledger=ledger) as d:
        d.ctx.settle(lease(), CorruptDocument("It is \ud800 damaged."))
    assert [record.code for record, _ in ledger.told] == ["corrupt_document", "internal"]
    assert ledger.told[0][0].message == "It is ? damaged."


def test_settling_raises_nothing_whatever_the_ledger_does(tmp_path: Path) -> None:
    ledger = Recorder()
    with desk(tmp_path, ledger=ledger) as d:
        for errors in ([ValueError("a"), ValueError("b")], [LedgerUnavailable("away")], [LeaseLost("gone")]):
            ledger.errors = list(errors)
            d.ctx.settle(lease(), CorruptDocument("It is damaged."))
        ledger.told.clear()
        d.ctx.settle(lease(), LeaseLost("gone"))
    assert ledger.told == [], "what is not ours is not charged"


class Heart(MemoryLedger):
    """Calls `beating` at each heartbeat and says that these items are lost."""

    lost: frozenset[str] = frozenset()
    beats = 0

    def beating(self) -> None:
        """Nothing."""

    def heartbeat(self, worker: str, leases: Iterable[Lease], **how: Any) -> set[str]:
        self.beats += 1
        self.beating()
        return set(self.lost)


def keeper(ledger: MemoryLedger, seconds: float = 100.0, roles: Sequence[Stage] = ()) -> LeaseKeeper:
    return LeaseKeeper(ledger, SETTINGS.model_copy(update={"heartbeat_seconds": seconds}), "w", roles, "{}")


def test_the_heartbeat_goes_on_after_any_error() -> None:
    again = threading.Event()

    class Faulty(Heart):
        def beating(self) -> None:
            if self.beats > 2:
                again.set()
            raise [ValueError("a bug"), LedgerUnavailable("away")][self.beats % 2]

    made = keeper(Faulty(), 0.01)
    assert again.wait(20)
    made.close()


def test_what_was_settled_while_the_ledger_answered_is_not_lost() -> None:
    ledger, one, two = Heart(), lease(), lease(Stage.COMMIT)
    made = keeper(ledger)
    made.add([one, two])
    ledger.lost = frozenset({one.item, two.item})
    ledger.beating = lambda: made.drop(one)
    made.beat()
    made.close()
    assert not made.lost(one)
    assert made.lost(two)
