"""Stages on the real ledger and the real store, driven by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.commits import Wrapped
from tests.unit.stages.desk import CRASHED, Desk, desk, encoder
from trivet.encoder import Legs
from trivet.encoder.fake import FakeEncoder
from trivet.encoder.models import fake_model
from trivet.errors import EncoderBroken, StoreUnavailable
from trivet.ledger import open_ledger
from trivet.settings import Settings
from trivet.stages import commit
from trivet.stages.embed import EmbedLoop
from trivet.stores import ObjectStore
from trivet.values import TaskState

FAR = float("inf")


@pytest.fixture
def quick(settings: Settings) -> Settings:
    """Leases that expire and retries that are due within the second."""
    return settings.model_copy(update={"lease_seconds": 0.5, "heartbeat_seconds": 0.1, "retry_max_seconds": 0.02})


def sweep_until(d: Desk, done: Callable[[], bool], step: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        d.ledger.sweep(lease_seconds=d.settings.lease_seconds, max_expiries=5, retention_seconds=1e6, error=CRASHED)
        step()
        time.sleep(0.02)


def run_all(d: Desk, made: FakeEncoder) -> None:
    loop = EmbedLoop(d.ctx, made)
    loop.run(FAR)
    loop.close()
    commit.run(d.ctx, FAR)


def test_what_a_broken_encoder_held_is_embedded_by_the_next_worker(
    quick: Settings, store: ObjectStore, tmp_path: Path
) -> None:
    class Broken(FakeEncoder):
        def encode(self, token_ids: Sequence[Sequence[int]], **how: Any) -> Legs:
            raise EncoderBroken("CUDA error: device-side assert triggered")

    with desk(tmp_path, ledger=open_ledger(quick), store=store, base=quick) as d:
        task = d.staged("o", [["one"], ["two"], ["three"]])
        dying = d.worker("dying")
        ended: list[int] = []
        with pytest.raises(EncoderBroken):
            EmbedLoop(dying, Broken(fake_model(64)), exit=ended.append).run(FAR)
        dying.keeper.close()
        assert ended == [70]
        sweep_until(d, lambda: d.view(task).state.terminal, lambda: run_all(d, encoder()))
        assert d.view(task).state is TaskState.COMPLETED


def test_an_outage_longer_than_all_attempts_fails_no_task(quick: Settings, store: ObjectStore, tmp_path: Path) -> None:
    left = {"get": 0, "put": 0}

    def away(verb: str, key: str) -> None:
        if left.get(verb, 0) > 0:
            left[verb] -= 1
            raise StoreUnavailable(f"{verb} got no answer")

    with desk(tmp_path, ledger=open_ledger(quick), store=Wrapped(store, away), base=quick) as d:
        task = d.staged("o", [["one"]])
        left.update(get=2 * quick.max_attempts, put=2 * quick.max_attempts)
        sweep_until(d, lambda: d.view(task).state.terminal, lambda: run_all(d, encoder()))
        assert d.view(task).state is TaskState.COMPLETED
        assert left == {"get": 0, "put": 0}


def test_an_outage_without_end_fails_the_task_once_patience_is_over(
    quick: Settings, store: ObjectStore, tmp_path: Path
) -> None:
    def away(verb: str, key: str) -> None:
        if verb == "get" and "/plan/" in key:
            raise StoreUnavailable("no answer")

    base = quick.model_copy(update={"outage_patience_seconds": 0.5})
    with desk(tmp_path, ledger=open_ledger(base), store=Wrapped(store, away), base=base) as d:
        task = d.staged("o", [["one"]])
        sweep_until(d, lambda: d.view(task).state.terminal, lambda: run_all(d, encoder()))
        view = d.view(task)
        assert view.state is TaskState.FAILED
        assert view.error is not None
        assert view.error.code == "store_unavailable"
