"""The loop of the stages that take one work item at a time."""

from __future__ import annotations

from collections.abc import Callable

from trivet.names import Stage
from trivet.stages.context import StageContext
from trivet.values import Lease


def one_by_one(ctx: StageContext, stage: Stage, deadline: float, work: Callable[[StageContext, Lease], None]) -> bool:
    """Claim and do one item after another until nothing waits, `deadline` (monotonic) has come or the process stops.

    An error ends its item alone: it is charged, and the next item is claimed. Returns whether work may be left.
    """
    while not ctx.stopping():
        if ctx.clock.monotonic() >= deadline:
            return True
        leases = ctx.ledger.claim(
            stage,
            ctx.worker,
            ctx.operation(),
            lease_seconds=ctx.settings.lease_seconds,
            max_staged_tokens=ctx.settings.max_staged_tokens,
        )
        if not leases:
            return False
        for lease in leases:
            ctx.keeper.add([lease])
            try:
                work(ctx, lease)
            except Exception as error:  # noqa: BLE001 - whatever one document does, the next one is worked on
                ctx.settle(lease, error)
            finally:
                ctx.keeper.drop(lease)
    return True
