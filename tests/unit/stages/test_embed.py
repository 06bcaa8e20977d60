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
from trivet.errors import EncoderBroken, LedgerUnavailable
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


class Breaking(FakeEncoder):
    """Raises the error for each text that holds token `poison`, or for all once `broken`."""

    poison = -1
    broken = False
    breaks = False
    error: Exception = RuntimeError("a bad kernel")

    def encode(self, token_ids: Sequence[Sequence[int]], **how: Any) -> Legs:
        if any(self.poison in ids for ids in token_ids):
            self.broken = self.broken or self.breaks
            raise self.error
        if self.broken:
            raise self.error
        return super().encode(token_ids, **how)


def breaking(**attributes: Any) -> Breaking:
    made = Breaking(fake_model(64))
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def test_a_chunk_that_fails_alone_is_blamed_and_its_neighbours_complete(tmp_path: Path) -> None:
    with desk(tmp_path) as d:
        task = d.staged("o", [["one"], ["Z"], ["two"]])
        ended: list[int] = []
        loop = EmbedLoop(d.ctx, breaking(poison=4 + ord("Z")), exit=ended.append)
        loop.run(FAR)
        loop.close()
        assert d.view(task).shards_done == 2
        assert d.states() == {"embed/1": "due"}
        assert ended == []


@pytest.mark.parametrize(
    "how",
    [
        {"broken": True},
        {"broken": True, "error": EncoderBroken("CUDA error: device-side assert triggered")},
        {"poison": 4 + ord("Z"), "breaks": True},
    ],
)
def test_an_encoder_that_computes_nothing_ends_the_process_and_charges_nobody(
    tmp_path: Path, how: dict[str, Any]
) -> None:
    with desk(tmp_path, claim_tokens=128) as d:
        d.staged("o", [["Z" + "one" * 12], ["two" * 12], ["three" * 12], ["four" * 12], ["five" * 12], ["six" * 12]])
        ended: list[int] = []
        loop = EmbedLoop(d.ctx, breaking(**how), exit=ended.append)
        with pytest.raises(EncoderBroken):
            loop.run(FAR)
        loop.close()
        assert ended == [70]
        assert d.attempts() == [0] * 6
        states = list(d.states().values())
        assert 0 < states.count("leased") < 6, "what was tried expires, what was not is given back"
        assert states.count("leased") + states.count("pending") == 6


def test_what_was_computed_before_the_encoder_broke_is_written(tmp_path: Path) -> None:
    with desk(tmp_path, forward_tokens=64) as d:
        task = d.staged("o", [["one" * 20], ["Z" + "two" * 15], ["three" * 12]])
        ended: list[int] = []
        made = breaking(poison=4 + ord("Z"), error=EncoderBroken("CUDA error"))
        loop = EmbedLoop(d.ctx, made, exit=ended.append)
        with pytest.raises(EncoderBroken):
            loop.run(FAR)
        loop.close()
        assert d.view(task).shards_done >= 1
        assert d.states()["embed/1"] == "leased"
        assert ended == [70]
