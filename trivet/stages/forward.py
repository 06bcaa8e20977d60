"""Forward passes over the chunks of many shards: token-budget batches, and blame only where it belongs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from trivet.encoder import Encoder, Legs
from trivet.encoder.batching import cost, pack
from trivet.errors import EncoderBroken, EncoderOutOfMemory, TrivetError
from trivet.stages.budget import ForwardBudget
from trivet.values import Chunk, Lease

#: A tiny text: ids that every vocabulary has, with room to mean anything.
_CANARY = (0, 5, 6, 2)


@dataclass(frozen=True, slots=True)
class Work:
    """One leased shard with its chunks in memory."""

    lease: Lease
    chunks: tuple[Chunk, ...]
    #: Whether the spec wants ColBERT vectors.
    colbert: bool


@dataclass(frozen=True, slots=True)
class Row:
    """Chunk `place` of work `work`."""

    work: int
    place: int


@dataclass(frozen=True, slots=True)
class Computed:
    """A forward pass that went well: row i of `legs` belongs to `rows[i]`."""

    rows: tuple[Row, ...]
    legs: Legs


@dataclass(frozen=True, slots=True)
class Failed:
    """A shard whose chunks cannot be encoded, alone as well as with others."""

    work: int
    error: Exception


@dataclass
class _Pass:
    """What all forward passes of one claim share."""

    encoder: Encoder
    works: Sequence[Work]
    budget: ForwardBudget
    wanted: Callable[[Lease], bool]
    guard: Callable[[], AbstractContextManager[None]]
    #: Works that have failed.
    failed: set[int] = field(default_factory=set)

    def open(self, rows: Iterable[Row]) -> list[Row]:
        """Those that somebody still waits for."""
        return [row for row in rows if row.work not in self.failed and self.wanted(self.works[row.work].lease)]

    def lengths(self, rows: Sequence[Row]) -> list[int]:
        return [self.works[row.work].chunks[row.place].token_count for row in rows]

    def batches(self, rows: list[Row]) -> Iterator[list[Row]]:
        """Batches within the budget, which may change from one to the next."""
        while rows:
            budget = self.budget.tokens
            packed = pack(self.lengths(rows), budget, padded=self.encoder.padded)
            done = 0
            for batch in packed:
                if self.budget.tokens != budget:
                    break
                done += 1
                yield [rows[i] for i in batch]
            rows = [rows[i] for batch in packed[done:] for i in batch]

    def encode(self, rows: Sequence[Row], colbert: bool) -> Legs:
        with self.guard():
            return self.encoder.encode(
                [self.works[row.work].chunks[row.place].token_ids for row in rows], colbert=colbert
            )


def forward(
    encoder: Encoder,
    works: Sequence[Work],
    budget: ForwardBudget,
    wanted: Callable[[Lease], bool],
    guard: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator[Computed | Failed]:
    """Encode all chunks of all works in batches of about `budget` tokens, sorted by length, each within `guard`.

    A work whose lease is no longer `wanted` is left out as soon as that is known. On out-of-memory the batch is
    halved down to the one chunk that does not fit, and the budget of the next ones with it; on any other error it is
    split by shard, so that the neighbours of a bad chunk complete. Before a shard is blamed for an error that is none
    of ours, the encoder must show that it can still compute: raises `EncoderBroken` where it cannot, and then no shard
    has been blamed for that.
    """
    shared = _Pass(encoder, works, budget, wanted, guard)
    for colbert in (True, False):
        rows = [Row(w, c) for w, work in enumerate(works) if work.colbert is colbert for c in range(len(work.chunks))]
        for batch in shared.batches(rows):
            for result in _encode(shared, batch, colbert):
                if isinstance(result, Failed):
                    shared.failed.add(result.work)
                yield result


def _encode(shared: _Pass, batch: Sequence[Row], colbert: bool) -> Iterator[Computed | Failed]:
    stack = [list(batch)]
    while stack:
        rows = shared.open(stack.pop())
        if not rows:
            continue
        try:
            legs = shared.encode(rows, colbert)
        except EncoderOutOfMemory as error:
            if len(rows) == 1:
                # Its own size says nothing about what many small ones may have together.
                yield Failed(rows[0].work, error)
            else:
                shared.budget.ran_out(cost(shared.lengths(rows), padded=shared.encoder.padded))
                half = len(rows) // 2
                stack += [rows[half:], rows[:half]]
        except EncoderBroken:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the device raises is charged to the shard that causes it
            owners = sorted({row.work for row in rows})
            if len(owners) == 1:
                _check_alive(shared, error)
                yield Failed(owners[0], error)
            else:
                stack += [[row for row in rows if row.work == owner] for owner in reversed(owners)]
        else:
            shared.budget.went_well()
            yield Computed(tuple(rows), legs)


def _check_alive(shared: _Pass, error: Exception) -> None:
    if isinstance(error, TrivetError):
        return
    try:
        with shared.guard():
            shared.encoder.encode([_CANARY], colbert=True)
    except Exception as second:
        raise EncoderBroken(
            f"The encoder fails on every text, with {type(error).__name__} and then {type(second).__name__}."
        ) from second
