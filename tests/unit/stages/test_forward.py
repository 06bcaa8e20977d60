"""Forward passes with one batch started ahead: whenever an error shows, the batch that caused it gets the blame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.unit.stages.desk import desk
from trivet.encoder import Legs
from trivet.encoder.fake import FakeEncoder
from trivet.encoder.models import fake_model
from trivet.errors import EncoderBroken, EncoderOutOfMemory
from trivet.names import Stage
from trivet.stages.budget import ForwardBudget
from trivet.stages.embed import EmbedLoop
from trivet.stages.forward import Computed, Failed, Work, forward
from trivet.values import Chunk, Lease

Where = Literal["start", "legs"]
both = pytest.mark.parametrize("where", ["start", "legs"])
Ids = Sequence[Sequence[int]]


class Ahead(FakeEncoder):
    """Starts at once, and raises what `fails` makes of a batch `where` it is told to."""

    overlaps = True

    def __init__(self, where: Where = "legs", fails: Callable[[Ids], Exception | None] = lambda _: None) -> None:
        super().__init__(fake_model(64))
        self.where, self.fails = where, fails
        self.guarded = False
        #: What was done with the batches, which are named by their number.
        self.log: list[tuple[str, int]] = []
        self.unguarded = 0

    def start(self, token_ids: Ids, **how: Any) -> Any:
        number = sum(what == "start" for what, _ in self.log)
        self.did("start", number, token_ids)
        return Later(self, number, token_ids, super().encode(token_ids, **how))

    def encode(self, token_ids: Ids, **how: Any) -> Legs:
        legs: Legs = self.start(token_ids, **how).legs()
        return legs

    def did(self, what: Where, number: int, token_ids: Ids) -> None:
        self.log.append((what, number))
        self.unguarded += not self.guarded
        error = self.fails(token_ids) if what == self.where else None
        if error is not None:
            raise error

    @contextmanager
    def guard(self) -> Iterator[None]:
        assert not self.guarded, "a watchdog guards one thing at a time"
        self.guarded = True
        try:
            yield
        finally:
            self.guarded = False


@dataclass
class Later:
    """A batch of `Ahead`."""

    encoder: Ahead
    number: int
    token_ids: Ids
    computed: Legs

    def legs(self) -> Legs:
        self.encoder.did("legs", self.number, self.token_ids)
        return self.computed


def work(n: int, *chunks: tuple[int, ...]) -> Work:
    """Shard `n` with chunks of these token ids."""
    lease = Lease("task", Stage.EMBED, n, 1, sum(map(len, chunks)), False, "default", "docs", "o")
    made = [
        Chunk(
            chunk_id=f"{n}-{at}",
            ordinal=at,
            text="",
            context="",
            heading_path=(),
            page_start=None,
            page_end=None,
            char_start=0,
            char_end=0,
            language=None,
            token_ids=ids,
        )
        for at, ids in enumerate(chunks)
    ]
    return Work(lease, tuple(made), colbert=True)


def run(
    encoder: Ahead,
    works: Sequence[Work],
    *,
    tokens: int = 64,
    wanted: Callable[[Lease], bool] = lambda _: True,
    guard: Callable[[], AbstractContextManager[None]] | None = None,
) -> tuple[dict[int, list[int]], list[Failed]]:
    """Work → places that were computed, and what failed."""
    done: dict[int, list[int]] = {}
    failed = []
    for result in forward(encoder, works, ForwardBudget(tokens), wanted, guard or nullcontext):
        if isinstance(result, Failed):
            failed.append(result)
            continue
        assert isinstance(result, Computed)
        assert len(result.legs) == len(result.rows)
        for row in result.rows:
            done.setdefault(row.work, []).append(row.place)
    return {w: sorted(places) for w, places in done.items()}, failed


def text(length: int, token: int = 50) -> tuple[int, ...]:
    return (0, *[token] * (length - 2), 2)


BAD = 99


def bad_chunk(error: Exception) -> Callable[[Ids], Exception | None]:
    return lambda token_ids: error if any(BAD in ids for ids in token_ids) else None


def test_each_batch_is_started_before_the_one_before_it_is_read() -> None:
    encoder = Ahead()
    run(encoder, [work(0, *[text(40)] * 3)])
    assert encoder.log == [("start", 0), ("start", 1), ("legs", 0), ("start", 2), ("legs", 1), ("legs", 2)]


def test_an_encoder_that_computes_at_once_is_read_at_once() -> None:
    encoder = Ahead()
    encoder.overlaps = False
    run(encoder, [work(0, *[text(40)] * 2)])
    assert encoder.log == [("start", 0), ("legs", 0), ("start", 1), ("legs", 1)]


def test_starting_and_waiting_are_both_guarded() -> None:
    encoder = Ahead()
    run(encoder, [work(0, *[text(40)] * 4)], guard=encoder.guard)
    assert len(encoder.log) == 8
    assert encoder.unguarded == 0


@both
@pytest.mark.parametrize("room", [64, 100, 1000])
def test_every_chunk_is_computed_once_whatever_fits(where: Where, room: int) -> None:
    def fails(token_ids: Ids) -> Exception | None:
        return EncoderOutOfMemory("full") if sum(map(len, token_ids)) > room else None

    works = [work(n, *[text(length) for length in range(3, 60, 5)]) for n in range(5)]
    done, failed = run(Ahead(where, fails), works, tokens=512)
    assert done == {n: list(range(12)) for n in range(5)}
    assert failed == []


@both
def test_the_one_chunk_that_fits_nowhere_is_blamed_and_its_neighbours_complete(where: Where) -> None:
    works = [work(n, text(10), text(12, BAD if n == 2 else 50), text(14)) for n in range(5)]
    done, failed = run(Ahead(where, bad_chunk(EncoderOutOfMemory("full"))), works, tokens=64)
    assert [(result.work, type(result.error)) for result in failed] == [(2, EncoderOutOfMemory)]
    assert {n: places for n, places in done.items() if n != 2} == {n: [0, 1, 2] for n in (0, 1, 3, 4)}
    assert 1 not in done.get(2, [])


@both
def test_a_chunk_that_fails_is_blamed_and_its_neighbours_complete(where: Where) -> None:
    works = [work(n, text(10), text(12, BAD if n == 2 else 50), text(14)) for n in range(5)]
    done, failed = run(Ahead(where, bad_chunk(RuntimeError("a bad kernel"))), works, tokens=64)
    assert [(result.work, str(result.error)) for result in failed] == [(2, "a bad kernel")]
    assert {n: places for n, places in done.items() if n != 2} == {n: [0, 1, 2] for n in (0, 1, 3, 4)}


@both
def test_a_shard_that_fails_in_two_batches_in_flight_is_blamed_once(where: Where) -> None:
    works = [work(0, *[text(40, BAD)] * 4)]
    _, failed = run(Ahead(where, bad_chunk(RuntimeError("a bad kernel"))), works)
    assert [result.work for result in failed] == [0]


@both
def test_a_neighbour_is_not_blamed_for_a_shard_that_failed_while_both_were_in_flight(where: Where) -> None:
    # Longest first: a batch of the bad shard alone, then one that both share.
    works = [work(0, text(60, BAD), text(20, BAD)), work(1, text(20), text(20))]
    done, failed = run(Ahead(where, bad_chunk(RuntimeError("a bad kernel"))), works)
    assert [result.work for result in failed] == [0]
    assert done[1] == [0, 1]


@both
def test_a_device_that_breaks_raises_and_what_was_computed_before_is_not_lost(where: Where) -> None:
    encoder = Ahead(where, bad_chunk(EncoderBroken("CUDA error: device-side assert triggered")))
    works = [work(0, text(60)), work(1, text(50, BAD))]
    results = forward(encoder, works, ForwardBudget(64), lambda _: True)
    first = next(results)
    assert isinstance(first, Computed)
    assert [row.work for row in first.rows] == [0]
    with pytest.raises(EncoderBroken, match="device-side assert"):
        next(results)


@both
def test_an_encoder_that_fails_on_every_text_is_broken_and_nobody_is_blamed(where: Where) -> None:
    encoder = Ahead(where, lambda _: RuntimeError("a bad kernel"))
    with pytest.raises(EncoderBroken, match="fails on every text"):
        run(encoder, [work(0, text(60)), work(1, text(50))])


@both
def test_a_shard_that_nobody_waits_for_any_more_is_not_blamed(where: Where) -> None:
    lost: set[int] = set()

    def fails(token_ids: Ids) -> Exception | None:
        if not any(BAD in ids for ids in token_ids):
            return None
        lost.add(1)
        return RuntimeError("a bad kernel")

    works = [work(0, text(60)), work(1, text(50, BAD))]
    done, failed = run(Ahead(where, fails), works, wanted=lambda lease: lease.n not in lost)
    assert (done, failed) == ({0: [0]}, [])


@both
def test_the_embed_loop_writes_all_but_the_shard_whose_batch_fails(tmp_path: Path, where: Where) -> None:
    with desk(tmp_path, forward_tokens=64) as d:
        task = d.staged("o", [["one" * 9], ["_" * 27], ["two" * 9], ["six" * 9]])
        encoder = Ahead(where, bad_chunk(RuntimeError("a bad kernel")))
        loop = EmbedLoop(d.ctx, encoder)
        loop.run(float("inf"))
        loop.close()
        assert d.view(task).shards_done == 3
        assert d.states() == {"embed/1": "due"}
        assert d.ctx.keeper.held == []
