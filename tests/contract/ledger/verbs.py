"""What the workers of a state machine may do with a lease."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.contract.ledger.desk import CRASH, MODEL, PERMANENT, SPEC
from trivet.names import Stage
from trivet.values import Lease, Part, Receipt, TaskState

FOR_EVER = 10_000.0


@dataclass(frozen=True)
class Verb:
    """One call on a ledger with a lease, and the one that must come before it."""

    call: Callable[[Any, Lease], object]
    before: Callable[[Any, Lease], object] | None = None
    #: The lease is no longer held after it.
    ends: bool = True


def part_of(lease: Lease) -> Part:
    return Part(
        shard=lease.n, key=f"k{lease.n}", sha256="s", bytes=1, rows=1, tokens=lease.cost, input_hash=f"h{lease.n}"
    )


def verb_of(lease: Lease, number: int, shards: int, lease_seconds: float) -> Verb:
    """What a worker may do with a lease."""

    def fail(ledger: Any, lease: Lease) -> object:
        rest = number // 9
        error = (CRASH, PERMANENT)[rest % 2]
        return ledger.fail(lease, error, delay_seconds=FOR_EVER if rest % 5 == 0 else 0, max_attempts=2)

    def release(ledger: Any, lease: Lease) -> object:
        return ledger.release([lease])

    def heartbeat(ledger: Any, lease: Lease) -> object:
        return ledger.heartbeat("v", [lease], lease_seconds=lease_seconds, roles=[], info="{}")

    def allocate(ledger: Any, lease: Lease) -> object:
        return ledger.allocate(lease, number % 4, SPEC)[0]

    def stage(ledger: Any, lease: Lease) -> object:
        work = [(100 * (n + 1), f"h{n}") for n in range(shards)]
        return ledger.stage(lease, MODEL.encoder_key, "sha", work, pages=1, chunks=shards, fetched_bytes=number)

    def skip(ledger: Any, lease: Lease) -> object:
        return ledger.finish(lease, TaskState.SKIPPED, manifest="", receipt=Receipt())

    def shard_done(ledger: Any, lease: Lease) -> object:
        return ledger.shard_done(lease, part_of(lease), "{}")

    def committing(ledger: Any, lease: Lease) -> object:
        return [part for part, _ in ledger.committing(lease)]

    def take(ledger: Any, lease: Lease) -> object:
        return ledger.take_generation(lease, number % 4)

    def restage(ledger: Any, lease: Lease) -> object:
        return ledger.restage(lease, number % 4)

    def finish(ledger: Any, lease: Lease) -> object:
        delete = json.loads(lease.payload)["kind"] == "delete"
        ends = (TaskState.DELETED, TaskState.SKIPPED) if delete else (TaskState.COMPLETED, TaskState.COMPLETED)
        state = (*ends, TaskState.SUPERSEDED)[shards - 1]
        return ledger.finish(lease, state, manifest="m", receipt=Receipt())

    staging, ending = Verb(stage, before=allocate), Verb(finish, before=committing)
    own = {
        Stage.PREPARE: [staging, staging, staging, Verb(allocate, ends=False), Verb(skip)],
        Stage.EMBED: [Verb(shard_done)] * 5,
        Stage.COMMIT: [
            ending,
            ending,
            Verb(committing, ends=False),
            Verb(take, ends=False),
            Verb(restage, before=committing),
            Verb(fail, before=committing),
        ],
    }
    verbs = [*own[lease.stage], Verb(fail), Verb(fail), Verb(release), Verb(heartbeat, ends=False)]
    return verbs[number % len(verbs)]
