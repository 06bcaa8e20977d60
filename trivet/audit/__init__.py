"""Audit: whether what must always hold does hold, in the ledger and on S3; and what to do where it does not.

May run at any time beside workers: each look at the ledger is one atomic step. What cannot be judged while work goes
on (the counters) is left out, and a note says so.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from trivet.audit.events import EventAudit
from trivet.audit.ledger import audit_ledger
from trivet.audit.objects import ObjectAudit, audit_results
from trivet.audit.report import AuditReport, Finding, Findings
from trivet.clock import Clock, SystemClock
from trivet.ledger.redis_auditing import RedisAuditing
from trivet.settings import Settings
from trivet.stores import ObjectStore, open_store

__all__ = ["AuditReport", "Finding", "audit"]


def audit(
    settings: Settings,
    *,
    ledger: RedisAuditing | None = None,
    store: ObjectStore | None = None,
    clock: Clock | None = None,
    repair: bool = False,
    only_ledger: bool = False,
) -> AuditReport:
    """Look at everything; with `repair` set right what can be. `only_ledger` leaves out S3, whose listing takes long.

    Raises `LedgerUnavailable`, `StoreUnavailable`, `StoreForbidden`. Repeat it after repairs: one may bring to light
    another.
    """
    ledger, store = ledger or RedisAuditing(settings), store or open_store(settings)
    found = Findings(repair)
    events = EventAudit(ledger, store, settings, found)
    events.read()
    with ThreadPoolExecutor(settings.io_threads, "trivet-audit") as pool:
        for tasks in audit_ledger(ledger, store, settings, found, events.state_of):
            found.tasks += len(tasks)
            events.look(tasks)
            if not only_ledger:
                audit_results(store, settings, found, pool, tasks)
        events.judge()
        if not only_ledger:
            ObjectAudit(ledger, store, settings, found, pool).run((clock or SystemClock()).now())
    return found.report()
