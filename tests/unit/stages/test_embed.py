"""The embed loop: whatever fails, no shard stays with a worker that no longer works on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.stages.desk import desk, encoder
from trivet.encoder import Legs
from trivet.encoder.fake import FakeEncoder
from trivet.encoder.models import fake_model
from trivet.errors import LedgerUnavailable
from trivet.ledger.memory import MemoryLedger
from trivet.names import Stage
from trivet.stages.embed import EmbedLoop
from trivet.values import Lease

FAR = float("inf")


class FlakyClaims(MemoryLedger):
    """The claims for embed numbered in `bad` (from 1) raise."""

    def __init__(self) -> None:
        super().__init__()
        self.bad: dict[int, Exception] = {}
        self.claims = 0

    def claim(self, stage: Stage, *rest: Any, **how: Any) -> list[Lease]:
        if stage is Stage.EMBED:
            self.claims += 1
            if self.claims in self.bad:
                raise self.bad[self.claims]
        return super().claim(stage, *rest, **how)


def test_a_claim_that_the_ledger_does_not_answer_leaves_what_is_held_to_be_computed(tmp_path: Path) -> None:
    ledger = FlakyClaims()
    ledger.bad = {2: LedgerUnavailable("away"), 3: LedgerUnavailable("away")}
    with desk(tmp_path, ledger=ledger, claim_tokens=64) as d:
        task = d.staged("o", [["one"], ["two" * 40], ["three" * 40]])
        loop = EmbedLoop(d.ctx, encoder())
        while loop.run(FAR):
            pass
        loop.close()
        assert d.view(task).shards_done == 3
        assert d.ctx.keeper.held == []


def test_a_ledger_that_goes_away_during_a_loop_means_that_work_may_be_left(tmp_path: Path) -> None:
    ledger = FlakyClaims()
    ledger.bad = {n: LedgerUnavailable("away") for n in range(2, 9)}
    with desk(tmp_path, ledger=ledger) as d:
        d.staged("o", [["one"]])
        loop = EmbedLoop(d.ctx, encoder())
        assert loop.run(FAR) is True
        loop.close()


def test_an_error_of_a_claim_gives_back_what_is_held(tmp_path: Path) -> None:
    ledger = FlakyClaims()
    ledger.bad = {2: ValueError("a bug")}
    with desk(tmp_path, ledger=ledger, claim_tokens=64) as d:
        d.staged("o", [["one"], ["two" * 40]])
        loop = EmbedLoop(d.ctx, encoder())
        with pytest.raises(ValueError, match="a bug"):
            loop.run(FAR)
        loop.close()
        assert d.ctx.keeper.held == []
        assert set(d.states().values()) == {"pending"}
        assert d.attempts() == [0, 0]


def test_an_error_of_the_compute_thread_gives_back_this_claim_and_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("trivet.stages.embed.forward", broken)
    with desk(tmp_path, claim_tokens=64) as d:
        d.staged("o", [["one" * 40], ["two" * 40], ["three" * 40]])
        loop = EmbedLoop(d.ctx, encoder())
        with pytest.raises(ValueError, match="a bug"):
            loop.run(FAR)
        loop.close()
        assert d.ctx.keeper.held == []
        assert set(d.states().values()) == {"pending"}


def test_rows_that_do_not_fit_together_are_charged_to_their_shard_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trivet.parts.writer import gather

    def picky(rows: Sequence[tuple[Legs, int]]) -> Legs:
        if len(rows) == 2:
            raise ValueError("a bug")
        return gather(rows)

    monkeypatch.setattr("trivet.stages.embed.gather", picky)
    with desk(tmp_path) as d:
        task = d.staged("o", [["one"], ["two", "three"], ["four"]])
        loop = EmbedLoop(d.ctx, encoder())
        loop.run(FAR)
        loop.close()
        assert d.view(task).shards_done == 2
        assert d.states() == {"embed/1": "due"}


def test_suspects_are_served_one_after_another_in_one_loop(tmp_path: Path) -> None:
    calls: list[int] = []

    class Counting(FakeEncoder):
        def encode(self, token_ids: Sequence[Sequence[int]], **how: Any) -> Legs:
            calls.append(len(token_ids))
            return super().encode(token_ids, **how)

    with desk(tmp_path) as d:
        task = d.staged("o", [["one"], ["two"], ["three"], ["four"]])
        d.suspect()
        loop = EmbedLoop(d.ctx, Counting(fake_model(64)))
        assert loop.run(FAR) is False
        loop.close()
        assert d.view(task).shards_done == 4
        assert calls == [1, 1, 1, 1], "each suspect alone"


def test_a_stopped_worker_gives_back_what_it_has_not_computed(tmp_path: Path) -> None:
    with desk(tmp_path, claim_tokens=64) as d:
        d.staged("o", [["one" * 40], ["two" * 40]])
        ctx = d.worker("stopped", stopping=lambda: True)
        loop = EmbedLoop(ctx, encoder())
        assert loop.run(FAR) is True
        loop.close()
        ctx.keeper.close()
        assert set(d.states().values()) == {"pending"}
