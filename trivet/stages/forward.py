"""Forward passes over the chunks of many shards: token-budget batches, and blame only where it belongs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from trivet.encoder import Encoder, Legs, Pending
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

    def start(self, rows: Sequence[Row], colbert: bool) -> _Started:
        ids = [self.works[row.work].chunks[row.place].token_ids for row in rows]
        try:
            with self.guard():
                return _Started(rows, colbert, self.encoder.start(ids, colbert=colbert))
        except Exception as error:  # noqa: BLE001 - raised again where the results of these rows are due
            return _Started(rows, colbert, _Fallen(error))

    def legs(self, started: _Started) -> Legs:
        with self.guard():
            return started.pending.legs()


@dataclass(frozen=True, slots=True)
class _Started:
    """Rows that the encoder was given."""

    rows: Sequence[Row]
    colbert: bool
    pending: Pending


@dataclass(frozen=True, slots=True)
class _Fallen:
    """A batch that could not even be started: what comes of it is the error, in its turn."""

    error: Exception

    def legs(self) -> Legs:
        raise self.error


def forward(
    encoder: Encoder,
    works: Sequence[Work],
    budget: ForwardBudget,
    wanted: Callable[[Lease], bool],
    guard: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator[Computed | Failed]:
    """Encode all chunks of all works in batches of about `budget` tokens, sorted by length.

    Where the encoder overlaps, each batch is started before the one before it is read. Starting and waiting are each
    within `guard`.

    A work whose lease is no longer `wanted` is left out as soon as that is known. On out-of-memory the batch is
    halved down to the one chunk that does not fit, and the budget of the next ones with it; on any other error it is
    split by shard, so that the neighbours of a bad chunk complete. Before a shard is blamed for an error that is none
    of ours, the encoder must show that it can still compute: raises `EncoderBroken` where it cannot, and then no shard
    has been blamed for that.
    """
    shared = _Pass(encoder, works, budget, wanted, guard)
    ahead = 1 if encoder.overlaps else 0
    for colbert in (True, False):
        rows = [Row(w, c) for w, work in enumerate(works) if work.colbert is colbert for c in range(len(work.chunks))]
        started: deque[_Started] = deque()
        for batch in shared.batches(rows):
            if open_rows := shared.open(batch):
                started.append(shared.start(open_rows, colbert))
            if len(started) > ahead:
                yield from _results(shared, started.popleft())
        while started:
            yield from _results(shared, started.popleft())


def _results(shared: _Pass, started: _Started) -> Iterator[Computed | Failed]:
    """What has come of a batch; after an error, what comes of its parts, which are tried one after another."""
    result = _result(shared, started)
    if isinstance(result, list):
        for part in result:
            if rows := shared.open(part):
                yield from _results(shared, shared.start(rows, started.colbert))
        return
    if isinstance(result, Failed):
        shared.failed.add(result.work)
    yield result


def _result(shared: _Pass, started: _Started) -> Computed | Failed | list[Sequence[Row]]:
    """Legs, blame, or the parts that are to be tried by themselves."""
    try:
        legs = shared.legs(started)
    except EncoderBroken:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the device raises is charged to the shard that causes it
        # Some may have failed, or been lost, since these were started; they may have caused this all the same.
        rows = shared.open(started.rows)
        together = {row.work for row in started.rows}
        if isinstance(error, EncoderOutOfMemory) and len(started.rows) > 1:
            shared.budget.ran_out(cost(shared.lengths(started.rows), padded=shared.encoder.padded))
            half = (len(rows) + 1) // 2
            return [rows[:half], rows[half:]]
        if len(together) > 1 or not rows:
            return [[row for row in rows if row.work == owner] for owner in sorted(together)]
        # One chunk's own size says nothing about what many small ones may have together.
        if not isinstance(error, EncoderOutOfMemory):
            _check_alive(shared, error)
        return Failed(rows[0].work, error)
    shared.budget.went_well()
    return Computed(tuple(started.rows), legs)


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
