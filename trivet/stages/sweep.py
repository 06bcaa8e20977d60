"""Sweep: overdue leases, retries that are due, doorbells that were lost, tasks past their retention."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from trivet.clock import Clock
from trivet.errors import LedgerSchema, LedgerUnavailable
from trivet.ledger import Ledger, Swept
from trivet.settings import Settings
from trivet.values import ErrorRecord

log = structlog.get_logger(__name__)

_CRASHED = ErrorRecord(
    code="worker_crashed",
    message="The worker died each time that it held this work item alone.",
    hint="The document is likely to crash its parser or encoder; the workers' logs say how they ended.",
)


def sweep_once(ledger: Ledger, settings: Settings) -> Swept:
    """One sweep. Raises `LedgerUnavailable`."""
    swept = ledger.sweep(
        lease_seconds=settings.lease_seconds,
        max_expiries=settings.max_expiries,
        retention_seconds=settings.task_retention_days * 86400,
        error=_CRASHED,
    )
    if swept.expired or swept.failed:
        log.warning("leases.expired", expired=swept.expired, failed=swept.failed)
    return swept


def sweep_forever(ledger: Ledger, settings: Settings, clock: Clock, stopping: Callable[[], bool]) -> None:
    """Sweep every `settings.sweep_seconds` until `stopping()`, and at once where one was not enough; an unreachable
    ledger is waited for.
    """
    said = ""
    while not stopping():
        try:
            swept = sweep_once(ledger, settings)
            said = ""
            if swept.more:
                continue
        except LedgerUnavailable as error:
            # A ledger of another version may stay that way for long: once is enough.
            if error.message != said:
                log.warning("sweep.failed", error=error.message)
            said = error.message if isinstance(error, LedgerSchema) else ""
        clock.sleep(settings.sweep_seconds)
