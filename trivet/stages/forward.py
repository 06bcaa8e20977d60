"""Forward passes over the chunks of many shards: token-budget batches, and blame only where it belongs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from trivet.encoder import Encoder, Legs
from trivet.encoder.batching import pack
from trivet.errors import EncoderBroken, EncoderOutOfMemory, TrivetError
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


def forward(
    encoder: Encoder, works: Sequence[Work], budget: int, wanted: Callable[[Lease], bool]
) -> Iterator[Computed | Failed]:
    """Encode all chunks of all works in batches of about `budget` tokens, sorted by length.

    A work whose lease is no longer `wanted` is left out as soon as that is known. On out-of-memory the batch is
    halved down to the one chunk that does not fit; on any other error it is split by shard, so that the neighbours
    of a bad chunk complete. Before a shard is blamed for an error that is none of ours, the encoder must show that it
    can still compute: raises `EncoderBroken` where it cannot, and then no shard has been blamed for that.
    """
    failed: set[int] = set()
    for colbert in (True, False):
        rows = [Row(w, c) for w, work in enumerate(works) if work.colbert is colbert for c in range(len(work.chunks))]
        lengths = [works[row.work].chunks[row.place].token_count for row in rows]
        for batch in pack(lengths, budget, padded=encoder.padded):
            todo = [rows[i] for i in batch]
            for result in _encode(encoder, works, todo, colbert, wanted, failed):
                if isinstance(result, Failed):
                    failed.add(result.work)
                yield result


def _encode(
    encoder: Encoder,
    works: Sequence[Work],
    batch: Sequence[Row],
    colbert: bool,
    wanted: Callable[[Lease], bool],
    failed: set[int],
) -> Iterator[Computed | Failed]:
    stack = [list(batch)]
    while stack:
        rows = [row for row in stack.pop() if row.work not in failed and wanted(works[row.work].lease)]
        if not rows:
            continue
        try:
            legs = encoder.encode([works[row.work].chunks[row.place].token_ids for row in rows], colbert=colbert)
        except EncoderOutOfMemory as error:
            if len(rows) == 1:
                yield Failed(rows[0].work, error)
            else:
                half = len(rows) // 2
                stack += [rows[half:], rows[:half]]
        except EncoderBroken:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the device raises is charged to the shard that causes it
            owners = sorted({row.work for row in rows})
            if len(owners) == 1:
                _check_alive(encoder, error)
                yield Failed(owners[0], error)
            else:
                stack += [[row for row in rows if row.work == owner] for owner in reversed(owners)]
        else:
            yield Computed(tuple(rows), legs)


def _check_alive(encoder: Encoder, error: Exception) -> None:
    if isinstance(error, TrivetError):
        return
    try:
        encoder.encode([_CANARY], colbert=True)
    except Exception as second:
        raise EncoderBroken(
            f"The encoder fails on every text, with {type(error).__name__} and then {type(second).__name__}."
        ) from second
