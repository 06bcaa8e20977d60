"""The budget of a forward pass, and what out-of-memory does to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.stages.desk import CRASHED, desk
from trivet.encoder import Legs
from trivet.encoder.fake import FakeEncoder
from trivet.encoder.models import fake_model
from trivet.errors import EncoderOutOfMemory
from trivet.stages.budget import ForwardBudget
from trivet.stages.embed import EmbedLoop
from trivet.values import TaskState

FAR = float("inf")


class Small(FakeEncoder):
    """A device that holds `room` tokens at once."""

    def __init__(self, room: int) -> None:
        super().__init__(fake_model(64))
        self.room = room
        self.passes: list[int] = []

    def encode(self, token_ids: Sequence[Sequence[int]], **how: Any) -> Legs:
        tokens = sum(len(ids) for ids in token_ids)
        self.passes.append(tokens)
        if tokens > self.room:
            raise EncoderOutOfMemory(f"{tokens} tokens")
        return super().encode(token_ids, **how)


@given(
    most=st.integers(64, 100_000),
    events=st.lists(st.one_of(st.none(), st.integers(1, 200_000)), max_size=300),
)
def test_the_budget_stays_between_the_smallest_and_the_setting(most: int, events: list[int | None]) -> None:
    budget = ForwardBudget(most)
    for tokens in events:
        before = budget.tokens
        if tokens is None:
            budget.went_well()
            assert before <= budget.tokens <= before * 1.1 + 1
        else:
            budget.ran_out(tokens)
            assert budget.tokens <= max(64, tokens // 2)
        assert 64 <= budget.tokens <= most


@given(most=st.integers(64, 100_000), falls=st.integers(1, 12))
def test_the_budget_comes_back_to_the_setting_when_the_memory_does(most: int, falls: int) -> None:
    budget = ForwardBudget(most)
    for _ in range(falls):
        budget.ran_out(budget.tokens)
    for _ in range(20 * 100):
        budget.went_well()
    assert budget.tokens == most


def test_a_pass_that_does_not_fit_makes_the_next_ones_smaller(tmp_path: Path) -> None:
    with desk(tmp_path, forward_tokens=1024) as d:
        task = d.staged("o", [["x" * 60] * 4 for _ in range(40)])
        encoder = Small(300)
        loop = EmbedLoop(d.ctx, encoder)
        loop.run(FAR)
        loop.close()
        assert d.view(task).shards_done == 40
        too_large = [tokens for tokens in encoder.passes if tokens > encoder.room]
        assert len(too_large) < 6, "one fall, then now and then a cautious try"
        assert d.attempts() == [0]


def test_a_chunk_that_fits_nowhere_is_blamed_alone_and_dead_lettered_while_the_others_complete(tmp_path: Path) -> None:
    with desk(tmp_path, forward_tokens=1024, retry_base_seconds=0.01, retry_max_seconds=0.01) as d:
        bad = d.staged("bad", [["fits"], ["x" * 500], ["fits too"]])
        good = d.staged("good", [["a" * 20], ["b" * 20]])
        loop = EmbedLoop(d.ctx, Small(300))
        for _ in range(d.settings.max_attempts):
            loop.run(FAR)
            d.clock.advance(1.0)
            d.ledger.sweep(lease_seconds=60, max_expiries=5, retention_seconds=1e6, error=CRASHED)
        loop.close()
        view = d.view(bad)
        assert view.state is TaskState.FAILED
        assert view.error is not None
        assert view.error.code == "encoder_out_of_memory"
        assert d.view(good).shards_done == 2
        assert d.view(good).state is not TaskState.FAILED


@pytest.mark.parametrize("room", [70, 128, 1000])
def test_every_chunk_is_computed_once_whatever_fits(tmp_path: Path, room: int) -> None:
    with desk(tmp_path, forward_tokens=512) as d:
        task = d.staged("o", [["y" * n for n in range(1, 60, 7)], ["z" * 30] * 5])
        encoder = Small(room)
        loop = EmbedLoop(d.ctx, encoder)
        loop.run(FAR)
        loop.close()
        assert d.view(task).shards_done == 2
        assert sum(tokens for tokens in encoder.passes if tokens <= room) == sum(n + 2 for n in range(1, 60, 7)) + 160
